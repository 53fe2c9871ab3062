package agentkey

import (
	"context"
	"encoding/json"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Settings are an organization's own settings.
type Settings struct {
	OnboardingDismissedAt int64 // microseconds; 0: nobody has dismissed it
}

// kindSettings is the kind of record that keeps them, one for each organization,
// by its id.
const kindSettings = "organization_settings"

type settingsPayload struct {
	OnboardingDismissedAt int64 `json:"onboarding_dismissed_at,omitempty"`
}

func (u *unit) settings() (p settingsPayload, r storage.Record, err error) {
	r, ok := u.records[recordRef{kindSettings, u.organization}]
	if ok && json.Unmarshal(r.Payload, &p) != nil {
		return p, r, &integrityError{kind: r.Kind, id: r.ID}
	}
	return p, r, nil
}

func (u *unit) putSettings(e *entry, p settingsPayload, revision int64) error {
	payload, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return u.putRecord(e, storage.Record{Kind: kindSettings, ID: u.organization, Payload: payload, Revision: revision})
}

func (p settingsPayload) view() Settings { return Settings(p) }

// Settings reads the organization's settings.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) Settings(ctx context.Context, a Actor) (Settings, error) {
	if err := m.authorize(ctx, a, OpReadSettings); err != nil {
		return Settings{}, err
	}
	var p settingsPayload
	var damaged error
	n := needs{records: []recordRef{{kindSettings, a.Organization}}}
	err := m.view(ctx, a.Organization, n, func(u *unit) { p, _, damaged = u.settings() })
	if err == nil {
		err = damaged
	}
	return p.view(), err
}

// DismissOnboarding notes that the organization needs no introduction any more.
// The first time stands: dismissing it again changes nothing.
//
// The errors: ErrForbidden, ErrLimited, ErrUnavailable.
func (m *Manager) DismissOnboarding(ctx context.Context, a Actor) (Settings, error) {
	if err := m.authorize(ctx, a, OpDismissOnboarding); err != nil {
		return Settings{}, err
	}
	var out Settings
	n := needs{records: []recordRef{{kindSettings, a.Organization}}}
	err := m.act(ctx, a, OpDismissOnboarding, n, func(u *unit) error {
		p, r, err := u.settings()
		if err != nil {
			return err
		}
		if p.OnboardingDismissedAt == 0 {
			p.OnboardingDismissedAt = u.now
			e := u.event(a.who(), audit.ActionOrganizationUpdated)
			e.Target = audit.Ref{Kind: audit.KindOrganization, ID: u.organization}
			e.Details = map[string]string{"onboarding": "dismissed"}
			if err := u.putSettings(e, p, r.Revision+1); err != nil {
				return err
			}
		}
		out = p.view()
		return nil
	})
	return out, err
}
