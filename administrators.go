package agentkey

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// administratorPayload is how an administrator is kept.
type administratorPayload struct {
	Label     string `json:"label"`
	Kind      string `json:"kind"`
	Role      Role   `json:"role"`
	Removed   bool   `json:"removed"`
	CreatedAt int64  `json:"created_at"`
}

// tokenPayload is how a token is kept, under its SHA-256.
type tokenPayload struct {
	ID            string `json:"id"`
	Administrator string `json:"administrator"`
	Name          string `json:"name"`
	ExpiresAt     int64  `json:"expires_at"`
	Revoked       bool   `json:"revoked"`
	CreatedAt     int64  `json:"created_at"`
}

func parseAdministrator(r storage.Record) (p administratorPayload, err error) {
	if err := json.Unmarshal(r.Payload, &p); err != nil {
		return p, &integrityError{kind: r.Kind, id: r.ID}
	}
	return p, nil
}

func parseToken(r storage.Record) (p tokenPayload, err error) {
	if err := json.Unmarshal(r.Payload, &p); err != nil {
		return p, &integrityError{kind: r.Kind, id: r.ID}
	}
	return p, nil
}

func (p administratorPayload) view(r storage.Record) Administrator {
	return Administrator{
		ID: r.ID, Label: p.Label, Kind: p.Kind, Role: p.Role, Removed: p.Removed,
		CreatedAt: p.CreatedAt, UpdatedAt: r.UpdatedAt, Revision: r.Revision,
	}
}

func (p tokenPayload) view(r storage.Record) Token {
	return Token{
		ID: p.ID, Administrator: p.Administrator, Name: p.Name, ExpiresAt: p.ExpiresAt, Revoked: p.Revoked,
		CreatedAt: p.CreatedAt, Revision: r.Revision,
	}
}

func (u *unit) putAdministrator(e *entry, id string, revision int64, p administratorPayload) (Administrator, error) {
	payload, err := json.Marshal(p)
	if err != nil {
		return Administrator{}, err
	}
	r := storage.Record{Kind: kindAdministrator, ID: id, Payload: payload, Revision: revision}
	if err := u.putRecord(e, r); err != nil {
		return Administrator{}, err
	}
	return p.view(u.records[recordRef{kindAdministrator, id}]), nil
}

func (u *unit) putToken(e *entry, digest string, revision int64, p tokenPayload) (Token, error) {
	payload, err := json.Marshal(p)
	if err != nil {
		return Token{}, err
	}
	r := storage.Record{
		Kind: kindToken, ID: digest, Payload: payload, Revision: revision,
		Index: []storage.IndexEntry{{Name: tokenByID, Value: p.ID}, {Name: tokenByAdministrator, Value: p.Administrator}},
	}
	if err := u.putRecord(e, r); err != nil {
		return Token{}, err
	}
	return p.view(u.records[recordRef{kindToken, digest}]), nil
}

// Authenticate finds the administrator whose token was presented. What it found
// is checked again under the head by every change that the Actor makes; what it
// reads is as of the authentication, so use an Actor for one request only.
func (m *Manager) Authenticate(ctx context.Context, token *Secret, rc RequestContext) (Actor, error) {
	if err := m.enter(); err != nil {
		return Actor{}, err
	}
	defer m.leave()
	now := micros(m.config.Clock())
	if token.Len() == 0 {
		m.failures.add(rc.Address, "missing_token", now)
		return Actor{}, ErrUnknownToken
	}
	digest := digestOf(token)
	id := hex.EncodeToString(digest)
	finding, cancel := reading(ctx)
	defer cancel()
	organizations, err := m.store.FindRecord(finding, kindToken, id)
	if err != nil {
		return Actor{}, storageError(err)
	}
	if len(organizations) != 1 {
		m.failures.add(rc.Address, ErrUnknownToken.Code, now)
		return Actor{}, ErrUnknownToken
	}
	actor, err := m.tokenActor(ctx, organizations[0], id, digest)
	if err != nil {
		if errors.Is(err, ErrUnauthenticated) {
			m.failures.add(rc.Address, "dead_token", now)
		}
		return Actor{}, err
	}
	actor.Context = rc
	return actor, nil
}

