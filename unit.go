package agentkey

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

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
	grants       []string           // by id
	grantsOf     storage.GrantQuery // every grant of an agent or a tool
	approvals    bool
	credentials  bool // of the tools and grants read
	records      []recordRef
	recordKinds  []string // every record of these kinds
	toolCount    bool
	configKey    configKey // the first free one from here on
	windows      []storage.WindowRef
	logOnly      bool // not even the organization's own record, which may be what is damaged
}

type recordRef struct{ kind, id string }

// check refuses ids that callers made up and that no record can have.
func (n needs) check() error {
	ids := slices.Concat(n.keys, n.agents, n.keysOfAgents, n.tools, n.grants, []string{n.grantsOf.Agent, n.grantsOf.Tool})
	for _, p := range n.pairs {
		ids = append(ids, p.Agent, p.Tool)
	}
	for _, r := range n.records {
		ids = append(ids, r.id)
	}
	return checkTexts(ids...)
}

// and is what both need. Only needs of rows by their ids go together.
func (n needs) and(o needs) needs {
	n.keys = both(n.keys, o.keys)
	n.agents = both(n.agents, o.agents)
	n.tools = both(n.tools, o.tools)
	n.pairs = both(n.pairs, o.pairs)
	n.windows = both(n.windows, o.windows)
	n.credentials = n.credentials || o.credentials
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

// unit is what an operation sees of an organization while its head is held, and
// what it wants changed. Changes seal their rows and join the event that reports
// them: there is no change without one.
type unit struct {
	*state
	events    []*entry
	writes    []write
	outbox    []storage.Delivery
	committed []func() // what follows the commit
}

// state is what was read, and has passed its row seals.
type state struct {
	batch        *batch // nil in a view
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
	windows     map[storage.WindowRef][]int64
	skewed      bool // this node's clock is too far from the database's
}

type write func(ctx context.Context, tx storage.Tx) (bool, error)

// entry is an event with its personal part, before it has its number.
type entry struct {
	audit.Event
	personal audit.Personal
	leaf     audit.Hash
	signed   []byte // the head that covers it
}

// integrityError says that a row's seal does not fit it. It is an ErrIntegrity.
type integrityError struct{ kind, id string }

func (e *integrityError) Error() string { return ErrIntegrity.Error() + ": " + e.kind }
func (e *integrityError) Unwrap() error { return ErrIntegrity }

// errStale says that the keys in memory are not those that the rows name.
var errStale = errors.New("agentkey: data keys changed")

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
func (u *unit) load(ctx context.Context, tx storage.ReadTx, n needs) error {
	if err := n.check(); err != nil {
		return err
	}
	steps := []func(context.Context, storage.ReadTx, needs) error{
		u.loadDataKeys, u.loadOrganization, u.loadKeys, u.loadGrants, u.loadAgents, u.loadTools,
		u.loadCredentials, u.loadApprovals, u.loadRecords, u.loadWindows,
	}
	for _, step := range steps {
		if err := step(ctx, tx, n); err != nil {
			return err
		}
	}
	return nil
}

func (u *unit) loadDataKeys(ctx context.Context, tx storage.ReadTx, _ needs) error {
	keys, err := tx.DataKeys(ctx)
	if err != nil {
		return err
	}
	u.dataKeys = keys
	u.states = make(map[string]vault.KeyState, len(keys))
	for _, k := range keys {
		u.states[k.ID] = k.State
		if k.State == vault.KeyActive && u.ring.keys[k.ID] == nil {
			return errStale
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

func (u *unit) loadOrganization(ctx context.Context, tx storage.ReadTx, n needs) error {
	if u.organization == storage.System || n.logOnly {
		return nil
	}
	o, ok, err := tx.Organization(ctx)
	if err != nil || !ok {
		return err
	}
	o.ID = u.organization
	u.org = &o
	return u.verify(o.Row(u.installation), o.Seal)
}

func (u *unit) loadKeys(ctx context.Context, tx storage.ReadTx, n needs) error {
	u.keys = make(map[string]storage.Key)
	if len(n.keys)+len(n.keysOfAgents) == 0 {
		return nil
	}
	keys, err := tx.Keys(ctx, storage.KeyQuery{IDs: n.keys, Agents: n.keysOfAgents})
	if err != nil {
		return err
	}
	for _, k := range keys {
		k.Organization = u.organization
		if err := u.verify(k.Row(u.installation), k.Seal); err != nil {
			return err
		}
		u.keys[k.ID] = k
	}
	return nil
}

func (u *unit) loadGrants(ctx context.Context, tx storage.ReadTx, n needs) error {
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
	if n.grantsOf.Agent == "" && n.grantsOf.Tool == "" {
		return nil
	}
	q := n.grantsOf
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

func (u *unit) loadAgents(ctx context.Context, tx storage.ReadTx, n needs) error {
	u.agents = make(map[string]storage.Agent)
	ids := slices.Clone(n.agents)
	if n.named {
		for p := range u.grants {
			ids = append(ids, p.Agent)
		}
	}
	for part := range slices.Chunk(ids, loadChunk) {
		page, err := tx.Agents(ctx, storage.AgentQuery{IDs: part})
		if err != nil {
			return err
		}
		for _, a := range page.Agents {
			a.Organization = u.organization
			if err := u.verify(a.Row(u.installation), a.Seal); err != nil {
				return err
			}
			u.agents[a.ID] = a
		}
	}
	return nil
}

func (u *unit) loadTools(ctx context.Context, tx storage.ReadTx, n needs) error {
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
	for part := range slices.Chunk(ids, loadChunk) {
		page, err := tx.Tools(ctx, storage.ToolQuery{IDs: part})
		if err != nil {
			return err
		}
		for _, t := range page.Tools {
			t.Organization = u.organization
			if err := u.verify(t.Row(u.installation), t.Seal); err != nil {
				return err
			}
			u.tools[t.ID] = t
		}
	}
	return nil
}

func (u *unit) loadCredentials(ctx context.Context, tx storage.ReadTx, n needs) error {
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
		for _, c := range found {
			c.Organization = u.organization
			if err := u.verify(c.Row(u.installation), c.Seal); err != nil {
				return err
			}
			u.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}] = c
		}
	}
	return nil
}

func (u *unit) loadApprovals(ctx context.Context, tx storage.ReadTx, n needs) error {
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

func (u *unit) loadRecords(ctx context.Context, tx storage.ReadTx, n needs) error {
	u.records = make(map[recordRef]storage.Record)
	for _, ref := range n.records {
		r, ok, err := tx.Record(ctx, ref.kind, ref.id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := u.addRecord(r); err != nil {
			return err
		}
	}
	for _, kind := range n.recordKinds {
		s := storage.Scan{Kind: kind, Limit: storage.MaxPage}
		for {
			found, err := tx.ScanRecords(ctx, s)
			if err != nil {
				return err
			}
			for _, r := range found {
				if err := u.addRecord(r); err != nil {
					return err
				}
			}
			if len(found) < s.Limit {
				break
			}
			s.AfterID = found[len(found)-1].ID
		}
	}
	return nil
}

func (u *unit) addRecord(r storage.Record) error {
	r.Organization = u.organization
	if err := u.verify(r.Row(u.installation), r.Seal); err != nil {
		return err
	}
	u.records[recordRef{r.Kind, r.ID}] = r
	return nil
}

// event begins an event of this unit.
func (u *unit) event(w who, action audit.Action) *entry {
	e := &entry{Event: audit.Event{
		Organization: u.organization, Time: u.now, Action: action, Outcome: audit.OutcomeOK,
		Actor: w.actor, Salt: audit.NewSalt(),
		Request: idOrNone(w.context.Request), ClientRequest: idOrNone(w.context.ClientRequest), Trace: idOrNone(w.context.Trace),
	}}
	e.personal = audit.Personal{ActorLabel: label(w.label), UserAgent: label(w.context.UserAgent)}
	if w.context.Address.IsValid() {
		e.personal.Address = w.context.Address.Unmap().WithZone("").String()
	}
	u.events = append(u.events, e)
	return e
}

// change seals a row and notes in the event what it became.
func (u *unit) change(e *entry, r vault.Row) ([]byte, error) {
	seal, err := u.ring.rows.Seal(r)
	if err != nil {
		return nil, fmt.Errorf("agentkey: seal row: %w", err)
	}
	state := r.State(e.Salt)
	e.Changes = append(e.Changes, audit.Change{Kind: r.Kind, ID: r.Record, Revision: r.Revision, State: state[:]})
	return seal, nil
}

func (u *unit) removed(e *entry, kind, id string, revision int64) {
	e.Changes = append(e.Changes, audit.Change{Kind: kind, ID: id, Revision: revision + 1, Removed: true})
}

func (u *unit) putOrganization(e *entry, o storage.Organization) (err error) {
	o.UpdatedAt = u.now
	if o.Seal, err = u.change(e, o.Row(u.installation)); err != nil {
		return err
	}
	u.org = &o
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutOrganization(ctx, o) })
	return nil
}

func (u *unit) putAgent(e *entry, a storage.Agent) (err error) {
	a.UpdatedAt = u.now
	if a.Seal, err = u.change(e, a.Row(u.installation)); err != nil {
		return err
	}
	u.agents[a.ID] = a
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutAgent(ctx, a) })
	return nil
}

