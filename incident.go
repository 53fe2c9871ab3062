package agentkey

import (
	"context"
	"encoding/hex"
	"iter"
	"net/netip"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// IncidentInput says what a report is about: exactly one of Agent, Tool, Key,
// Digest and Address, and a span of time.
type IncidentInput struct {
	Agent   string    `validate:"max=128,id" json:"agent"`
	Tool    string    `validate:"max=128,id" json:"tool"`
	Key     string    `validate:"max=128,id" json:"key"`       // the id of an agent's key
	Digest  string    `validate:"max=64" json:"digest"`        // instead of Key: the key's SHA-256, in lower-case hexadecimal
	Address string    `validate:"utf16max=64,plain" json:"ip"` // an address, or a range such as 192.0.2.0/24
	Since   time.Time `validate:"-" json:"since"`              // inclusive; required
	Until   time.Time `validate:"-" json:"until"`              // inclusive; zero: now
}

func (in *IncidentInput) problems() (bad []FieldError) {
	given := 0
	for _, s := range []string{in.Agent, in.Tool, in.Key, in.Digest, in.Address} {
		if s != "" {
			given++
		}
	}
	if given != 1 {
		bad = append(bad, FieldError{Field: "input", Message: "must name one of agent, tool, key, digest and ip"})
	}
	if d, err := hex.DecodeString(in.Digest); in.Digest != "" && (err != nil || len(d) != 32) {
		bad = append(bad, FieldError{Field: "digest", Message: "must be a SHA-256 in hexadecimal"})
	}
	if _, ok := in.prefix(); in.Address != "" && !ok {
		bad = append(bad, FieldError{Field: "ip", Message: "must be an address, or a range such as 192.0.2.0/24"})
	}
	if in.Since.IsZero() || in.Since.UnixMicro() < 0 {
		bad = append(bad, FieldError{Field: "since", Message: "must be a time"})
	}
	if !in.Until.IsZero() && in.Until.Before(in.Since) {
		bad = append(bad, FieldError{Field: "until", Message: "must not be before since"})
	}
	return bad
}

// prefix is the range of addresses.
func (in *IncidentInput) prefix() (netip.Prefix, bool) { return parseRange(in.Address) }

// parseRange reads an address, which is a range of one, or a range.
func parseRange(text string) (netip.Prefix, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Masked(), !p.Addr().Is4In6()
	}
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen()), true
}

// IncidentReport says what happened to an agent, a tool, a key or an address in a
// span of time. All of it is drawn from the events below Checkpoint.Size, whose numbers
// Events gives: an auditor checks each by an InclusionProof for that checkpoint. That
// none was left out is what Verify shows together with a search of an export; the index
// that finds the events is not signed.
type IncidentReport struct {
	Subject    audit.Ref // agent, tool or key; of the kind "address" for an address
	Name       string    // of the agent, or the tool
	Agent      string    // of a key: whose
	Since      int64     // microseconds, inclusive
	Until      int64
	At         int64 // when the report was made
	Checkpoint SignedCheckpoint

	Total     int64 // events that concern the subject
	Vends     int64
	Refusals  int64 // of requests and vends, repeats included
	Failures  int64 // of authentication with keys that are known, repeats included
	Acts      int64 // of administrators
	Agents    int64 // that were vended something
	Strangers int64 // failed attempts of nobody known from the address; -1: counted for all organizations together

	// Credentials are what was vended, each revision by itself, the latest first.
	Credentials []VendedCredential

	RemovedBelow int64 // retention has removed content of events below this number; 0: none
	Incomplete   bool  // some of those may lie in the span: they could not be searched
	Erased       int64 // of an address: events of the span whose personal part was erased, so that nobody can tell

	incident *incident
}

// VendedCredential is a credential that left, and what became of it here.
type VendedCredential struct {
	Credential string
	Revision   int64
	Tool       string
	ToolName   string
	Vends      int64
	Agents     int64 // that it was vended to
	First      int64 // when it was first vended in the span, and the event's number
	FirstSeq   int64
	Last       int64
	LastSeq    int64
	State      VendedState
	ReplacedAt int64 // when what stands in its place was made; 0: nothing does, or it stands
}

// RotateUpstream says whether the service itself must get a new credential: what
// was vended still is what is vended, or nothing took its place.
func (c VendedCredential) RotateUpstream() bool { return c.State != VendedReplaced }

// VendedState is what became of a credential that was vended.
type VendedState string

// The states. Replaced says that another stands in its place here; whether the
// service still takes the old one only the service knows.
const (
	VendedCurrent  VendedState = "current"
	VendedReplaced VendedState = "replaced"
	VendedRemoved  VendedState = "removed"
)

// IncidentEvent is an event of a report.
type IncidentEvent struct {
	LoggedEvent
	Kind IncidentKind
}

// IncidentKind sorts the events of a report.
type IncidentKind string

