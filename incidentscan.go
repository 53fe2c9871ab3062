package agentkey

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// incidentPage is how many events or grants one read of a report takes.
const incidentPage = 500

// errEnough ends a walk whose caller has enough.
var errEnough = errors.New("agentkey: enough")

// incident is a report that is being made.
type incident struct {
	m            *Manager
	organization string
	filter       audit.Filter
	match        func(e *LoggedEvent) bool
	erased       func(e *LoggedEvent) bool
	byAddress    netip.Prefix // valid for an address only

	out     IncidentReport
	vended  map[audit.CredentialRef]*vended
	agents  map[string]string // who was vended something, or called from the address, each by its id
	entries int
}

// vended is a credential as the events tell of it.
type vended struct {
	VendedCredential
	grant  string
	agents map[string]bool
}

// begin finds the subject, and fixes the size of the log.
func (i *incident) begin(ctx context.Context, in IncidentInput) (err error) {
	now := micros(i.m.config.Clock())
	i.out.incident, i.out.At, i.out.Since, i.out.Until = i, now, micros(in.Since), now
	if !in.Until.IsZero() {
		i.out.Until = audit.EndOfMillisecond(in.Until)
	}
	i.filter = audit.Filter{From: i.out.Since, To: i.out.Until}
	if i.filter.Validate() != nil {
		return invalid("since", "must be in the past")
	}
	if in.Digest != "" {
		if in.Key, err = i.keyOf(ctx, in.Digest); err != nil {
			return err
		}
	}
	switch {
	case in.Address != "":
		i.byAddress, _ = in.prefix()
		i.out.Subject = audit.Ref{Kind: "address", ID: i.byAddress.String()}
		i.match = func(e *LoggedEvent) bool { return i.within(e.Personal.Address) }
		i.erased = func(e *LoggedEvent) bool { return len(e.Event.Personal) > 0 && e.Personal.IsZero() }
	case in.Agent != "":
		i.out.Subject, i.filter.Agent = audit.Ref{Kind: audit.KindAgent, ID: in.Agent}, in.Agent
	case in.Tool != "":
		i.out.Subject, i.filter.Tool = audit.Ref{Kind: audit.KindTool, ID: in.Tool}, in.Tool
	default:
		i.out.Subject = audit.Ref{Kind: audit.KindKey, ID: in.Key}
		i.match = i.ofKey
	}
	if err := i.name(ctx); err != nil {
		return err
	}
	i.out.Checkpoint, err = i.m.provenHead(ctx, i.organization)
	return err
}

// keyOf finds a key by its digest; one of another organization is none.
func (i *incident) keyOf(ctx context.Context, digest string) (string, error) {
	d, err := hex.DecodeString(digest)
	if err != nil {
		return "", ErrNoKeyRecord
	}
	k, ok, err := i.m.findKey(ctx, d)
	if err != nil {
		return "", err
	}
	if !ok || k.Organization != i.organization {
		return "", ErrNoKeyRecord
	}
	return k.ID, nil
}

// name looks the subject up. A tool may have been deleted: the log still knows it.
func (i *incident) name(ctx context.Context) error {
	s := i.out.Subject
	n := needs{}
	switch s.Kind {
	case audit.KindAgent:
		n.agents = []string{s.ID}
	case audit.KindTool:
		n.tools = []string{s.ID}
	case audit.KindKey:
		n.keys = []string{s.ID}
	}
	var missing error
	err := i.m.view(ctx, i.organization, n, func(u *unit) {
		missing = nil
		switch s.Kind {
		case audit.KindAgent:
			a, ok := u.agents[s.ID]
			if i.out.Name = a.Name; !ok {
				missing = ErrNoAgent
			}
		case audit.KindTool:
			i.out.Name = u.tools[s.ID].Name
		case audit.KindKey:
			k, ok := u.keys[s.ID]
			if i.out.Agent, i.filter.Agent = k.Agent, k.Agent; !ok {
				missing = ErrNoKeyRecord
			}
		}
	})
	return errors.Join(err, missing)
}

// ofKey says whether an event of the key's agent concerns the key: what it did, what
// was done to it, and what administrators did to the agent.
func (i *incident) ofKey(e *LoggedEvent) bool {
	key := i.out.Subject
	return e.Actor.Credential == key.ID || e.Target == key || incidentKind(&e.Event) == IncidentAdministration ||
		slices.ContainsFunc(e.Changes, func(c audit.Change) bool { return c.Kind == key.Kind && c.ID == key.ID })
}

// within says whether the address of a personal part lies in the range. Failed
// authentication is counted by the /64 of an IPv6 address.
func (i *incident) within(text string) bool {
	p, ok := parseRange(text)
	return ok && p.Overlaps(i.byAddress)
}

// each gives fn the events of the report, newest first.
func (i *incident) each(ctx context.Context, fn func(e LoggedEvent) error) error {
	return i.walk(ctx, i.organization, storage.EventQuery{Filter: i.filter, Before: i.out.Checkpoint.Size, Limit: incidentPage}, func(e LoggedEvent) error {
		if i.erased != nil && i.erased(&e) {
			i.out.Erased++
		}
		if i.match != nil && !i.match(&e) {
			return nil
		}
		return fn(e)
	})
}

func (i *incident) walk(ctx context.Context, organization string, q storage.EventQuery, fn func(e LoggedEvent) error) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		page, err := i.m.store.Events(ctx, organization, q)
		if err != nil {
			return storageError(err)
		}
		for _, l := range page.Lines {
			e, err := loggedEvent(l)
			if err == nil && audit.LeafHash(l.Content) != l.Leaf {
				err = &headError{organization: organization}
			}
			if err != nil {
				i.m.reportIntegrity(ctx, organization, &headError{organization: organization})
				return err
			}
			if err := fn(e); err != nil {
				return err
			}
		}
		if page.Next == 0 {
			return nil
		}
		q.Before = page.Next
	}
}

