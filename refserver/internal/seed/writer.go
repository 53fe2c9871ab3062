package seed

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// writer writes rows with the events that report them, many in one transaction.
type writer struct {
	store        storage.Store
	installation string
	organization string
	rows         *vault.RowSealer
	sealer       *vault.Sealer
	sealing      string // the id of the key that seals
	signer       *audit.Signer
	keys         []*vault.DataKey
	progress     func(events int64)

	seals int64 // since the last flush

	now   int64
	size  int64 // of the log
	head  audit.Head
	tree  audit.Tree
	lines []*entry
	puts  []func(ctx context.Context, tx storage.Tx) (bool, error)

	writing chan error // of the batch that is being written; nil: none is
}

type entry struct {
	audit.Event
	personal audit.Personal
}

// batch is how many events one transaction appends.
const batch = 2000

// open unwraps the keys that seal rows and sign heads.
func open(ctx context.Context, c Config) (*writer, error) {
	w := &writer{store: c.Store, installation: c.Manager.Installation(), organization: c.Actor.Organization, now: c.From.UnixMicro()}
	row, err := w.unwrap(ctx, c.Keys, w.organization, vault.PurposeRow)
	if err != nil {
		return nil, err
	}
	seal, err := w.unwrap(ctx, c.Keys, w.organization, vault.PurposeSeal)
	if err != nil {
		w.close()
		return nil, err
	}
	if w.sealer, err = vault.NewSealer(seal); err != nil {
		return nil, err
	}
	w.sealing = seal.ID()
	sign, err := w.unwrap(ctx, c.Keys, storage.System, vault.PurposeSign)
	if err != nil {
		w.close()
		return nil, err
	}
	if w.rows, err = vault.NewRowSealer(row); err != nil {
		return nil, err
	}
	seed, err := sign.SigningSeed()
	if err != nil {
		return nil, err
	}
	defer seed.Destroy()
	w.signer, err = audit.NewSigner(audit.SignerName(w.installation), seed.Bytes())
	return w, err
}

func (w *writer) close() {
	_ = w.wait()
	for _, key := range w.keys {
		key.Destroy()
	}
}

func (w *writer) unwrap(ctx context.Context, provider vault.KeyProvider, organization string, purpose vault.Purpose) (*vault.DataKey, error) {
	var rows []storage.DataKey
	err := w.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		rows, err = tx.DataKeys(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, d := range rows {
		if d.Purpose != purpose || d.State != vault.KeyActive {
			continue
		}
		key, err := vault.Unwrap(ctx, provider, vault.Wrapped{Provider: d.Provider, Blob: d.Wrapped}, d.ID, d.Purpose,
			vault.Context{Installation: w.installation, Organization: organization, Purpose: string(d.Purpose), Key: d.ID})
		if err == nil {
			w.keys = append(w.keys, key)
		}
		return key, err
	}
	return nil, fmt.Errorf("seed: no active key to %s", purpose)
}

// reload finds where the log has come to.
func (w *writer) reload(ctx context.Context) error {
	return w.store.View(ctx, w.organization, func(ctx context.Context, tx storage.ReadTx) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		w.head, w.size, w.now = head.Head, head.Size, max(w.now, head.Time)
		w.tree, err = audit.ParseTree(head.Size, head.Edge)
		return err
	})
}

// tick moves the time on.
func (w *writer) tick(by int64) int64 {
	w.now += by
	return w.now
}

func (w *writer) event(actor audit.Actor, action audit.Action) *entry {
	e := &entry{Event: audit.Event{
		Organization: w.organization, Time: w.now, Actor: actor, Action: action, Outcome: audit.OutcomeOK, Salt: audit.NewSalt(), Node: "seed",
	}}
	w.lines = append(w.lines, e)
	return e
}

func (w *writer) put(fn func(ctx context.Context, tx storage.Tx) (bool, error)) {
	w.puts = append(w.puts, fn)
}

// change seals a row and notes in the event what it became.
func (w *writer) change(e *entry, r vault.Row) ([]byte, error) {
	state := r.State(e.Salt)
	e.Changes = append(e.Changes, audit.Change{Kind: r.Kind, ID: r.Record, Revision: r.Revision, State: state[:]})
	return w.rows.Seal(r)
}

// request writes a request with its place in the inbox, and answers that.
func (w *writer) request(t grants.Transition) (*storage.Record, error) {
	g := t.Grant
	e := w.event(audit.Actor{Kind: audit.ActorAgent, ID: g.Agent, Auth: "key"}, audit.ActionGrantRequested)
	e.personal.Text = g.Reason
	if err := w.transition(e, t); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(map[string]int64{"cycle": g.Cycle})
	if err != nil {
		return nil, err
	}
	r := storage.Record{
		Organization: w.organization, Kind: "access_request", ID: g.ID, Payload: payload, UpdatedAt: w.now, Revision: 1,
		Index: []storage.IndexEntry{{Name: "requested", Value: fmt.Sprintf("%020d", g.RequestedAt)}},
	}
	if r.Seal, err = w.change(e, r.Row(w.installation)); err != nil {
		return nil, err
	}
	w.put(func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutRecord(ctx, r) })
	return &r, nil
}

