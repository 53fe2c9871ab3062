package storage

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/agentkey-dev/agentkey-go/grants"
)

// The checks below are the clauses text, tenant, insert and update, written
// once: a backend calls them before it stores a record or runs a query.

func approvalID(grant string, cycle int64, actorKind, actor string) string {
	sum := sha256.Sum256([]byte(actorKind + "\x00" + actor))
	return grant + "." + strconv.FormatInt(cycle, 10) + "." + hex.EncodeToString(sum[:8])
}

// CheckText answers ErrInvalid when a string is not valid UTF-8 or holds NUL.
func CheckText(values ...string) error {
	for _, v := range values {
		if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
			return fmt.Errorf("%w: text is not UTF-8 or holds NUL", ErrInvalid)
		}
	}
	return nil
}

func checkRow(organization, rowOrganization, id string, revision int64) error {
	switch {
	case rowOrganization != organization:
		return fmt.Errorf("%w: row of another organization", ErrInvalid)
	case id == "":
		return fmt.Errorf("%w: row without id", ErrInvalid)
	case revision < 1:
		return fmt.Errorf("%w: revision below 1", ErrInvalid)
	}
	return nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Check answers ErrInvalid when o may not be put in the organization.
func (o Organization) Check(organization string) error {
	return first(checkRow(organization, o.ID, o.ID, o.Revision), CheckText(o.ID, o.Name))
}

// Check answers ErrInvalid when a may not be put in the organization.
func (a Agent) Check(organization string) error {
	return first(checkRow(organization, a.Organization, a.ID, a.Revision),
		CheckText(a.ID, a.Name, a.Description, a.Owner, a.CreatedBy, a.CreatedByLabel, string(a.Status)))
}

// Check answers ErrInvalid when k may not be put in the organization.
func (k Key) Check(organization string) error {
	if len(k.Digest) != sha256.Size {
		return fmt.Errorf("%w: digest is not a SHA-256", ErrInvalid)
	}
	return first(checkRow(organization, k.Organization, k.ID, k.Revision),
		CheckText(k.ID, k.Agent, string(k.Status)), CheckText(k.Addresses...))
}

// Check answers ErrInvalid when t may not be put in the organization.
func (t Tool) Check(organization string) error {
	return first(checkRow(organization, t.Organization, t.ID, t.Revision),
		CheckText(t.ID, t.ConfigKey, t.Name, t.Description, t.URL, t.AuthType, string(t.Mode), t.Instructions))
}

// Check answers ErrInvalid when c may not be put in the organization.
func (c Credential) Check(organization string) error {
	return first(checkRow(organization, c.Organization, c.ID, c.Revision),
		CheckText(c.ID, c.Tool, c.Grant, c.AuthType, string(c.Status)))
}

// Check answers ErrInvalid when k may not be put in the organization.
func (k DataKey) Check(organization string) error {
	return first(checkRow(organization, k.Organization, k.ID, k.Revision),
		CheckText(k.ID, string(k.Purpose), string(k.State), k.Provider))
}

// CheckGrant answers ErrInvalid when g may not be put in the organization.
func CheckGrant(g grants.Grant, organization string) error {
	return first(checkRow(organization, g.Organization, g.ID, g.Revision),
		CheckText(g.ID, g.Agent, g.Tool, string(g.Status), g.Reason, g.DenialReason, g.Ticket,
			g.DecidedBy, g.DecidedByKind, g.DecidedByLabel),
		CheckText(g.Asked.Scopes...), CheckText(g.Granted.Scopes...))
}

// CheckApproval answers ErrInvalid when a may not be put in the organization.
func CheckApproval(a grants.Approval, organization string) error {
	return first(checkRow(organization, a.Organization, a.Grant, a.Revision),
		CheckText(a.Grant, a.Actor, a.ActorKind, a.ActorLabel, string(a.Verdict), a.Reason),
		CheckText(a.Terms.Scopes...))
}

// Check answers ErrInvalid when r may not be put in the organization.
func (r Record) Check(organization string) error {
	if len(r.ID) > 200 || len(r.Payload) > 1<<20 || len(r.Index) > 8 || !validKind(r.Kind) {
		return fmt.Errorf("%w: record over its limits", ErrInvalid)
	}
	seen := make(map[string]bool, len(r.Index))
	for _, e := range r.Index {
		if e.Name == "" || seen[e.Name] || len(e.Value) > 512 {
			return fmt.Errorf("%w: index entry", ErrInvalid)
		}
		seen[e.Name] = true
		if err := CheckText(e.Name, e.Value); err != nil {
			return err
		}
	}
	return first(checkRow(organization, r.Organization, r.ID, r.Revision), CheckText(r.ID))
}

func validKind(kind string) bool {
	if kind == "" || len(kind) > 64 {
		return false
	}
	return strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// Check answers ErrInvalid when d may not be enqueued in the organization.
func (d Delivery) Check(organization string) error {
	return first(checkRow(organization, d.Organization, d.ID, 1),
		CheckText(d.ID, d.Topic, string(d.State), d.LeaseNode, d.LastError))
}

// Check answers ErrInvalid when a does not follow head without a gap.
func (a Append) Check(head Head) error {
	for i, l := range a.Lines {
		if l.Seq != head.Size+int64(i) || l.Content == nil {
			return fmt.Errorf("%w: line does not follow the head", ErrInvalid)
		}
	}
	size := head.Size + int64(len(a.Lines))
	switch {
	case len(a.Lines) == 0 || len(a.Lines) > MaxIDs:
		return fmt.Errorf("%w: number of lines", ErrInvalid)
	case a.Head.Size != size || len(a.Head.Edge) != 32*bits.OnesCount64(uint64(size)):
		return fmt.Errorf("%w: head does not follow the lines", ErrInvalid)
	case a.Head.Time < head.Time || a.Head.Epoch < head.Epoch || len(a.Head.Signed) == 0:
		return fmt.Errorf("%w: head goes back", ErrInvalid)
	}
	return nil
}

func checkPage(ids int, limit int, total bool) error {
	if ids > MaxIDs || limit < 0 || limit > MaxPage || (ids == 0 && limit == 0 && !total) {
		return fmt.Errorf("%w: limit", ErrInvalid)
	}
	return nil
}

// Check answers ErrInvalid for a query over its limits.
func (q AgentQuery) Check() error {
	return first(checkPage(len(q.IDs), q.Limit, q.Total), CheckText(q.IDs...), CheckText(q.Name, q.After, string(q.Status)))
}

// Check answers ErrInvalid for a query over its limits.
func (q KeyQuery) Check() error {
	if len(q.IDs)+len(q.Agents) > MaxIDs {
		return fmt.Errorf("%w: limit", ErrInvalid)
	}
	return first(CheckText(q.IDs...), CheckText(q.Agents...))
}

// Check answers ErrInvalid for a query over its limits.
func (q ToolQuery) Check() error {
	return first(checkPage(len(q.IDs), q.Limit, q.Total), CheckText(q.IDs...), CheckText(q.Name, q.ConfigKey, q.After))
}

// Check answers ErrInvalid for a query over its limits.
func (q GrantQuery) Check() error {
	for _, p := range q.Pairs {
		if err := CheckText(p.Agent, p.Tool); err != nil {
			return err
		}
	}
	return first(checkPage(len(q.IDs)+len(q.Pairs), q.Limit, q.Total),
		CheckText(q.IDs...), CheckText(q.Agent, q.Tool, q.After))
}

// Check answers ErrInvalid for a scan over its limits.
func (s Scan) Check() error {
	if s.Limit < 1 || s.Limit > MaxPage || !validKind(s.Kind) {
		return fmt.Errorf("%w: scan", ErrInvalid)
	}
	return CheckText(s.Index, s.From, s.To, s.AfterValue, s.AfterID)
}

// Check answers ErrInvalid for a query over its limits.
func (q EventQuery) Check() error {
	if q.Before < 0 || (!q.Count && (q.Limit < 1 || q.Limit > MaxPage)) {
		return fmt.Errorf("%w: limit", ErrInvalid)
	}
	if err := q.Filter.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
