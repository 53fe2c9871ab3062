package agentkey

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// suggested asks what stands for a tool that an agent suggests.
type suggested struct {
	identity identity
	agent    string
}

// match is what stands for it. The tool is read, and so are the suggestion and
// what the agent has asked of it before.
type match struct {
	tool        string // of the catalog's, the newest that fits
	suggestion  string // of those that are pending or dismissed, the one that changed last
	domainTaken bool   // another suggestion stands for the domain
}

// toolChange is what a tool is about to be known by, which resolves the pending
// suggestions that it fits.
type toolChange struct {
	tool      string
	name, url *string // nil: as they are
	source    string  // a suggestion that is meant whatever it says, or empty
}

// resolution is the suggestions that a tool resolves, and of their supporters as
// many as one transaction takes.
type resolution struct {
	source      string
	suggestions []string
	pages       map[string]supportersPage
}

type supportersPage struct {
	supporters []supporterPayload
	next       string // the cursor after them
	more       bool   // there may be more
}

// conversion is what is left to do for an accepted suggestion: the requests of
// its supporters from a cursor on.
type conversion struct {
	By    string   `json:"by"` // the administrator who added or changed the tool
	After string   `json:"after,omitempty"`
	With  []string `json:"with,omitempty"` // suggestions that the tool resolved at the same time
}

// conversionPage bounds the requests that one transaction opens. However many
// supporters a suggestion has, nobody waits long for the head: what is left is
// opened by Run, one page at a time.
const conversionPage = 100

// loadSuggestions reads what suggestions a tool or another suggestion meets.
// Every look-up goes through an index and takes its first entry.
func (u *unit) loadSuggestions(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.match, u.resolved = match{}, make(map[string]*resolution, len(n.changes))
	if n.suggested != nil {
		if err := u.loadMatch(ctx, tx, *n.suggested); err != nil {
			return err
		}
	}
	if err := u.loadResolutions(ctx, tx, n.changes); err != nil {
		return err
	}
	if n.converting == "" {
		return nil
	}
	return u.loadConversion(ctx, tx, n.converting)
}

// loadMatch finds the tool that fits and, without one, the suggestion.
func (u *unit) loadMatch(ctx context.Context, tx storage.ReadTx, s suggested) (err error) {
	tools := only(kindToolIdentity, indexName, indexValue(s.identity.name))
	if s.identity.domain != "" {
		tools = only(kindToolIdentity, indexDomain, indexValue(s.identity.domain))
	}
	if u.match.tool, err = u.first(ctx, tx, tools); err != nil {
		return err
	}
	if u.match.tool != "" {
		return u.addTools(ctx, tx, []string{u.match.tool})
	}
	others := newestShared(s.identity.name) // with a domain, when this one has none
	if s.identity.domain != "" {
		others = only(kindToolSuggestion, indexDomain, indexValue(s.identity.domain))
	}
	ids := make([]string, 2)
	for i, scan := range []storage.Scan{only(kindToolSuggestion, indexName, aloneValue(s.identity.name)), others} {
		if ids[i], err = u.first(ctx, tx, scan); err != nil {
			return err
		}
	}
	u.match.domainTaken = s.identity.domain != "" && ids[1] != ""
	u.match.suggestion = u.changedLast(ids)
	if u.match.suggestion == "" {
		return nil
	}
	return u.loadNamed(ctx, tx, []recordRef{{kindToolSupporter, u.match.suggestion + "/" + s.agent}})
}

func (u *unit) changedLast(ids []string) (last string) {
	for _, id := range ids {
		if id == "" {
			continue
		}
		r := u.records[recordRef{kindToolSuggestion, id}]
		if last == "" || r.UpdatedAt > u.records[recordRef{kindToolSuggestion, last}].UpdatedAt {
			last = id
		}
	}
	return last
}

