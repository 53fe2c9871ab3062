package agentkey

import (
	"context"
	"encoding/json"
	"maps"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Erasure says what an erasure of somebody's personal parts finds, or has done.
type Erasure struct {
	Person string
	Events int64 // whose personal part goes: of what they did, and of what was done to their account
	Held   int64 // events and records that a legal hold keeps

	// Records whose label of the person goes. They keep the id, which says nothing.
	Agents, Grants, Approvals, Records int64

	// Administrator says that the person still is an administrator here. Their label
	// stays, and new events carry it: remove them first.
	Administrator bool
}

// erasing is an erasure under way. With apply unset it only counts.
type erasing struct {
	m     *Manager
	actor Actor
	apply bool
	out   Erasure
	holds holds
	rules map[recordRef]int64
}

// PlanErasure says what ErasePerson would do now, and changes nothing. The person
// is the id of an actor: of an administrator, or of a host's own people.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) PlanErasure(ctx context.Context, a Actor, person string) (Erasure, error) {
	if err := m.authorize(ctx, a, OpPlanErasure); err != nil {
		return Erasure{}, err
	}
	return m.eraseBy(ctx, a, person, false)
}

// ErasePerson erases the personal part of every event that a person did, or that
// was done to their account, and their labels in records that stand, in
// transactions of at most 256 events or records, each of which is an event with
// counts. Leaf hashes, ids and what happened stay. An erasure that was cut off is
// finished by doing it again.
//
// What it does not find: names in free text that others wrote, as reasons,
// descriptions and instructions, and whatever is outside of this database, as
// exports, shipped events and backups.
//
// The errors: ErrForbidden, ErrInvalid, ErrUnderHold when a hold on the person or
// the organization keeps all of it, ErrLimited, ErrUnavailable.
func (m *Manager) ErasePerson(ctx context.Context, a Actor, person string) (Erasure, error) {
	if err := m.authorize(ctx, a, OpErasePerson); err != nil {
		return Erasure{}, err
	}
	return m.eraseBy(ctx, a, person, true)
}

func (m *Manager) eraseBy(ctx context.Context, a Actor, person string, apply bool) (Erasure, error) {
	if err := m.enter(); err != nil {
		return Erasure{}, err
	}
	defer m.leave()
	if person == "" || len(person) > 128 || !isID(person) {
		return Erasure{}, invalid("person", "must be the id of an actor")
	}
	x := &erasing{m: m, actor: a, apply: apply, out: Erasure{Person: person}}
	var damaged error
	err := m.view(ctx, a.Organization, needs{recordKinds: []string{kindHold}, records: []recordRef{{kindAdministrator, person}}, ended: true}, func(u *unit) {
		x.rules = rulesOf(u)
		if x.holds, damaged = holdsOf(u); damaged != nil {
			return
		}
		var p administratorPayload
		p, _, damaged = payloadOf[administratorPayload](u, recordRef{kindAdministrator, person})
		x.out.Administrator = p.Role != "" && !p.Removed
	})
	switch {
	case err != nil:
		return Erasure{}, err
	case damaged != nil:
		return Erasure{}, damaged
	case apply && x.holds.on("", "", person):
		return Erasure{}, ErrUnderHold
	}
	for _, step := range []func(context.Context) error{x.events, x.agents, x.grants, x.records} {
		if err := step(ctx); err != nil {
			return x.out, err
		}
	}
	return x.out, nil
}

// about says whether the personal part of an event is the person's.
func (x *erasing) about(e *audit.Event) bool {
	p := x.out.Person
	return e.Actor.ID == p || e.Actor.Behalf == p || e.Target == audit.Ref{Kind: audit.KindAdministrator, ID: p}
}

// events goes through the whole log.
func (x *erasing) events(ctx context.Context) error {
	var found []storage.Erasure
	for seq := int64(0); ; {
		var lines []audit.Line
		err := x.m.store.View(ctx, x.actor.Organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
			lines, err = tx.Lines(ctx, seq, linesPage)
			return err
		})
		if err != nil {
			return storageError(err)
		}
		for _, l := range lines {
			seq = l.Seq + 1
			if len(l.Personal) == 0 || len(l.Content) == 0 {
				continue
			}
			e, err := audit.Parse(l.Content)
			switch {
			case err != nil:
				return &headError{organization: x.actor.Organization}
			case !x.about(&e):
				continue
			case x.holds.cover(&e):
				x.out.Held++
				continue
			}
			if found = append(found, storage.Erasure{Seq: e.Seq, Personal: true}); len(found) == erasePage {
				if err := x.eraseEvents(ctx, found); err != nil {
					return err
				}
				found = nil
			}
		}
		if len(lines) == 0 {
			return x.eraseEvents(ctx, found)
		}
	}
}