func (m *Manager) tokenActor(ctx context.Context, organization, id string, digest []byte) (a Actor, err error) {
	err = m.read(ctx, organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		if err := u.load(ctx, tx, &needs{records: []recordRef{{kindToken, id}}, ended: true}); err != nil {
			return err
		}
		r, ok := u.records[recordRef{kindToken, id}]
		stored, decodeErr := hex.DecodeString(r.ID)
		if !ok || decodeErr != nil || !equalDigest(stored, digest) {
			return ErrUnknownToken
		}
		p, err := parseToken(r)
		if err != nil {
			return err
		}
		a = Actor{Organization: organization, ID: p.Administrator, Auth: "token", Credential: p.ID, token: id}
		if err := u.load(ctx, tx, &needs{records: []recordRef{{kindToken, id}, {kindAdministrator, p.Administrator}}, ended: true}); err != nil {
			return err
		}
		if err := checkToken(u, a); err != nil {
			return err
		}
		admin, err := parseAdministrator(u.records[recordRef{kindAdministrator, p.Administrator}])
		a.Kind, a.Label, a.Role = admin.Kind, admin.Label, admin.Role
		return err
	})
	return a, err
}

// checkToken says whether the actor's token and administrator still stand as they
// did when the actor was authenticated.
func checkToken(u *unit, a Actor) error {
	r, ok := u.records[recordRef{kindToken, a.token}]
	admin, known := u.records[recordRef{kindAdministrator, a.ID}]
	if !ok || !known {
		return ErrUnknownToken
	}
	t, err := parseToken(r)
	if err != nil {
		return err
	}
	p, err := parseAdministrator(admin)
	if err != nil {
		return err
	}
	switch {
	case t.Revoked, t.Administrator != a.ID, p.Removed:
		return ErrUnknownToken
	case t.ExpiresAt != 0 && u.now >= t.ExpiresAt:
		return ErrTokenExpired
	case a.Role != "" && p.Role != a.Role:
		return ErrRole
	}
	return nil
}

// AddAdministrator makes an administrator whom the Manager keeps. It has no
// token yet.
func (m *Manager) AddAdministrator(ctx context.Context, a Actor, in AddAdministratorInput) (Administrator, error) {
	if err := m.authorize(ctx, a, OpManageAdministrators); err != nil {
		return Administrator{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Administrator{}, err
	}
	id := newID()
	var out Administrator
	err := m.act(ctx, a, OpManageAdministrators, needs{}, func(u *unit) (err error) {
		e := u.event(a.who(), audit.ActionAdministratorCreated)
		e.Target, e.To = audit.Ref{Kind: audit.KindAdministrator, ID: id}, string(in.Role)
		e.personal.Extra = map[string]string{"label": in.Label}
		out, err = u.putAdministrator(e, id, 1, administratorPayload{Label: in.Label, Kind: or(in.Kind, audit.ActorHuman), Role: in.Role, CreatedAt: u.now})
		return err
	})
	return out, err
}

// changeAdministrator changes an administrator, and sees to it that an owner is left.
func (m *Manager) changeAdministrator(ctx context.Context, a Actor, op Operation, id string, action audit.Action, change func(p *administratorPayload)) (out Administrator, err error) {
	err = m.act(ctx, a, op, needs{recordKinds: []string{kindAdministrator}}, func(u *unit) error {
		r, ok := u.records[recordRef{kindAdministrator, id}]
		if !ok {
			return ErrNoAdministrator
		}
		p, err := parseAdministrator(r)
		if err != nil {
			return err
		}
		if p.Removed {
			return ErrNoAdministrator
		}
		e := u.event(a.who(), action)
		e.Target = audit.Ref{Kind: audit.KindAdministrator, ID: id}
		e.From = string(p.Role)
		owner := p.Role == RoleOwner
		change(&p)
		if e.To = string(p.Role); p.Removed {
			e.To = "removed"
		}
		e.personal.Extra = map[string]string{"label": p.Label}
		if owner && (p.Removed || p.Role != RoleOwner) && u.owners() < 2 {
			return ErrLastOwner
		}
		out, err = u.putAdministrator(e, id, r.Revision+1, p)
		return err
	})
	return out, err
}

func (u *unit) owners() (n int) {
	for ref, r := range u.records {
		if ref.kind != kindAdministrator {
			continue
		}
		if p, err := parseAdministrator(r); err == nil && !p.Removed && p.Role == RoleOwner {
			n++
		}
	}
	return n
}

// UpdateAdministrator changes an administrator's label or role. The last owner
// stays one.
func (m *Manager) UpdateAdministrator(ctx context.Context, a Actor, id string, in UpdateAdministratorInput) (Administrator, error) {
	if err := m.authorize(ctx, a, OpManageAdministrators); err != nil {
		return Administrator{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return Administrator{}, err
	}
	return m.changeAdministrator(ctx, a, OpManageAdministrators, id, audit.ActionAdministratorUpdated, func(p *administratorPayload) {
		set(&p.Label, in.Label)
		set(&p.Role, in.Role)
	})
}

// RemoveAdministrator ends an administrator and with it all of their tokens: when
// it returns, no change of theirs that begins afterwards succeeds.
func (m *Manager) RemoveAdministrator(ctx context.Context, a Actor, id string) error {
	if err := m.authorize(ctx, a, OpRemoveAdministrator); err != nil {
		return err
	}
	_, err := m.changeAdministrator(ctx, a, OpRemoveAdministrator, id, audit.ActionAdministratorRemoved, func(p *administratorPayload) { p.Removed = true })
	return err
}

// Administrators lists the administrators that the Manager keeps, newest first. Of
// the input Name is a label.
func (m *Manager) Administrators(ctx context.Context, a Actor, in ListInput) ([]Administrator, error) {
	if err := m.authorize(ctx, a, OpReadAdministrators); err != nil {
		return nil, err
	}
	if err := checkTexts(in.After); err != nil {
		return nil, err
	}
	s := storage.Scan{Kind: kindAdministrator, Descending: true, AfterID: in.After}
	return scanned(ctx, m, a, in.Limit, s, func(r storage.Record) (Administrator, bool, error) {
		p, err := parseAdministrator(r)
		return p.view(r), !p.Removed && (in.Name == "" || p.Label == in.Name), err
	})
}

// scanChunk is how many records one read of a scan takes beyond a page.
const scanChunk = 100

// scanned lists what a scan finds and take makes of it, at most a page of it. Of
// what take leaves out nothing is kept.
func scanned[T any](ctx context.Context, m *Manager, a Actor, limit int, s storage.Scan, take func(r storage.Record) (T, bool, error)) ([]T, error) {
	limit, err := pageLimit(limit)
	if err != nil {
		return nil, err
	}
	var out []T
	first := s
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out, s = []T{}, first
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		return u.walk(ctx, tx, s, func(r storage.Record) (bool, error) {
			item, ok, err := take(r)
			if ok && err == nil {
				out = append(out, item)
			}
			return len(out) < limit, err
		})
	})
	return out, err
}