// loadResolutions finds the pending suggestions that each of some tools fits. An
// import changes thousands at once, mostly where nobody has suggested anything.
func (u *unit) loadResolutions(ctx context.Context, tx storage.ReadTx, changes []toolChange) error {
	var refs []recordRef
	for _, c := range changes {
		if _, stands := u.tools[c.tool]; stands {
			refs = append(refs, recordRef{kindToolIdentity, c.tool})
		}
	}
	if err := u.loadNamed(ctx, tx, refs); err != nil {
		return err
	}
	look := true
	if len(changes) > fewRecords {
		found, err := tx.ScanRecords(ctx, storage.Scan{Kind: kindToolSuggestion, Index: indexName, Limit: 1})
		if err != nil {
			return err
		}
		look = len(found) > 0
	}
	left := conversionPage
	for _, c := range changes {
		if !look {
			u.resolved[c.tool] = &resolution{}
			continue
		}
		if err := u.loadResolution(ctx, tx, c, &left); err != nil {
			return err
		}
	}
	return nil
}

// loadResolution finds the pending suggestions that a tool fits: the one with its
// domain, the one without a domain and with its name, and the one that is named.
// There are no others, see suggestion.index.
func (u *unit) loadResolution(ctx context.Context, tx storage.ReadTx, c toolChange, left *int) error {
	tool := u.tools[c.tool]
	set(&tool.Name, c.name)
	set(&tool.URL, c.url)
	known := identityOf(tool.Name, tool.URL)
	out := &resolution{source: c.source, pages: make(map[string]supportersPage)}
	u.resolved[c.tool] = out
	ids := []string{c.source}
	if c.source != "" {
		if err := u.loadNamed(ctx, tx, []recordRef{{kindToolSuggestion, c.source}}); err != nil {
			return err
		}
	}
	var scans []storage.Scan
	if known.name != "" {
		scans = append(scans, only(kindToolSuggestion, indexName, aloneValue(known.name)))
	}
	if known.domain != "" {
		scans = append(scans, only(kindToolSuggestion, indexDomain, indexValue(known.domain)))
	}
	for _, scan := range scans {
		id, err := u.first(ctx, tx, scan)
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		s, ok, err := u.suggestion(id)
		if err != nil {
			return err
		}
		if ok && s.Status == SuggestionPending && !slices.Contains(out.suggestions, id) {
			out.suggestions = append(out.suggestions, id)
		}
	}
	for _, id := range out.suggestions {
		if err := u.loadSupporters(ctx, tx, out, c.tool, id, "", out.suggestions, left); err != nil {
			return err
		}
	}
	return nil
}