func (x *erasing) eraseEvents(ctx context.Context, found []storage.Erasure) error {
	n := int64(len(found))
	return x.commit(ctx, needs{}, func(_ *unit, _ *entry) (erased, error) { return erased{events: n}, nil }, found)
}

// erased is what one transaction erases.
type erased struct{ events, agents, grants, approvals, records, held int64 }

func (c erased) any() bool { return c.events+c.agents+c.grants+c.approvals+c.records > 0 }

// commit erases a part, and records how much. The holds are those that it was
// found under, or nothing is done.
func (x *erasing) commit(ctx context.Context, n needs, scrub func(u *unit, e *entry) (erased, error), events []storage.Erasure) error {
	var c erased
	if len(events)+len(n.agents)+len(n.grants)+len(n.records) == 0 {
		return nil
	}
	n.ended = true
	if !x.apply {
		n.recordKinds = append(n.recordKinds, kindHold)
		var failed error
		err := x.m.view(ctx, x.actor.Organization, n, func(u *unit) {
			scratch := &unit{state: u.state}
			c, failed = scrub(scratch, scratch.event(x.actor.who(), audit.ActionLogPersonalErased))
		})
		x.count(c)
		if err == nil {
			err = failed
		}
		return err
	}
	n.recordKinds = append(n.recordKinds, kindHold)
	err := x.m.act(ctx, x.actor, OpErasePerson, n, func(u *unit) (err error) {
		if !maps.Equal(rulesOf(u), x.rules) {
			return ErrChanged
		}
		e := u.event(x.actor.who(), audit.ActionLogPersonalErased)
		if c, err = scrub(u, e); err != nil {
			return err
		}
		if !c.any() {
			u.events = nil
			return nil
		}
		e.Target = audit.Ref{Kind: "person", ID: x.out.Person}
		e.Details = c.details()
		if len(events) > 0 {
			u.erase(events)
		}
		return nil
	})
	if err == nil {
		x.count(c)
	}
	return err
}

func (x *erasing) count(c erased) {
	x.out.Events += c.events
	x.out.Agents += c.agents
	x.out.Grants += c.grants
	x.out.Approvals += c.approvals
	x.out.Records += c.records
	x.out.Held += c.held
}

func (c erased) details() map[string]string {
	d := make(map[string]string)
	for name, n := range map[string]int64{
		"events": c.events, "agents": c.agents, "grants": c.grants, "approvals": c.approvals, "records": c.records,
	} {
		if n > 0 {
			d[name] = strconv.FormatInt(n, 10)
		}
	}
	return d
}

// agents takes the person's label from the agents that they registered.
func (x *erasing) agents(ctx context.Context) error {
	for q := (storage.AgentQuery{Limit: erasePage}); ; {
		var found []storage.Agent
		var ids []string
		err := x.m.store.View(ctx, x.actor.Organization, func(ctx context.Context, tx storage.ReadTx) error {
			page, err := tx.Agents(ctx, q)
			found, ids = page.Agents, nil
			for _, a := range found {
				if a.CreatedBy == x.out.Person && a.CreatedByLabel != "" {
					ids = append(ids, a.ID)
				}
			}
			return err
		})
		if err != nil {
			return storageError(err)
		}
		if err := x.commit(ctx, needs{agents: ids}, x.scrubAgents, nil); err != nil || len(found) < q.Limit {
			return err
		}
		q.After = found[len(found)-1].ID
	}
}

