package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type onboarding struct {
	DismissedAt *string `json:"onboardingDismissedAt"`
}

func answerOnboarding(x *exchange.Exchange) func(agentkey.Settings, error) error {
	return func(s agentkey.Settings, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, onboarding{exchange.OptionalTime(s.OnboardingDismissedAt)})
	}
}

func (a *api) getOnboarding(x *exchange.Exchange, actor agentkey.Actor) error {
	return answerOnboarding(x)(a.manager.Settings(x.Ctx(), actor))
}

// dismissOnboarding keeps the first time that it was dismissed.
func (a *api) dismissOnboarding(x *exchange.Exchange, actor agentkey.Actor) error {
	if err := x.Read(optional, func(*exchange.Fields) {}); err != nil {
		return err
	}
	return answerOnboarding(x)(a.manager.DismissOnboarding(x.Ctx(), actor))
}