func (u *unit) putKey(e *entry, k storage.Key) (err error) {
	k.UpdatedAt = u.now
	if k.Seal, err = u.change(e, k.Row(u.installation)); err != nil {
		return err
	}
	u.keys[k.ID] = k
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutKey(ctx, k) })
	return nil
}

func (u *unit) putTool(e *entry, t storage.Tool) (err error) {
	t.UpdatedAt = u.now
	if t.Seal, err = u.change(e, t.Row(u.installation)); err != nil {
		return err
	}
	u.tools[t.ID] = t
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutTool(ctx, t) })
	return nil
}

func (u *unit) deleteTool(e *entry, t storage.Tool) {
	u.removed(e, audit.KindTool, t.ID, t.Revision)
	delete(u.tools, t.ID)
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.DeleteTool(ctx, t.ID, t.Revision)
	})
}

// putCredential writes a credential. With fresh, its value was just sealed.
func (u *unit) putCredential(e *entry, c storage.Credential, fresh bool) (err error) {
	if fresh {
		id, err := vault.SealedKeyID(c.Sealed)
		if err != nil || (u.states[id] != vault.KeyActive && u.states[id] != vault.KeyDecryptOnly) {
			return errStale
		}
		digest := vault.SealedDigest(c.Sealed)
		e.Sealed = append(e.Sealed, audit.SealedRef{Kind: audit.KindCredential, ID: c.ID, Digest: digest[:]})
	}
	c.UpdatedAt = u.now
	if c.Seal, err = u.change(e, c.Row(u.installation)); err != nil {
		return err
	}
	u.credentials[storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}] = c
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutCredential(ctx, c) })
	return nil
}

