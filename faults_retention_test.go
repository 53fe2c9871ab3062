package agentkey_test

import (
	"context"

	agentkey "github.com/agentkey-dev/agentkey-go"
)

func retentionFaults() []faultOperation {
	policy := agentkey.RetentionPolicy{PersonalDays: 1}
	hold := agentkey.HoldInput{Scope: agentkey.HoldTool, Reason: "a dispute"}
	sinks := []func(*agentkey.Config){func(c *agentkey.Config) {
		c.Sinks = []agentkey.SinkConfig{{Name: "test", Sink: &gathered{}}}
	}}
	return []faultOperation{
		{method: "SetRetention", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.SetRetention(ctx, s.Owner, policy)) }
		}},
		{method: "PlanRetention", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.PlanRetention(ctx, s.Owner, policy)) }
		}},
		{method: "Retention", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Kit.Manager.Retention(ctx, s.Owner)) }
		}},
		{method: "Retain", parts: true, prepare: func(s *scene) call {
			_, err := s.SetRetention(s.t.Context(), s.Owner, policy)
			s.noErr(err)
			s.Clock.Advance(2 * days)
			return func(ctx context.Context) (any, error) { return onlyError(s.Retain(ctx)) }
		}},
		{method: "PlaceHold", prepare: func(s *scene) call {
			hold.ID = s.linear.ID
			return func(ctx context.Context) (any, error) { return answer(s.PlaceHold(ctx, s.Owner, hold)) }
		}},
		{method: "LiftHold", prepare: func(s *scene) call {
			placed, err := s.PlaceHold(s.t.Context(), s.Owner, agentkey.HoldInput{Scope: agentkey.HoldTool, ID: s.linear.ID, Reason: "a dispute"})
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				return onlyError(s.LiftHold(ctx, s.Owner, placed.Key, "it is over"))
			}
		}},
		{method: "Holds", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Holds(ctx, s.Owner)) }
		}},
		{method: "PlanErasure", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.PlanErasure(ctx, s.Owner, s.Owner.ID)) }
		}},
		{method: "ErasePerson", parts: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.ErasePerson(ctx, s.Owner, s.Owner.ID)) }
		}},
		{method: "Tail", prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Tail(ctx, s.Owner, agentkey.TailInput{})) }
		}},
		{method: "Ship", options: sinks, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return onlyError(s.Ship(ctx)) }
		}},
		{method: "Lags", options: sinks, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Lags(ctx)) }
		}},
		{method: "Shipping", options: sinks, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) { return answer(s.Shipping(ctx, s.Owner)) }
		}},
	}
}
