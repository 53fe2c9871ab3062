package agentkey

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// needs says what an operation decides on. Everything is read under the head,
// in bulk, before the operation is asked to decide.
type needs struct {
	keys         []string
	agents       []string
	named        bool // also the agents and tools of the grants read
	keysOfAgents []string
	tools        []string
	pairs        []storage.Pair
	grants       []string             // by id
	grantsOf     []storage.GrantQuery // every grant of an agent or a tool
	approvals    bool                 // of the grants read; and the records of those that are pending
	credentials  bool                 // of the tools and grants read
	records      []recordRef
	recordKinds  []string       // every record of these kinds
	scans        []storage.Scan // records by an index, at most as many as each says
	// follow names the records that those read lead to, as from something found by
	// an index to what belongs to it. It is asked once, when all else is read.
	follow     func(u *unit) []recordRef
	toolCount  bool
	catalog    bool         // every tool
	configKey  configKey    // the first free one from here on
	suggested  *suggested   // what stands for a tool that is suggested
	changes    []toolChange // pending suggestions that tools resolve, with supporters
	converting string       // the suggestion whose supporters are next
	windows    []storage.WindowRef
	ended      bool // also of an organization that was destroyed
	bulk       bool // keys, agents, tools, pairs, their credentials and windows by id, and nothing else: read together
	logOnly    bool // not even the organization's own record, which may be what is damaged
}

type recordRef struct{ kind, id string }

// check refuses ids that callers made up and that no record can have.
func (n *needs) check() error {
	ids := slices.Concat(n.keys, n.agents, n.keysOfAgents, n.tools, n.grants)
	for _, q := range n.grantsOf {
		ids = append(ids, q.Agent, q.Tool)
	}
	for _, p := range n.pairs {
		ids = append(ids, p.Agent, p.Tool)
	}
	for _, r := range n.records {
		ids = append(ids, r.id)
	}
	for _, c := range n.changes {
		ids = append(ids, c.tool, c.source)
	}
	return checkTexts(ids...)
}

// query is the bulk read of needs that say bulk.
func (n *needs) query() storage.BulkQuery {
	return storage.BulkQuery{Keys: n.keys, Agents: n.agents, Tools: n.tools, Pairs: n.pairs, Credentials: n.credentials, Windows: n.windows}
}

// and is what both need. A key for a new tool is looked for once only.
func (n needs) and(o needs) needs {
	n.keys = both(n.keys, o.keys)
	n.agents = both(n.agents, o.agents)
	n.tools = both(n.tools, o.tools)
	n.pairs = both(n.pairs, o.pairs)
	n.windows = both(n.windows, o.windows)
	n.records = both(n.records, o.records)
	n.recordKinds = both(n.recordKinds, o.recordKinds)
	n.scans = append(slices.Clip(n.scans), o.scans...)
	if first := n.follow; first == nil {
		n.follow = o.follow
	} else if o.follow != nil {
		n.follow = func(u *unit) []recordRef { return append(first(u), o.follow(u)...) }
	}
	n.grantsOf = append(slices.Clip(n.grantsOf), o.grantsOf...)
	n.credentials = n.credentials || o.credentials
	n.bulk = n.bulk && o.bulk
	n.named = n.named || o.named
	n.ended = n.ended || o.ended
	n.approvals = n.approvals || o.approvals
	return n
}

