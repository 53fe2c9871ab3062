package faultstore

import (
	"context"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// gate is what every method of one transaction passes. It keeps the clause
// poison: after the first error nothing succeeds, and nothing is kept.
type gate struct {
	store *Store
	err   error // what the transaction will answer
	ended bool  // it is over: the wrapped one answers storage.ErrClosed
}

// pass counts a method and answers its fault. doomed is set when the method is
// to succeed as the last one.
func (g *gate) pass(ctx context.Context, name string) (doomed bool, err error) {
	switch {
	case g.ended:
		return false, nil
	case g.err != nil:
		return false, fmt.Errorf("faultstore: %w", storage.ErrPoisoned)
	}
	switch k := g.store.next(name); k {
	case 0:
		return false, nil
	case Poisoned:
		return true, nil
	default:
		g.err = fail(ctx, k)
		return false, g.err
	}
}

// end notes what came of a method.
func (g *gate) end(doomed bool, err error) {
	switch {
	case err != nil:
		g.err = err
	case doomed:
		g.err = fmt.Errorf("faultstore: %w", storage.ErrPoisoned)
	}
}

func none(ctx context.Context, g *gate, name string, call func() error) error {
	doomed, err := g.pass(ctx, name)
	if err != nil {
		return err
	}
	err = call()
	g.end(doomed, err)
	return err
}

func one[A any](ctx context.Context, g *gate, name string, call func() (A, error)) (a A, err error) {
	err = none(ctx, g, name, func() (err error) {
		a, err = call()
		return err
	})
	return a, err
}

func two[A, B any](ctx context.Context, g *gate, name string, call func() (A, B, error)) (a A, b B, err error) {
	err = none(ctx, g, name, func() (err error) {
		a, b, err = call()
		return err
	})
	return a, b, err
}

// reader implements storage.ReadTx.
type reader struct {
	storage.ReadTx
	gate *gate
}

// writer implements storage.Tx.
type writer struct {
	storage.Tx
	reader reader
}

func (r *reader) Organization(ctx context.Context) (storage.Organization, bool, error) {
	return two(ctx, r.gate, "Organization", func() (storage.Organization, bool, error) { return r.ReadTx.Organization(ctx) })
}

func (r *reader) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	return one(ctx, r.gate, "Agents", func() (storage.AgentPage, error) { return r.ReadTx.Agents(ctx, q) })
}

func (r *reader) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	return one(ctx, r.gate, "Keys", func() ([]storage.Key, error) { return r.ReadTx.Keys(ctx, q) })
}

func (r *reader) Tools(ctx context.Context, q storage.ToolQuery) (storage.ToolPage, error) {
	return one(ctx, r.gate, "Tools", func() (storage.ToolPage, error) { return r.ReadTx.Tools(ctx, q) })
}

func (r *reader) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	return one(ctx, r.gate, "Credentials", func() ([]storage.Credential, error) { return r.ReadTx.Credentials(ctx, refs) })
}

func (r *reader) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	return one(ctx, r.gate, "Grants", func() (storage.GrantPage, error) { return r.ReadTx.Grants(ctx, q) })
}

func (r *reader) Approvals(ctx context.Context, ids []string) ([]grants.Approval, error) {
	return one(ctx, r.gate, "Approvals", func() ([]grants.Approval, error) { return r.ReadTx.Approvals(ctx, ids) })
}

func (r *reader) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	return one(ctx, r.gate, "DataKeys", func() ([]storage.DataKey, error) { return r.ReadTx.DataKeys(ctx) })
}

func (r *reader) Head(ctx context.Context) (storage.Head, error) {
	return one(ctx, r.gate, "Head", func() (storage.Head, error) { return r.ReadTx.Head(ctx) })
}

func (r *reader) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	return one(ctx, r.gate, "Lines", func() ([]audit.Line, error) { return r.ReadTx.Lines(ctx, from, limit) })
}

func (r *reader) Checkpoints(ctx context.Context, after int64, limit int) ([]storage.Checkpoint, error) {
	return one(ctx, r.gate, "Checkpoints", func() ([]storage.Checkpoint, error) { return r.ReadTx.Checkpoints(ctx, after, limit) })
}

func (r *reader) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	return two(ctx, r.gate, "Record", func() (storage.Record, bool, error) { return r.ReadTx.Record(ctx, kind, id) })
}

func (r *reader) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	return one(ctx, r.gate, "ScanRecords", func() ([]storage.Record, error) { return r.ReadTx.ScanRecords(ctx, s) })
}

func (r *reader) Windows(ctx context.Context, refs []storage.WindowRef) ([]storage.Window, error) {
	return one(ctx, r.gate, "Windows", func() ([]storage.Window, error) { return r.ReadTx.Windows(ctx, refs) })
}

func (w *writer) Organization(ctx context.Context) (storage.Organization, bool, error) {
	return w.reader.Organization(ctx)
}

func (w *writer) Agents(ctx context.Context, q storage.AgentQuery) (storage.AgentPage, error) {
	return w.reader.Agents(ctx, q)
}

func (w *writer) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	return w.reader.Keys(ctx, q)
}

func (w *writer) Tools(ctx context.Context, q storage.ToolQuery) (storage.ToolPage, error) {
	return w.reader.Tools(ctx, q)
}

func (w *writer) Credentials(ctx context.Context, refs []storage.CredentialRef) ([]storage.Credential, error) {
	return w.reader.Credentials(ctx, refs)
}