// decide writes a decision, which takes the request from the inbox.
func (w *writer) decide(t grants.Transition, by grants.Decider, action audit.Action, request *storage.Record) error {
	e := w.event(audit.Actor{Kind: by.Kind, ID: by.ID, Auth: "token"}, action)
	if err := w.transition(e, t); err != nil {
		return err
	}
	if t.Approval != nil {
		a := *t.Approval
		var err error
		if a.Seal, err = w.change(e, storage.ApprovalRow(w.installation, a)); err != nil {
			return err
		}
		w.put(func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutApproval(ctx, a) })
	}
	if request != nil {
		e.Changes = append(e.Changes, audit.Change{Kind: request.Kind, ID: request.ID, Revision: request.Revision + 1, Removed: true})
		w.put(func(ctx context.Context, tx storage.Tx) (bool, error) {
			return tx.DeleteRecord(ctx, request.Kind, request.ID, request.Revision)
		})
	}
	return nil
}

func (w *writer) transition(e *entry, t grants.Transition) error {
	g := t.Grant
	e.Agent, e.Tool, e.Target = g.Agent, g.Tool, audit.Ref{Kind: audit.KindGrant, ID: g.ID}
	e.Grant = audit.GrantRef{ID: g.ID, Revision: g.Revision, Cycle: g.Cycle}
	e.personal.AgentLabel, e.personal.ToolLabel = "An agent", "A tool"
	e.To = string(g.Status)
	if t.From != grants.StatusNone {
		e.From = string(t.From)
	}
	var err error
	if g.Seal, err = w.change(e, storage.GrantRow(w.installation, g)); err != nil {
		return err
	}
	w.put(func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutGrant(ctx, g) })
	return nil
}

// credential seals a value and writes it with the last event.
func (w *writer) credential(c storage.Credential) (err error) {
	e := w.lines[len(w.lines)-1]
	secret := vault.NewSecret([]byte(made))
	defer secret.Destroy()
	if c.Sealed, err = w.sealer.Seal(c.Place(w.installation), secret); err != nil {
		return err
	}
	digest := vault.SealedDigest(c.Sealed)
	e.Sealed = append(e.Sealed, audit.SealedRef{Kind: audit.KindCredential, ID: c.ID, Digest: digest[:]})
	if c.Seal, err = w.change(e, c.Row(w.installation)); err != nil {
		return err
	}
	w.seals++
	w.put(func(ctx context.Context, tx storage.Tx) (bool, error) { return tx.PutCredential(ctx, c) })
	return nil
}

// flush writes what there is, once it is enough or when it is all. While one batch
// is being written the next is made.
func (w *writer) flush(ctx context.Context, all bool) error {
	if len(w.lines) >= batch || all && len(w.lines) > 0 {
		lines, err := w.extend()
		if err := or(err, w.wait()); err != nil {
			return err
		}
		if n := w.seals; n > 0 {
			w.put(func(ctx context.Context, tx storage.Tx) (bool, error) {
				_, ok, err := tx.ReserveSeals(ctx, w.sealing, n)
				return ok, err
			})
		}
		puts := w.puts
		w.lines, w.puts, w.seals, w.writing = nil, nil, 0, make(chan error, 1)
		go func() { w.writing <- w.store.Update(ctx, w.organization, write(puts, lines)) }()
	}
	if all {
		return w.wait()
	}
	return nil
}

// wait waits until nothing is being written.
func (w *writer) wait() error {
	if w.writing == nil {
		return nil
	}
	err := <-w.writing
	w.writing = nil
	if err == nil && w.progress != nil {
		w.progress(w.size)
	}
	return err
}

// extend makes the lines that there are, and the head that follows them.
func (w *writer) extend() (a storage.Append, err error) {
	events := make([]audit.Event, len(w.lines))
	a.Lines = make([]audit.Line, len(w.lines))
	for i, l := range w.lines {
		events[i] = l.Event
		events[i].Seq = w.size + int64(i)
		if l.personal.IsZero() {
			continue
		}
		l.personal.Salt = audit.NewSalt()
		if a.Lines[i].Personal, err = l.personal.Encode(); err != nil {
			return a, err
		}
		events[i].Personal = audit.HashPersonal(a.Lines[i].Personal)
	}
	x, err := audit.Extend(w.head, w.tree, events, w.signer)
	if err != nil {
		return a, err
	}
	for i := range a.Lines {
		a.Lines[i].Seq, a.Lines[i].Content, a.Lines[i].Leaf = events[i].Seq, x.Contents[i], x.Leaves[i]
	}
	a.Head, a.Keep = x.Head, true
	a.Seal, err = w.rows.Seal(storage.HeadRow(w.installation, w.organization, x.Head))
	w.head, w.tree, w.size = x.Head, x.Tree, x.Head.Size
	return a, err
}

// write puts rows and appends lines.
func write(puts []func(context.Context, storage.Tx) (bool, error), lines storage.Append) func(context.Context, storage.Tx) error {
	return func(ctx context.Context, tx storage.Tx) error {
		for _, put := range puts {
			ok, err := put(ctx, tx)
			if err != nil {
				return err
			}
			if !ok {
				return fmt.Errorf("seed: a row is not as it was")
			}
		}
		return tx.Append(ctx, lines)
	}
}

// Index has the log's index catch up with it, which a search would do otherwise.
func Index(ctx context.Context, s storage.Store, organization string) error {
	_, err := s.Events(ctx, organization, storage.EventQuery{Filter: audit.Filter{Outcome: audit.OutcomeFailed}, Limit: 1})
	return err
}