// The kinds.
const (
	IncidentVend           IncidentKind = "vend"
	IncidentRefusal        IncidentKind = "refusal"
	IncidentAuthentication IncidentKind = "authentication" // that failed
	IncidentAdministration IncidentKind = "administration"
	IncidentOther          IncidentKind = "other" // requests, ends, and what the system did
)

func incidentKind(e *audit.Event) IncidentKind {
	switch {
	case e.Action == audit.ActionCredentialVended:
		return IncidentVend
	case e.Action == audit.ActionAuthRejected, e.Action == audit.ActionAuthRejectedSuspended, e.Action == audit.ActionAuthFailed:
		return IncidentAuthentication
	case e.Outcome != audit.OutcomeOK:
		return IncidentRefusal
	case e.Actor.Kind != audit.ActorAgent && e.Actor.Kind != audit.ActorSystem && e.Actor.Kind != audit.ActorUnknown:
		return IncidentAdministration
	}
	return IncidentOther
}

// maxIncidentEntries bounds what a report holds in memory: pairs of a vended
// credential and an agent.
const maxIncidentEntries = 100_000

// IncidentReport reports on an agent, a tool, a key or an address. It reads every
// event of the span that concerns the subject once, through the index of the log,
// and holds one page of them; of an address every event of the span, whoever's it is,
// since addresses are in the personal parts, which no index may name. That costs as much as
// reading the log from there on.
//
// Events and OpenGrants of the report read again, at the same size of the log. Use
// them with the context and the actor's rights at hand: they are not charged again.
//
// The errors: ErrForbidden, ErrInvalid, also when the span holds more different
// credentials and agents than can be told (100 000 pairs), ErrNotFound for an agent, tool or
// key that never was, ErrLimited, ErrUnavailable.
func (m *Manager) IncidentReport(ctx context.Context, a Actor, in IncidentInput) (IncidentReport, error) {
	if err := m.authorize(ctx, a, OpReportIncident); err != nil {
		return IncidentReport{}, err
	}
	if err := m.validation.input(&in); err != nil {
		return IncidentReport{}, err
	}
	if err := m.enter(); err != nil {
		return IncidentReport{}, err
	}
	defer m.leave()
	i := &incident{m: m, organization: a.Organization, vended: make(map[audit.CredentialRef]*vended), agents: make(map[string]string)}
	if err := i.begin(ctx, in); err != nil {
		return IncidentReport{}, err
	}
	if err := i.each(ctx, i.count); err != nil {
		return IncidentReport{}, err
	}
	if err := i.conclude(ctx); err != nil {
		return IncidentReport{}, err
	}
	return i.out, nil
}

// Events gives the events of the report, newest first. It stops at the first
// error.
func (r IncidentReport) Events(ctx context.Context) iter.Seq2[IncidentEvent, error] {
	return func(yield func(IncidentEvent, error) bool) {
		done := false
		err := r.incident.each(ctx, func(e LoggedEvent) error {
			if done = !yield(IncidentEvent{e, incidentKind(&e.Event)}, nil); done {
				return errEnough
			}
			return nil
		})
		if err != nil && !done {
			yield(IncidentEvent{}, err)
		}
	}
}

// OpenGrants gives the grants that are approved or pending now: of the agent, of the
// tool, of the agent whose key it is, or of the agents that called from the
// address. It stops at the first error.
func (r IncidentReport) OpenGrants(ctx context.Context) iter.Seq2[Request, error] {
	return func(yield func(Request, error) bool) {
		for q := range r.incident.queries() {
			if !r.incident.grants(ctx, q, yield) {
				return
			}
		}
	}
}

// queries are those whose grants concern the report.
func (i *incident) queries() iter.Seq[storage.GrantQuery] {
	return func(yield func(storage.GrantQuery) bool) {
		for _, status := range []grants.Status{grants.StatusApproved, grants.StatusPending} {
			q := storage.GrantQuery{Statuses: []grants.Status{status}, Limit: incidentPage}
			if i.out.Subject.Kind == audit.KindTool {
				q.Tool = i.out.Subject.ID
				if !yield(q) {
					return
				}
				continue
			}
			for _, id := range i.callers() {
				if q.Agent = id; !yield(q) {
					return
				}
			}
		}
	}
}

func (i *incident) grants(ctx context.Context, q storage.GrantQuery, yield func(Request, error) bool) bool {
	for {
		var page []Request
		err := i.m.read(ctx, i.organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
			if err := u.load(ctx, tx, &needs{}); err != nil {
				return err
			}
			found, err := tx.Grants(ctx, q)
			if err != nil {
				return err
			}
			page, err = u.named(ctx, tx, found.Grants)
			return err
		})
		if err != nil {
			yield(Request{}, err)
			return false
		}
		for _, r := range page {
			if !yield(r, nil) {
				return false
			}
		}
		if len(page) < q.Limit {
			return true
		}
		q.After = page[len(page)-1].ID
	}
}