// loadSupporters reads the next supporters of a suggestion that a tool resolves,
// with their agents, their grants to the tool, and what they asked of the
// suggestions that it resolves besides.
func (u *unit) loadSupporters(ctx context.Context, tx storage.ReadTx, out *resolution, tool, id, after string, with []string, left *int) error {
	page := supportersPage{next: after, more: true}
	defer func() { out.pages[id] = page }()
	if *left == 0 {
		return nil
	}
	scan, err := supportersScan(kindToolSupporter, id, after, *left)
	if err != nil {
		return err
	}
	if page.supporters, err = u.scanSupporters(ctx, tx, scan); err != nil {
		return err
	}
	page.more = len(page.supporters) == *left
	*left -= len(page.supporters)
	var agents []string
	var pairs []storage.Pair
	var refs []recordRef
	for _, p := range page.supporters {
		page.next = waitingSince(p.Last) + "/" + p.Agent
		agents = append(agents, p.Agent)
		pairs = append(pairs, storage.Pair{Agent: p.Agent, Tool: tool})
		for _, other := range with {
			if other != id {
				refs = append(refs, recordRef{kindToolSupporter, other + "/" + p.Agent})
			}
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	if err := u.addAgents(ctx, tx, agents); err != nil {
		return err
	}
	found, err := tx.Grants(ctx, storage.GrantQuery{Pairs: pairs})
	if err != nil {
		return err
	}
	if err := u.addGrants(found.Grants); err != nil {
		return err
	}
	return u.loadNamed(ctx, tx, refs)
}

// loadConversion reads the next page of an accepted suggestion.
func (u *unit) loadConversion(ctx context.Context, tx storage.ReadTx, id string) error {
	if err := u.loadNamed(ctx, tx, []recordRef{{kindToolSuggestion, id}}); err != nil {
		return err
	}
	s, ok, err := u.suggestion(id)
	if err != nil || !ok || s.Conversion == nil {
		return err
	}
	if err := u.addTools(ctx, tx, []string{s.Tool}); err != nil {
		return err
	}
	out := &resolution{suggestions: []string{id}, pages: make(map[string]supportersPage)}
	u.resolved[s.Tool] = out
	left := conversionPage
	return u.loadSupporters(ctx, tx, out, s.Tool, id, s.Conversion.After, s.Conversion.With, &left)
}

// Where a tool that resolves suggestions comes from.
const (
	resolvedBySource = "source_suggestion"
	resolvedByAdding = "tool_created"
	resolvedByChange = "tool_updated"
)

// resolveSuggestions accepts the pending suggestions that a tool fits, and opens
// a request for each supporter that never had a grant to it.
func (m *Manager) resolveSuggestions(u *unit, a Actor, tool storage.Tool, how string) error {
	r := u.resolved[tool.ID]
	if r == nil {
		return errors.New("agentkey: the suggestions of a tool were not read") // needs.changes lacks it
	}
	for _, id := range r.suggestions {
		s, ok, err := u.suggestion(id)
		if err != nil {
			return err
		}
		if !ok || s.Status != SuggestionPending {
			continue // another tool of the same transaction resolved it
		}
		e := u.event(a.who(), audit.ActionToolSuggestionAutoResolved)
		e.Details = map[string]string{"resolution_source": how}
		if id == r.source {
			e.Action, e.Details["resolution_source"] = audit.ActionToolSuggestionAccepted, resolvedBySource
		}
		e.Tool, e.From, e.To = tool.ID, string(s.Status), string(SuggestionAccepted)
		s.Status, s.Tool = SuggestionAccepted, tool.ID
		page := r.pages[id]
		if page.more {
			s.Conversion = &conversion{By: a.ID, After: page.next, With: others(r.suggestions, id)}
			u.then(func() { m.conversions.add(u.organization) })
		}
		if err := u.putSuggestion(e, s); err != nil {
			return err
		}
		e.personal.ToolLabel = tool.Name // of e.Tool; what agents called it stands in the suggestion
		if _, err := u.openRequests(a.who(), s, tool, page, others(r.suggestions, id)); err != nil {
			return err
		}
	}
	return nil
}

func others(ids []string, id string) []string {
	return slices.DeleteFunc(slices.Clone(ids), func(other string) bool { return other == id })
}

// openRequests opens a pending request for every supporter of a page whose agent
// is active and has no grant to the tool: whoever was denied or revoked, has
// access or waits for it already, keeps what it has.
func (u *unit) openRequests(w who, s *suggestion, tool storage.Tool, page supportersPage, with []string) (opened int, err error) {
	for _, p := range page.supporters {
		agent, ok := u.agents[p.Agent]
		if !ok || agent.Status != storage.AgentActive || u.grant(agent.ID, tool.ID) != nil {
			continue
		}
		reason, err := u.latestReason(p, with)
		if err != nil {
			return opened, err
		}
		t, err := grants.Request(nil, grants.RequestInput{
			Identity: grants.Identity{ID: newID(), Organization: u.organization, Agent: agent.ID, Tool: tool.ID},
			Reason:   reason, RequiredApprovals: tool.RequiredApprovals,
		}, u.now)
		if err != nil {
			return opened, grantError(err)
		}
		e := u.event(w, audit.ActionGrantRequestedFromSuggestion)
		e.personal.Text = reason
		e.Details = map[string]string{"suggestion": s.id}
		if err := u.transition(e, t, agent, tool); err != nil {
			return opened, err
		}
		opened++
	}
	return opened, nil
}

// latestReason is what a supporter said last of any of the suggestions that were
// resolved together.
func (u *unit) latestReason(p supporterPayload, with []string) (string, error) {
	for _, other := range with {
		r, ok := u.records[recordRef{kindToolSupporter, other + "/" + p.Agent}]
		if !ok {
			continue
		}
		q, err := parsePayload[supporterPayload](r)
		if err != nil {
			return "", err
		}
		if q.Last > p.Last {
			p = q
		}
	}
	return p.Reason, nil
}

// convert opens the requests of an accepted suggestion's next supporters, in the
// name of the administrator whose tool resolved it.
func (m *Manager) convert(ctx context.Context, organization, id string) (more bool, err error) {
	err = m.commit(ctx, &operation{organization: organization, needs: needs{converting: id, ended: true}, decide: func(u *unit) error {
		more = false
		s, ok, err := u.suggestion(id)
		if err != nil || !ok || s.Conversion == nil {
			return err
		}
		w := system
		w.actor.Behalf = s.Conversion.By
		e := u.event(w, audit.ActionToolSuggestionConverted)
		e.Tool, e.From, e.To = s.Tool, string(s.Status), string(s.Status)
		page, with := u.resolved[s.Tool].pages[id], s.Conversion.With
		tool, ok := u.tools[s.Tool]
		if more = ok && page.more; more {
			s.Conversion.After = page.next
		} else {
			s.Conversion = nil
		}
		if err := u.putSuggestion(e, s); err != nil || !ok { // the tool may be deleted by now
			return err
		}
		opened, err := u.openRequests(w, s, tool, page, with)
		e.Details = map[string]string{"opened": strconv.Itoa(opened)}
		return err
	}})
	return more, err
}

// conversions remembers in which organizations requests are still to be opened.
// It is only where to look first: what is left stands in the records.
type conversions struct {
	mu            sync.Mutex
	organizations map[string]bool
	known         bool // that there are no others; not at first
}

func (c *conversions) add(organization string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.organizations == nil {
		c.organizations = make(map[string]bool)
	}
	c.organizations[organization] = true
}

// forget lets the next sweep look everywhere, for what another process left.
func (c *conversions) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = false
}

func (c *conversions) take() (organizations map[string]bool, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	organizations, known = c.organizations, c.known
	c.organizations, c.known = nil, true
	return organizations, known
}

// sweepConversions opens the requests that are left, in one transaction for each
// page of them.
func (m *Manager) sweepConversions(ctx context.Context) error {
	organizations, known := m.conversions.take()
	var failed error
	work := func(id string) error {
		if err := m.convertAll(ctx, id); err != nil {
			m.conversions.add(id)
			failed = errors.Join(failed, err)
		}
		return ctx.Err()
	}
	if !known {
		if err := m.eachOrganization(ctx, work); err != nil {
			m.conversions.forget()
			return errors.Join(failed, err)
		}
		return failed
	}
	for id := range organizations {
		if err := work(id); err != nil {
			m.conversions.forget()
			return errors.Join(failed, err)
		}
	}
	return failed
}

// convertAll does what is left in one organization. What the index names is only
// where to look: each suggestion is read again under the head.
func (m *Manager) convertAll(ctx context.Context, organization string) error {
	var found []storage.Record
	err := m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		found, err = tx.ScanRecords(ctx, storage.Scan{Kind: kindToolSuggestion, Index: indexConverting, Limit: conversionPage})
		return err
	})
	if err != nil {
		return storageError(err)
	}
	if len(found) == conversionPage {
		m.conversions.add(organization) // the next sweep goes on
	}
	var failed error
	for _, r := range found {
		for more := true; more; {
			if more, err = m.convert(ctx, organization, r.ID); err != nil {
				failed, more = errors.Join(failed, err), false
			}
		}
		if ctx.Err() != nil || errors.Is(failed, ErrStorage) {
			break
		}
	}
	return failed
}
