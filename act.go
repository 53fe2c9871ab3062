package agentkey

import (
	"context"
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// act lets an actor who is authorized to do op change something: decide is run
// under the head, where a token that the Manager keeps is checked once more.
func (m *Manager) act(ctx context.Context, a Actor, op Operation, n needs, decide func(u *unit) error) error {
	if a.token != "" {
		n.records = append(n.records, recordRef{kindToken, a.token}, recordRef{kindAdministrator, a.ID})
	}
	return m.commit(ctx, &operation{organization: a.Organization, urgent: rules[op].free, needs: n, decide: func(u *unit) error {
		if u.org == nil && u.organization != storage.System {
			return ErrNoOrganization
		}
		if a.token != "" {
			if err := checkToken(u, a); err != nil {
				return err
			}
		}
		return decide(u)
	}})
}

// afterCommit answers what was read after a change was committed. If that can't
// be read the change still stands, so no error may say that nothing was done.
func afterCommit[T any](v T, err error) (T, error) {
	if err != nil {
		var none T
		return none, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return v, nil
}

// seal seals a new credential for an organization. It is done before the head is
// taken; the seal is counted in a block that was reserved durably.
func (m *Manager) seal(ctx context.Context, c storage.Credential, secret *vault.Secret) ([]byte, error) {
	sealed, err := m.sealAt(ctx, c.Place(m.installation), secret)
	if errors.Is(err, vault.ErrPlaintext) {
		return nil, invalid("credential", "must have 1 to 65536 bytes")
	}
	return sealed, err
}

// actSealing is act for a change that puts a credential which was sealed before;
// nil: it puts none.
func (m *Manager) actSealing(ctx context.Context, a Actor, op Operation, n needs, c *storage.Credential, secret *vault.Secret, decide func(u *unit) error) error {
	if c == nil {
		return m.act(ctx, a, op, n, decide)
	}
	return m.actSealingAnew(ctx, a, op, n, func() (err error) {
		c.Sealed, err = m.seal(ctx, *c, secret)
		return err
	}, decide)
}

// actSealingAnew is act for a change that puts what was sealed before. Where its
// data key was retired meanwhile it is sealed anew, and decided again.
func (m *Manager) actSealingAnew(ctx context.Context, a Actor, op Operation, n needs, seal func() error, decide func(u *unit) error) error {
	err := m.act(ctx, a, op, n, decide)
	for run := 0; run < maxRuns && errors.Is(err, errRetired); run++ {
		m.keys.forget(a.Organization)
		if err = seal(); err == nil {
			err = m.act(ctx, a, op, n, decide)
		}
	}
	return err
}

// newCredential makes the record of a new credential with its value sealed. It
// belongs to the tool or, for tools whose credentials are per agent, to a grant.
func (m *Manager) newCredential(ctx context.Context, organization, tool, grant, authType string, expires int64, secret *vault.Secret) (storage.Credential, error) {
	now := micros(m.config.Clock())
	c := storage.Credential{
		Organization: organization, ID: newID(), Tool: tool, Grant: grant, AuthType: authType,
		Status: storage.CredentialActive, ExpiresAt: expires, RotatedAt: now, CreatedAt: now, Revision: 1, SealedRevision: 1,
	}
	var err error
	c.Sealed, err = m.seal(ctx, c, secret)
	return c, err
}

// replaceCredential puts c in the place of whatever stands there. A replacement
// is a record of its own, so that its seal depends on nothing that may change
// between sealing and the commit.
func (u *unit) replaceCredential(e *entry, c storage.Credential) error {
	if old, ok := u.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}]; ok {
		u.deleteCredential(e, old)
	}
	return u.putCredential(e, c, true)
}

// blank says whether a secret was left out.
func blank(s *vault.Secret) bool {
	for _, b := range s.Bytes() {
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			return false
		}
	}
	return true
}

func (a Actor) decider() grants.Decider {
	return grants.Decider{ID: a.ID, Kind: a.Kind, Label: a.Label}
}

// grantError maps what a transition answers to what the caller is told.
func grantError(err error) error {
	for from, to := range map[error]*Error{
		grants.ErrAlreadyPending:    ErrAlreadyPending,
		grants.ErrAlreadyApproved:   ErrAlreadyApproved,
		grants.ErrNotPending:        ErrNotPending,
		grants.ErrNotApproved:       ErrNotApproved,
		grants.ErrAlreadyDecided:    ErrAlreadyDecided,
		grants.ErrOwnerAlone:        ErrOwnerAlone,
		grants.ErrApprovalsRequired: ErrApprovalsRequired,
		grants.ErrInconsistent:      ErrIntegrity,
	} {
		if errors.Is(err, from) {
			return to
		}
	}
	var terms *grants.TermsError
	if errors.As(err, &terms) {
		message := "is not valid"
		if errors.Is(err, grants.ErrWidened) {
			message = "can only be narrower than what was asked"
		}
		return invalid(terms.Field, message)
	}
	if err != nil {
		return invalid("input", "is not valid")
	}
	return nil
}

// transition writes what a decision made of a grant, with its event.
func (u *unit) transition(e *entry, t grants.Transition, agent storage.Agent, tool storage.Tool) error {
	describe(e, agent, tool, &t.Grant)
	e.Agent, e.Tool = t.Grant.Agent, t.Grant.Tool
	e.Target = audit.Ref{Kind: audit.KindGrant, ID: t.Grant.ID}
	e.To = string(t.Grant.Status)
	if t.From != grants.StatusNone {
		e.From = string(t.From)
	}
	if e.Ticket == "" {
		e.Ticket = t.Grant.Ticket
	}
	if err := u.putGrant(e, t.Grant); err != nil {
		return err
	}
	if t.Approval != nil {
		if err := u.putApproval(e, *t.Approval); err != nil {
			return err
		}
		if t.Approval.OwnerAlone {
			e.Details = map[string]string{"owner_alone": "true"}
		}
	}
	for _, a := range u.approvals[t.Grant.ID] {
		if t.Approval != nil && a.Cycle == t.Grant.Cycle {
			e.Approvals = append(e.Approvals, audit.Approval{Actor: audit.Ref{Kind: a.ActorKind, ID: a.Actor}, Verdict: string(a.Verdict)})
		}
	}
	switch was, is := t.From == grants.StatusPending, t.Grant.Status == grants.StatusPending; {
	case is && !was:
		return u.enlist(e, t.Grant)
	case was && !is:
		u.delist(e, t.Grant)
	}
	return nil
}

// settled is the grant as it is now: if its end has passed, that is written first.
func (u *unit) settled(agent, tool string) (*grants.Grant, error) {
	g := u.grant(agent, tool)
	if g == nil {
		return nil, nil
	}
	t := grants.Settle(*g, u.now)
	if !t.Changed() {
		return g, nil
	}
	if err := u.settle(t.Grant, t.Event, u.agents[agent], u.tools[tool]); err != nil {
		return nil, err
	}
	return u.grant(agent, tool), nil
}