func (x *erasing) scrubAgents(u *unit, e *entry) (c erased, err error) {
	for _, a := range u.agents {
		switch {
		case a.CreatedBy != x.out.Person || a.CreatedByLabel == "":
		case x.holds.on(a.ID, "", x.out.Person):
			c.held++
		default:
			a.CreatedByLabel = ""
			a.Revision++
			c.agents++
			err = u.putAgent(e, a)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// grants takes it from the grants and approvals that they decided on.
func (x *erasing) grants(ctx context.Context) error {
	for q := (storage.GrantQuery{Limit: erasePage}); ; {
		var found []grants.Grant
		var ids []string
		err := x.m.store.View(ctx, x.actor.Organization, func(ctx context.Context, tx storage.ReadTx) error {
			page, err := tx.Grants(ctx, q)
			if err != nil {
				return err
			}
			found, ids = page.Grants, nil
			all, named := make([]string, len(found)), make(map[string]bool)
			for i, g := range found {
				all[i] = g.ID
				named[g.ID] = g.DecidedBy == x.out.Person && g.DecidedByLabel != ""
			}
			if len(all) == 0 {
				return nil
			}
			approvals, err := tx.Approvals(ctx, all)
			for _, a := range approvals {
				named[a.Grant] = named[a.Grant] || a.Actor == x.out.Person && a.ActorLabel != ""
			}
			for _, id := range all {
				if named[id] {
					ids = append(ids, id)
				}
			}
			return err
		})
		if err != nil {
			return storageError(err)
		}
		if err := x.commit(ctx, needs{grants: ids, approvals: len(ids) > 0}, x.scrubGrants, nil); err != nil || len(found) < q.Limit {
			return err
		}
		q.After = found[len(found)-1].ID
	}
}

func (x *erasing) scrubGrants(u *unit, e *entry) (c erased, err error) {
	for _, g := range u.sortedGrants(every) {
		if x.holds.on(g.Agent, g.Tool, x.out.Person) {
			c.held++
			continue
		}
		for _, a := range u.approvals[g.ID] {
			if a.Actor == x.out.Person && a.ActorLabel != "" {
				a.ActorLabel = ""
				a.Revision++
				c.approvals++
				if err := u.putApproval(e, a); err != nil {
					return c, err
				}
			}
		}
		if g.DecidedBy == x.out.Person && g.DecidedByLabel != "" {
			g.DecidedByLabel = ""
			g.Revision++
			c.grants++
			if err := u.putGrant(e, g); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

// labelled are the members of payloads that hold a label, by the member that says
// whose it is.
var labelled = map[string]string{"created_by": "created_by_label", "decided_by": "decided_by_label"}

// erasedLabel is what a removed administrator is called whose label was erased.
const erasedLabel = "(erased)"

// scrubbed is a payload without the person's label; ok is false when it has none.
func (x *erasing) scrubbed(r storage.Record) (payload []byte, ok bool) {
	var all map[string]json.RawMessage
	if json.Unmarshal(r.Payload, &all) != nil {
		return nil, false // what has no members holds no label
	}
	is := func(member, value string) bool {
		var text string
		return json.Unmarshal(all[member], &text) == nil && text == value
	}
	if r.Kind == kindAdministrator && r.ID == x.out.Person && !x.out.Administrator && !is("label", erasedLabel) {
		all["label"], ok = json.RawMessage(strconv.Quote(erasedLabel)), true
	}
	for by, label := range labelled {
		if is(by, x.out.Person) && len(all[label]) > 0 && !is(label, "") {
			delete(all, label)
			ok = true
		}
	}
	if !ok {
		return nil, false
	}
	payload, err := json.Marshal(all)
	return payload, err == nil
}

// labelKinds are the kinds of records whose payloads hold labels of people.
var labelKinds = []string{kindAdministrator, kindInstructionVersion, kindInstructionSuggestion}

// records takes it from generic records.
func (x *erasing) records(ctx context.Context) error {
	for _, kind := range labelKinds {
		for s := (storage.Scan{Kind: kind, Limit: erasePage}); ; {
			var found []storage.Record
			var refs []recordRef
			err := x.m.store.View(ctx, x.actor.Organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
				found, err = tx.ScanRecords(ctx, s)
				refs = nil
				for _, r := range found {
					if _, ok := x.scrubbed(r); ok {
						refs = append(refs, recordRef{kind, r.ID})
					}
				}
				return err
			})
			if err != nil {
				return storageError(err)
			}
			if err := x.commit(ctx, needs{records: refs}, func(u *unit, e *entry) (erased, error) { return x.scrubRecords(u, e, refs) }, nil); err != nil {
				return err
			}
			if len(found) < s.Limit {
				break
			}
			s.AfterID = found[len(found)-1].ID
		}
	}
	return nil
}

func (x *erasing) scrubRecords(u *unit, e *entry, refs []recordRef) (c erased, err error) {
	for _, ref := range refs {
		r, ok := u.records[ref]
		if !ok {
			continue
		}
		payload, ok := x.scrubbed(r)
		if !ok {
			continue
		}
		var of struct {
			Tool string `json:"tool"`
		}
		if json.Unmarshal(r.Payload, &of) == nil && x.holds.on("", of.Tool, x.out.Person) {
			c.held++
			continue
		}
		r.Payload = payload
		r.Revision++
		c.records++
		if err := u.putRecord(e, r); err != nil {
			return c, err
		}
	}
	return c, nil
}