func both[T comparable](a, b []T) []T {
	a = slices.Clip(a)
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// andOf is n and what neighbours need as well, which say bulk.
func (n *needs) andOf(ps []*pending) *needs {
	sum := &needs{bulk: true, credentials: n.credentials}
	sum.keys = all(n.keys, ps, func(n *needs) []string { return n.keys })
	sum.agents = all(n.agents, ps, func(n *needs) []string { return n.agents })
	sum.tools = all(n.tools, ps, func(n *needs) []string { return n.tools })
	sum.pairs = all(n.pairs, ps, func(n *needs) []storage.Pair { return n.pairs })
	sum.windows = all(n.windows, ps, func(n *needs) []storage.WindowRef { return n.windows })
	for _, p := range ps {
		sum.credentials = sum.credentials || p.op.needs.credentials
	}
	return sum
}

// all adds what some operations need to what one needs, each once.
func all[T comparable](first []T, ps []*pending, of func(*needs) []T) []T {
	first = slices.Clip(first)
	var seen map[T]bool
	for _, p := range ps {
		for _, v := range of(&p.op.needs) {
			if seen == nil {
				if slices.Contains(first, v) {
					continue
				}
				seen = make(map[T]bool, len(ps)) // not all need the same
				for _, v := range first {
					seen[v] = true
				}
			}
			if !seen[v] {
				seen[v] = true
				first = append(first, v)
			}
		}
	}
	return first
}

// unit is what an operation sees of an organization while its head is held, and
// what it wants changed. Changes seal their rows and join the event that reports
// them: there is no change without one.
type unit struct {
	*state
	events    []*entry
	writes    []write
	outbox    []storage.Delivery
	committed []func() // what follows the commit
	lostEpoch int64    // not 0: the log goes on in an epoch after this one
}

// state is what was read, and has passed its row seals.
type state struct {
	batch        *batch     // nil in a view
	head         audit.Head // zero in a view
	organization string
	installation string
	now          int64 // never before the log's last event
	ring         *ring
	states       map[string]vault.KeyState

	org         *storage.Organization
	agents      map[string]storage.Agent
	keys        map[string]storage.Key
	tools       map[string]storage.Tool
	credentials map[storage.CredentialRef]storage.Credential
	grants      map[storage.Pair]grants.Grant
	approvals   map[string][]grants.Approval
	records     map[recordRef]storage.Record
	dataKeys    []storage.DataKey
	toolCount   int64
	configKey   string
	match       match                  // for needs.suggested
	resolved    map[string]*resolution // for needs.changes, by tool, and for needs.converting
	windows     map[storage.WindowRef][]int64
	charged     map[storage.WindowRef]bool // those of them that are to be written
	fresh       bool                       // the keys were read for this
	skewed      bool                       // this node's clock is too far from the database's
}

type write func(ctx context.Context, tx storage.Tx) (bool, error)

// entry is an event with its personal part, before it has its number.
type entry struct {
	audit.Event
	personal audit.Personal
	appended *audit.Extension // what it was appended with, and
	place    int              // where in that it stands
}

// integrityError says that a row's seal does not fit it. It is an ErrIntegrity.
type integrityError struct{ kind, id string }

func (e *integrityError) Error() string { return ErrIntegrity.Error() + ": " + e.kind }
func (e *integrityError) Unwrap() error { return ErrIntegrity }

// errStale says that the keys in memory are not those that the rows name.
var errStale = errors.New("agentkey: data keys changed")

// errRetired says that a value was sealed with a data key that seals no more. It
// has to be sealed anew: nothing new may be put under a key that is on its way out.
var errRetired = fmt.Errorf("%w: data key was retired", ErrStorage)

// errConflict says that a row was not as it was read although the head is held.
var errConflict = errors.New("agentkey: row changed under the head")

func (u *unit) verify(r vault.Row, seal []byte) error {
	id, err := vault.RowSealKeyID(seal)
	if err == nil && u.states[id] != vault.KeyDestroyed {
		if u.ring.keys[id] == nil && u.states[id] != "" {
			return errStale
		}
		if u.ring.rows.Verify(r, seal) == nil {
			return nil
		}
	}
	return &integrityError{kind: r.Kind, id: r.Record}
}

// loadChunk is how many references one read takes.
const loadChunk = 1000

// load reads what n asks for.
func (u *unit) load(ctx context.Context, tx storage.ReadTx, n *needs) error {
	if err := n.check(); err != nil {
		return err
	}
	if n.bulk {
		return u.loadBulk(ctx, tx, n)
	}
	steps := []func(context.Context, storage.ReadTx, *needs) error{
		u.loadDataKeys, u.loadOrganization, u.loadKeys, u.loadGrants, u.loadAgents, u.loadTools,
		u.loadCredentials, u.loadApprovals, u.loadRecords, u.loadSuggestions, u.loadWindows, u.loadCatalog,
	}
	for i, step := range steps {
		if err := step(ctx, tx, n); err != nil {
			return err
		}
		if i == 0 && !n.ended && !n.logOnly && destroyedKeys(u.dataKeys) {
			return ErrOrganizationDestroyed
		}
	}
	return nil
}

// loadBulk reads what an operation that says bulk needs: all of it together.
func (u *unit) loadBulk(ctx context.Context, tx storage.ReadTx, n *needs) error {
	b, err := storage.ReadBulk(ctx, tx, n.query())
	if err != nil {
		return err
	}
	if err := u.addDataKeys(b.DataKeys); err != nil {
		return err
	}
	if destroyedKeys(u.dataKeys) {
		return ErrOrganizationDestroyed
	}
	u.approvals, u.records = make(map[string][]grants.Approval), make(map[recordRef]storage.Record)
	for _, add := range []func() error{
		func() error { return u.addOrganization(b.Organization) },
		func() error { return u.addKeys(b.Keys) },
		func() error {
			u.grants = make(map[storage.Pair]grants.Grant, len(b.Grants))
			return u.addGrants(b.Grants)
		},
		func() error { u.agents = make(map[string]storage.Agent, len(b.Agents)); return u.keepAgents(b.Agents) },
		func() error { u.tools = make(map[string]storage.Tool, len(b.Tools)); return u.keepTools(b.Tools) },
		func() error { return u.addCredentials(b.Credentials) },
		func() error { return u.addWindows(b.Windows) },
	} {
		if err := add(); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) loadDataKeys(ctx context.Context, tx storage.ReadTx, _ *needs) error {
	keys, err := tx.DataKeys(ctx)
	if err != nil {
		return err
	}
	return u.addDataKeys(keys)
}

func (u *unit) addDataKeys(keys []storage.DataKey) error {
	u.dataKeys = keys
	u.states = make(map[string]vault.KeyState, len(keys))
	for _, k := range keys {
		u.states[k.ID] = k.State
		if held := u.ring.keys[k.ID] != nil; held != (k.State != vault.KeyDestroyed) {
			return errStale // there is a new one, or one that must be zeroed
		}
	}
	if u.states[u.ring.rows.KeyID()] != vault.KeyActive {
		return errStale
	}
	for _, k := range keys {
		k.Organization = u.organization
		if err := u.verify(k.Row(u.installation), k.Seal); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) loadOrganization(ctx context.Context, tx storage.ReadTx, n *needs) error {
	if u.organization == storage.System || n.logOnly {
		return nil
	}
	o, ok, err := tx.Organization(ctx)
	if err != nil || !ok {
		return err
	}
	return u.addOrganization(&o)
}

func (u *unit) addOrganization(o *storage.Organization) error {
	if o == nil {
		return nil
	}
	o.ID = u.organization
	u.org = o
	return u.verify(o.Row(u.installation), o.Seal)
}

func (u *unit) loadKeys(ctx context.Context, tx storage.ReadTx, n *needs) error {
	if len(n.keys)+len(n.keysOfAgents) == 0 {
		return u.addKeys(nil)
	}
	keys, err := tx.Keys(ctx, storage.KeyQuery{IDs: n.keys, Agents: n.keysOfAgents})
	if err != nil {
		return err
	}
	return u.addKeys(keys)
}

func (u *unit) addKeys(keys []storage.Key) error {
	u.keys = make(map[string]storage.Key, len(keys))
	for _, k := range keys {
		k.Organization = u.organization
		if err := u.verify(k.Row(u.installation), k.Seal); err != nil {
			return err
		}
		u.keys[k.ID] = k
	}
	return nil
}

func (u *unit) loadGrants(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.grants = make(map[storage.Pair]grants.Grant)
	if len(n.grants)+len(n.pairs) > 0 {
		page, err := tx.Grants(ctx, storage.GrantQuery{IDs: n.grants, Pairs: n.pairs})
		if err != nil {
			return err
		}
		if err := u.addGrants(page.Grants); err != nil {
			return err
		}
	}
	for _, q := range n.grantsOf {
		if q.Agent == "" && q.Tool == "" {
			continue // nobody's, not everybody's
		}
		if err := u.loadGrantsOf(ctx, tx, q); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) loadGrantsOf(ctx context.Context, tx storage.ReadTx, q storage.GrantQuery) error {
	for q.Limit = storage.MaxPage; ; {
		page, err := tx.Grants(ctx, q)
		if err != nil {
			return err
		}
		if err := u.addGrants(page.Grants); err != nil {
			return err
		}
		if len(page.Grants) < q.Limit {
			return nil
		}
		q.After = page.Grants[len(page.Grants)-1].ID
	}
}

func (u *unit) addGrants(found []grants.Grant) error {
	for _, g := range found {
		g.Organization = u.organization
		if err := u.verify(storage.GrantRow(u.installation, g), g.Seal); err != nil {
			return err
		}
		u.grants[storage.Pair{Agent: g.Agent, Tool: g.Tool}] = g
	}
	return nil
}

func (u *unit) loadAgents(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.agents = make(map[string]storage.Agent)
	ids := slices.Clone(n.agents)
	if n.named {
		for p := range u.grants {
			ids = append(ids, p.Agent)
		}
	}
	return u.addAgents(ctx, tx, ids)
}

func (u *unit) addAgents(ctx context.Context, tx storage.ReadTx, ids []string) error {
	for part := range slices.Chunk(ids, loadChunk) {
		page, err := tx.Agents(ctx, storage.AgentQuery{IDs: part})
		if err != nil {
			return err
		}
		if err := u.keepAgents(page.Agents); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) keepAgents(found []storage.Agent) error {
	for _, a := range found {
		a.Organization = u.organization
		if err := u.verify(a.Row(u.installation), a.Seal); err != nil {
			return err
		}
		u.agents[a.ID] = a
	}
	return nil
}

func (u *unit) loadTools(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.tools = make(map[string]storage.Tool)
	if n.toolCount {
		page, err := tx.Tools(ctx, storage.ToolQuery{Total: true})
		if err != nil {
			return err
		}
		u.toolCount = page.Total
	}
	if n.configKey.base != "" {
		free, err := n.configKey.free(ctx, tx)
		if err != nil {
			return err
		}
		u.configKey = free.String()
	}
	ids := slices.Clone(n.tools)
	if n.named {
		for p := range u.grants {
			ids = append(ids, p.Tool)
		}
	}
	return u.addTools(ctx, tx, ids)
}

func (u *unit) addTools(ctx context.Context, tx storage.ReadTx, ids []string) error {
	for part := range slices.Chunk(ids, loadChunk) {
		page, err := tx.Tools(ctx, storage.ToolQuery{IDs: part})
		if err != nil {
			return err
		}
		if err := u.keepTools(page.Tools); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) keepTools(found []storage.Tool) error {
	for _, t := range found {
		t.Organization = u.organization
		if err := u.verify(t.Row(u.installation), t.Seal); err != nil {
			return err
		}
		u.tools[t.ID] = t
	}
	return nil
}

// loadCatalog adds every tool to those that were asked for. It comes after the
// credentials, which only those bring along.
func (u *unit) loadCatalog(ctx context.Context, tx storage.ReadTx, n *needs) error {
	if !n.catalog {
		return nil
	}
	for q := (storage.ToolQuery{Limit: storage.MaxPage}); ; {
		page, err := tx.Tools(ctx, q)
		if err != nil {
			return err
		}
		if err := u.keepTools(page.Tools); err != nil {
			return err
		}
		if len(page.Tools) < q.Limit {
			return nil
		}
		q.After = page.Tools[len(page.Tools)-1].ID
	}
}

func (u *unit) loadCredentials(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.credentials = make(map[storage.CredentialRef]storage.Credential)
	if !n.credentials {
		return nil
	}
	var refs []storage.CredentialRef
	for id := range u.tools {
		refs = append(refs, storage.CredentialRef{Tool: id})
	}
	for p, g := range u.grants {
		refs = append(refs, storage.CredentialRef{Tool: p.Tool, Grant: g.ID})
	}
	for part := range slices.Chunk(refs, loadChunk) {
		found, err := tx.Credentials(ctx, part)
		if err != nil {
			return err
		}
		if err := u.addCredentials(found); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) addCredentials(found []storage.Credential) error {
	if u.credentials == nil {
		u.credentials = make(map[storage.CredentialRef]storage.Credential, len(found))
	}
	for _, c := range found {
		c.Organization = u.organization
		if err := u.verify(c.Row(u.installation), c.Seal); err != nil {
			return err
		}
		u.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}] = c
	}
	return nil
}

func (u *unit) loadApprovals(ctx context.Context, tx storage.ReadTx, n *needs) error {
	u.approvals = make(map[string][]grants.Approval)
	if !n.approvals || len(u.grants) == 0 {
		return nil
	}
	ids := make([]string, 0, len(u.grants))
	for _, g := range u.grants {
		ids = append(ids, g.ID)
	}
	for part := range slices.Chunk(ids, loadChunk) {
		found, err := tx.Approvals(ctx, part)
		if err != nil {
			return err
		}
		for _, a := range found {
			a.Organization = u.organization
			if err := u.verify(storage.ApprovalRow(u.installation, a), a.Seal); err != nil {
				return err
			}
			u.approvals[a.Grant] = append(u.approvals[a.Grant], a)
		}
	}
	return nil
}