// walk gives each the records that s finds, until it says that it has enough. It
// keeps none of them.
func (u *unit) walk(ctx context.Context, tx storage.ReadTx, s storage.Scan, each func(r storage.Record) (more bool, err error)) error {
	for s.Limit = scanChunk; ; {
		found, err := tx.ScanRecords(ctx, s)
		if err != nil {
			return err
		}
		for _, r := range found {
			r.Organization = u.organization
			if err := u.verify(r.Row(u.installation), r.Seal); err != nil {
				return err
			}
			if more, err := each(r); err != nil || !more {
				return err
			}
			s.AfterValue, s.AfterID = indexed(r, s.Index), r.ID
		}
		if len(found) < s.Limit {
			return nil
		}
	}
}

// CreateToken makes a token, shown this once: an actor's own or, for owners,
// another administrator's.
func (m *Manager) CreateToken(ctx context.Context, a Actor, in CreateTokenInput) (IssuedToken, error) {
	op := OpManageOwnTokens
	if in.Administrator != "" && in.Administrator != a.ID {
		op = OpManageTokens
	}
	if err := m.authorize(ctx, a, op); err != nil {
		return IssuedToken{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return IssuedToken{}, err
	}
	if in.Administrator == "" {
		in.Administrator = a.ID
	}
	out := IssuedToken{Secret: newKey(tokenPrefix)}
	err := m.act(ctx, a, op, needs{records: []recordRef{{kindAdministrator, in.Administrator}}}, func(u *unit) error {
		r, ok := u.records[recordRef{kindAdministrator, in.Administrator}]
		if !ok {
			return ErrNoAdministrator
		}
		p, err := parseAdministrator(r)
		if err != nil {
			return err
		}
		if p.Removed {
			return ErrNoAdministrator
		}
		out.Token, err = u.issueToken(a.who(), in, out.Secret)
		return err
	})
	if err != nil {
		out.Secret.Destroy()
		return IssuedToken{}, err
	}
	return out, nil
}

func (u *unit) issueToken(w who, in CreateTokenInput, secret *Secret) (Token, error) {
	p := tokenPayload{ID: newID(), Administrator: in.Administrator, Name: in.Name, ExpiresAt: after(u.now, in.ExpiresIn), CreatedAt: u.now}
	e := u.event(w, audit.ActionTokenCreated)
	e.Target = audit.Ref{Kind: audit.KindToken, ID: p.ID}
	e.Details = map[string]string{"administrator": in.Administrator}
	return u.putToken(e, hex.EncodeToString(digestOf(secret)), 1, p)
}

// RevokeToken ends a token: an actor's own or, for owners, anybody's. Revoking a
// revoked token changes nothing.
func (m *Manager) RevokeToken(ctx context.Context, a Actor, id string) error {
	if err := m.authorize(ctx, a, OpRevokeOwnToken); err != nil {
		return err
	}
	found, p, err := m.findToken(ctx, a, id)
	if found == nil || p.Administrator != a.ID {
		if denied := m.authorize(ctx, a, OpRevokeToken); denied != nil {
			return denied
		}
	}
	if err != nil {
		return err
	}
	if found == nil {
		return ErrNoToken
	}
	return m.act(ctx, a, OpRevokeToken, needs{records: []recordRef{{kindToken, found.ID}}}, func(u *unit) error {
		r, ok := u.records[recordRef{kindToken, found.ID}]
		if !ok {
			return ErrNoToken
		}
		p, err := parseToken(r)
		if err != nil || p.Revoked {
			return err
		}
		return u.revokeToken(a.who(), r, p)
	})
}

// revokeToken ends a token that is not revoked.
func (u *unit) revokeToken(w who, r storage.Record, p tokenPayload) error {
	p.Revoked = true
	e := u.event(w, audit.ActionTokenRevoked)
	e.Target = audit.Ref{Kind: audit.KindToken, ID: p.ID}
	e.Details = map[string]string{"administrator": p.Administrator}
	_, err := u.putToken(e, r.ID, r.Revision+1, p)
	return err
}

// The indexes of tokens.
const (
	tokenByID            = "id"
	tokenByAdministrator = "administrator"
)

// findToken finds a token by its id; nil when there is none.
func (m *Manager) findToken(ctx context.Context, a Actor, id string) (found *storage.Record, p tokenPayload, err error) {
	if err := checkTexts(id); err != nil {
		return nil, p, err
	}
	s := storage.Scan{Kind: kindToken, Index: tokenByID, From: id, To: id + "\x01"}
	_, err = scanned(ctx, m, a, 1, s, func(r storage.Record) (Token, bool, error) {
		t, err := parseToken(r)
		if err != nil || t.ID != id {
			return Token{}, false, err
		}
		found, p = &r, t
		return Token{}, true, nil
	})
	return found, p, err
}

// Tokens lists tokens, newest first: for owners all of them, for others their own.
// Of the input Name is a token's.
func (m *Manager) Tokens(ctx context.Context, a Actor, in ListInput) ([]Token, error) {
	if err := m.authorize(ctx, a, OpReadAdministrators); err != nil {
		return nil, err
	}
	if err := checkTexts(in.After); err != nil {
		return nil, err
	}
	if a.Role != RoleOwner {
		return m.ownTokens(ctx, a, in)
	}
	s := storage.Scan{Kind: kindToken, Index: tokenByID, Descending: true, To: in.After}
	return scanned(ctx, m, a, in.Limit, s, func(r storage.Record) (Token, bool, error) {
		p, err := parseToken(r)
		return p.view(r), in.Name == "" || p.Name == in.Name, err
	})
}

// ownTokens reads all tokens of one administrator, which stand in no order, and
// keeps those of the page.
func (m *Manager) ownTokens(ctx context.Context, a Actor, in ListInput) ([]Token, error) {
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return nil, err
	}
	var out []Token
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = []Token{}
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		s := storage.Scan{Kind: kindToken, Index: tokenByAdministrator, From: a.ID, To: a.ID + "\x01"}
		return u.walk(ctx, tx, s, func(r storage.Record) (bool, error) {
			p, err := parseToken(r)
			if err != nil || p.Administrator != a.ID || (in.Name != "" && p.Name != in.Name) || (in.After != "" && p.ID >= in.After) {
				return true, err
			}
			at, _ := slices.BinarySearchFunc(out, p.ID, func(t Token, id string) int { return strings.Compare(id, t.ID) })
			if out = slices.Insert(out, at, p.view(r)); len(out) > limit {
				out = out[:limit]
			}
			return true, nil
		})
	})
	return out, err
}

// checkPreset refuses a token that was chosen by somebody and is too short.
func checkPreset(token *Secret) error {
	if token == nil {
		return nil
	}
	if token.Len() < 32 || token.Len() > 512 {
		return fmt.Errorf("%w", invalid("token", "must have 32 to 512 characters"))
	}
	return nil
}
