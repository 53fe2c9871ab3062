package agentkey_test

import (
	"context"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
)

func incidentFaults() []faultOperation {
	found := func(secret []byte) agentkey.LeakReport {
		return agentkey.LeakReport{Secret: agentkey.NewSecret(secret), Source: "content", URL: "https://git.example.com/acme"}
	}
	key := func(s *scene) []byte {
		s.ask(s.perAgent("GitHub"))
		issued, err := s.RotateKey(s.t.Context(), s.Owner, s.bot.ID, agentkey.RotateKeyInput{})
		s.noErr(err)
		return issued.Secret.Bytes()
	}
	return []faultOperation{
		{method: "ReportLeak", prepare: func(s *scene) call {
			secret := key(s)
			return func(ctx context.Context) (any, error) {
				return answer(s.ReportLeak(ctx, agentkey.RequestContext{}, found(secret)))
			}
		}},
		{method: "ReportLeak", variant: "of a token", prepare: func(s *scene) call {
			token, err := s.CreateToken(s.t.Context(), s.Owner, agentkey.CreateTokenInput{Name: "laptop"})
			s.noErr(err)
			return func(ctx context.Context) (any, error) {
				return answer(s.ReportLeak(ctx, agentkey.RequestContext{}, found(token.Secret.Bytes())))
			}
		}},
		{method: "IncidentReport", parts: true, prepare: func(s *scene) call {
			return func(ctx context.Context) (any, error) {
				r, err := s.IncidentReport(ctx, s.Owner, agentkey.IncidentInput{Agent: s.bot.ID, Since: agentkeytest.Epoch})
				if err != nil {
					return r, err
				}
				for _, err := range r.Events(ctx) {
					if err != nil {
						return r, err
					}
				}
				for _, err := range r.OpenGrants(ctx) {
					if err != nil {
						return r, err
					}
				}
				return r, nil
			}
		}},
		{method: "ReportOwnLeak", prepare: func(s *scene) call {
			secret := key(s)
			return func(ctx context.Context) (any, error) { return answer(s.ReportOwnLeak(ctx, s.Owner, found(secret))) }
		}},
	}
}