// count counts an event of the report.
func (i *incident) count(e LoggedEvent) error {
	times := max(e.Count, 1)
	i.out.Total++
	switch incidentKind(&e.Event) {
	case IncidentVend:
		i.out.Vends++
		i.vend(e)
	case IncidentRefusal:
		i.out.Refusals += times
	case IncidentAuthentication:
		i.out.Failures += times
	case IncidentAdministration:
		i.out.Acts++
	}
	if i.byAddress.IsValid() && e.Actor.Kind == audit.ActorAgent {
		i.caller(e.Actor.ID)
	}
	if i.entries > maxIncidentEntries {
		return invalid("since", "is too early: there is more than a report can tell of; ask for a shorter span")
	}
	return nil
}

func (i *incident) vend(e LoggedEvent) {
	v := i.vended[e.Credential]
	if v == nil {
		v = &vended{agents: make(map[string]bool), grant: strings.Clone(e.Grant.ID)}
		v.Credential, v.Revision, v.Tool, v.ToolName = strings.Clone(e.Credential.ID), e.Credential.Revision, strings.Clone(e.Tool), strings.Clone(e.Personal.ToolLabel)
		v.Last, v.LastSeq = e.Time, e.Seq
		i.vended[audit.CredentialRef{ID: v.Credential, Revision: v.Revision}] = v
		i.entries++
	}
	v.Vends++
	v.First, v.FirstSeq = e.Time, e.Seq // newest first: the last one seen is the earliest
	agent := i.caller(e.Agent)
	if !v.agents[agent] {
		v.agents[agent] = true
		i.entries++
	}
}

// caller notes an agent, and answers its id. That of an event is a part of the
// event's whole content, which is not to be held for it.
func (i *incident) caller(id string) string {
	held, known := i.agents[id]
	if !known {
		held = strings.Clone(id)
		i.agents[held] = held
		i.entries++
	}
	return held
}

// callers are the agents whose open grants the report names.
func (i *incident) callers() []string {
	switch i.out.Subject.Kind {
	case audit.KindAgent:
		return []string{i.out.Subject.ID}
	case audit.KindKey:
		return []string{i.out.Agent}
	}
	return slices.Sorted(maps.Keys(i.agents))
}

// conclude adds what became of the credentials, and what could not be told.
func (i *incident) conclude(ctx context.Context) error {
	i.erased = nil // counted: the events may be walked again
	all := slices.SortedFunc(maps.Values(i.vended), func(a, b *vended) int { return cmp.Compare(b.LastSeq, a.LastSeq) })
	to := make(map[string]bool)
	for _, v := range all {
		v.Agents = int64(len(v.agents))
		maps.Copy(to, v.agents)
	}
	i.out.Agents = int64(len(to))
	for part := range slices.Chunk(all, incidentPage) {
		if err := i.states(ctx, part); err != nil {
			return err
		}
	}
	i.out.Credentials = make([]VendedCredential, len(all))
	for n, v := range all {
		i.out.Credentials[n] = v.VendedCredential
	}
	if err := i.strangers(ctx); err != nil {
		return err
	}
	return i.gaps(ctx)
}

// states says what stands in the place of each credential now.
func (i *incident) states(ctx context.Context, part []*vended) error {
	n := needs{credentials: true}
	for _, v := range part {
		n.tools = append(n.tools, v.Tool)
		if v.grant != "" {
			n.grants = append(n.grants, v.grant)
		}
	}
	n.tools, n.grants = unique(n.tools), unique(n.grants)
	return i.m.view(ctx, i.organization, n, func(u *unit) {
		for _, v := range part {
			v.State, v.ReplacedAt = VendedRemoved, 0
			t := u.tools[v.Tool]
			if t.Name != "" {
				v.ToolName = t.Name
			}
			ref := storage.CredentialRef{Tool: v.Tool}
			if t.Mode == storage.PerAgent {
				ref.Grant = v.grant
			}
			switch c, ok := u.credentials[ref]; {
			case ok && c.ID == v.Credential:
				v.State = VendedCurrent
			case ok:
				v.State, v.ReplacedAt = VendedReplaced, c.CreatedAt
			}
		}
	})
}

func unique(ids []string) []string { return slices.Compact(slices.Sorted(slices.Values(ids))) }

// strangers counts who failed to authenticate from the address. They are counted in
// the reserved log, for all organizations together: only where there is one are they
// its own.
func (i *incident) strangers(ctx context.Context) error {
	if !i.byAddress.IsValid() {
		return nil
	}
	ids, err := i.m.store.Organizations(ctx, "", 3)
	if err != nil {
		return storageError(err)
	}
	if len(ids) > 2 {
		i.out.Strangers = -1
		return nil
	}
	q := storage.EventQuery{Filter: audit.Filter{Action: audit.ActionAuthFailed, From: i.out.Since, To: i.out.Until}, Limit: incidentPage}
	return i.walk(ctx, storage.System, q, func(e LoggedEvent) error {
		if i.within(e.Personal.Address) {
			i.out.Strangers += max(e.Count, 1)
		}
		return nil
	})
}

// gaps says what retention and erasure keep the report from telling.
func (i *incident) gaps(ctx context.Context) error {
	r, err := i.m.retention(ctx, i.organization)
	if err != nil {
		return err
	}
	i.out.RemovedBelow = r.RemovedBelow
	// What is younger than the shortest period was not removed, whatever the policy was.
	i.out.Incomplete = r.RemovedBelow > 0 && r.RemovedAt-duration(minContentDays*24*time.Hour) >= i.out.Since
	return nil
}