func (u *unit) deleteCredential(e *entry, c storage.Credential) {
	u.removed(e, audit.KindCredential, c.ID, c.Revision)
	delete(u.credentials, storage.CredentialRef{Tool: c.Tool, Grant: c.Grant})
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) {
		return tx.DeleteCredential(ctx, c.ID, c.Revision)
	})
}

func (u *unit) putGrant(e *entry, g grants.Grant) (err error) {
	if g.Seal, err = u.change(e, storage.GrantRow(u.installation, g)); err != nil {
		return err
	}
	u.grants[storage.Pair{Agent: g.Agent, Tool: g.Tool}] = g
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutGrant(ctx, g) })
	return nil
}

func (u *unit) putApproval(e *entry, a grants.Approval) (err error) {
	if a.Seal, err = u.change(e, storage.ApprovalRow(u.installation, a)); err != nil {
		return err
	}
	u.approvals[a.Grant] = append(slices.DeleteFunc(slices.Clone(u.approvals[a.Grant]), func(b grants.Approval) bool {
		return storage.ApprovalID(a) == storage.ApprovalID(b)
	}), a)
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutApproval(ctx, a) })
	return nil
}

func (u *unit) putDataKey(e *entry, k storage.DataKey) (err error) {
	k.UpdatedAt = u.now
	if k.Seal, err = u.change(e, k.Row(u.installation)); err != nil {
		return err
	}
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutDataKey(ctx, k) })
	return nil
}

func (u *unit) putRecord(e *entry, r storage.Record) (err error) {
	r.Organization, r.UpdatedAt = u.organization, u.now
	if r.Seal, err = u.change(e, r.Row(u.installation)); err != nil {
		return err
	}
	u.records[recordRef{r.Kind, r.ID}] = r
	u.writes = append(u.writes, func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutRecord(ctx, r) })
	return nil
}

// sortedGrants gives the grants read, in the order of their ids, so that events
// come in the same order in every run.
func (u *unit) sortedGrants() []grants.Grant {
	return slices.SortedFunc(maps.Values(u.grants), func(a, b grants.Grant) int { return strings.Compare(a.ID, b.ID) })
}

func (u *unit) sortedKeys() []storage.Key {
	return slices.SortedFunc(maps.Values(u.keys), func(a, b storage.Key) int { return strings.Compare(a.ID, b.ID) })
}

// usable says whether a sealed value's key may still open it.
func (u *unit) usable(sealed []byte) error {
	id, err := vault.SealedKeyID(sealed)
	if err != nil {
		return err
	}
	switch u.states[id] {
	case vault.KeyActive, vault.KeyDecryptOnly:
		return nil
	}
	return vault.ErrUnknownKey
}

// then notes what follows the commit.
func (u *unit) then(f func()) { u.committed = append(u.committed, f) }

// idOrNone leaves out what can't stand in an event as an id: whoever sent it,
// the event itself must not fail by it.
func idOrNone(s string) string {
	if len(s) > 128 || !isID(s) {
		return ""
	}
	return s
}

// label makes any text fit to be a label.
func label(s string) string {
	return cut(strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD"), 1024)
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
