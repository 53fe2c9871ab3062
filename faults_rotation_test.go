package agentkey_test

import (
	"context"
	"os"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

func rotationFaults() []faultOperation {
	operator := agentkey.Operator("test")
	return []faultOperation{
		{method: "KeysStatus", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.KeysStatus(ctx, s.Owner, agentkey.KeysStatusInput{Count: true}))
			}
		}},
		{method: "RotateDataKeys", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.RotateDataKeys(ctx, s.Owner, agentkey.RotateDataKeysInput{}))
			}
		}},
		{method: "Reseal", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Reseal(ctx, s.Owner)) }
		}},
		{method: "RewrapDataKeys", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.RewrapDataKeys(ctx, operator)) }
		}},
		{method: "RotateSigningKey", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.RotateSigningKey(ctx, operator)) }
		}},
		{method: "ContinueRotations", parts: true, loose: true, prepare: func(s *scene) call {
			if os.Getenv("AGENTKEY_PROVE") != "" { // a re-sealing reads every kind of record
				_, err := s.RotateDataKeys(s.t.Context(), s.Owner, agentkey.RotateDataKeysInput{})
				s.noErr(err)
				_, err = s.Reseal(s.t.Context(), s.Owner)
				s.noErr(err)
			}
			_, err := s.RewrapDataKeys(s.t.Context(), operator)
			s.noErr(err)
			return func(ctx context.Context) (any, error) { return answer(s.ContinueRotations(ctx)) }
		}},
		{method: "PlanDestruction", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.PlanDestruction(ctx, s.Owner)) }
		}},
		{method: "DestroyOrganization", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				return answer(s.DestroyOrganization(ctx, s.Owner, s.confirmed()))
			}
		}},
	}
}

// confirmed is what confirms that the organization is to be destroyed.
func (s *scene) confirmed() agentkey.DestroyOrganizationInput {
	s.t.Helper()
	plan, err := s.witness.PlanDestruction(context.Background(), s.Owner)
	s.noErr(err)
	return agentkey.DestroyOrganizationInput{Name: plan.Name, Confirmation: plan.Confirmation, Reason: "it is over"}
}