func (w *writer) Grants(ctx context.Context, q storage.GrantQuery) (storage.GrantPage, error) {
	return w.reader.Grants(ctx, q)
}

func (w *writer) Approvals(ctx context.Context, ids []string) ([]grants.Approval, error) {
	return w.reader.Approvals(ctx, ids)
}

func (w *writer) DataKeys(ctx context.Context) ([]storage.DataKey, error) {
	return w.reader.DataKeys(ctx)
}

func (w *writer) Head(ctx context.Context) (storage.Head, error) {
	return w.reader.Head(ctx)
}

func (w *writer) Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error) {
	return w.reader.Lines(ctx, from, limit)
}

func (w *writer) Checkpoints(ctx context.Context, after int64, limit int) ([]storage.Checkpoint, error) {
	return w.reader.Checkpoints(ctx, after, limit)
}

func (w *writer) Record(ctx context.Context, kind, id string) (storage.Record, bool, error) {
	return w.reader.Record(ctx, kind, id)
}

func (w *writer) ScanRecords(ctx context.Context, s storage.Scan) ([]storage.Record, error) {
	return w.reader.ScanRecords(ctx, s)
}

func (w *writer) Windows(ctx context.Context, refs []storage.WindowRef) ([]storage.Window, error) {
	return w.reader.Windows(ctx, refs)
}

func (w *writer) PutOrganization(ctx context.Context, o storage.Organization) (bool, error) {
	return one(ctx, w.reader.gate, "PutOrganization", func() (bool, error) { return w.Tx.PutOrganization(ctx, o) })
}

func (w *writer) PutAgent(ctx context.Context, a storage.Agent) (bool, error) {
	return one(ctx, w.reader.gate, "PutAgent", func() (bool, error) { return w.Tx.PutAgent(ctx, a) })
}

func (w *writer) PutKey(ctx context.Context, k storage.Key) (bool, error) {
	return one(ctx, w.reader.gate, "PutKey", func() (bool, error) { return w.Tx.PutKey(ctx, k) })
}

func (w *writer) PutTool(ctx context.Context, t storage.Tool) (bool, error) {
	return one(ctx, w.reader.gate, "PutTool", func() (bool, error) { return w.Tx.PutTool(ctx, t) })
}

func (w *writer) DeleteTool(ctx context.Context, id string, revision int64) (bool, error) {
	return one(ctx, w.reader.gate, "DeleteTool", func() (bool, error) { return w.Tx.DeleteTool(ctx, id, revision) })
}

func (w *writer) PutCredential(ctx context.Context, c storage.Credential) (bool, error) {
	return one(ctx, w.reader.gate, "PutCredential", func() (bool, error) { return w.Tx.PutCredential(ctx, c) })
}

func (w *writer) DeleteCredential(ctx context.Context, id string, revision int64) (bool, error) {
	return one(ctx, w.reader.gate, "DeleteCredential", func() (bool, error) { return w.Tx.DeleteCredential(ctx, id, revision) })
}

func (w *writer) PutGrant(ctx context.Context, g grants.Grant) (bool, error) {
	return one(ctx, w.reader.gate, "PutGrant", func() (bool, error) { return w.Tx.PutGrant(ctx, g) })
}

func (w *writer) PutApproval(ctx context.Context, a grants.Approval) (bool, error) {
	return one(ctx, w.reader.gate, "PutApproval", func() (bool, error) { return w.Tx.PutApproval(ctx, a) })
}

func (w *writer) PutDataKey(ctx context.Context, k storage.DataKey) (bool, error) {
	return one(ctx, w.reader.gate, "PutDataKey", func() (bool, error) { return w.Tx.PutDataKey(ctx, k) })
}

func (w *writer) ReserveSeals(ctx context.Context, id string, n int64) (int64, bool, error) {
	return two(ctx, w.reader.gate, "ReserveSeals", func() (int64, bool, error) { return w.Tx.ReserveSeals(ctx, id, n) })
}

func (w *writer) Append(ctx context.Context, a storage.Append) error {
	return none(ctx, w.reader.gate, "Append", func() error { return w.Tx.Append(ctx, a) })
}

func (w *writer) Erase(ctx context.Context, es []storage.Erasure) error {
	return none(ctx, w.reader.gate, "Erase", func() error { return w.Tx.Erase(ctx, es) })
}

func (w *writer) PutRecord(ctx context.Context, r storage.Record) (bool, error) {
	return one(ctx, w.reader.gate, "PutRecord", func() (bool, error) { return w.Tx.PutRecord(ctx, r) })
}

func (w *writer) DeleteRecord(ctx context.Context, kind, id string, revision int64) (bool, error) {
	return one(ctx, w.reader.gate, "DeleteRecord", func() (bool, error) { return w.Tx.DeleteRecord(ctx, kind, id, revision) })
}

func (w *writer) Enqueue(ctx context.Context, ds []storage.Delivery) error {
	return none(ctx, w.reader.gate, "Enqueue", func() error { return w.Tx.Enqueue(ctx, ds) })
}

func (w *writer) Settle(ctx context.Context, x storage.Settlement) (bool, error) {
	return one(ctx, w.reader.gate, "Settle", func() (bool, error) { return w.Tx.Settle(ctx, x) })
}

func (w *writer) PutWindows(ctx context.Context, ws []storage.Window) error {
	return none(ctx, w.reader.gate, "PutWindows", func() error { return w.Tx.PutWindows(ctx, ws) })
}
