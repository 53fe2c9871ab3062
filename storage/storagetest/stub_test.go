package storagetest_test

import (
	"context"
	"errors"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

var errStub = errors.New("not implemented")

// stub is a store as its author begins: every method is there and none does
// anything. It answers err everywhere.
type stub struct {
	err error
	run bool // fn is run, with a Tx that is a stub as well
}

func (s stub) Update(ctx context.Context, _ string, fn updateFn) error {
	if s.run {
		return errors.Join(fn(ctx, stubTx(s)), s.err)
	}
	return s.err
}

func (s stub) View(ctx context.Context, _ string, fn viewFn) error {
	if s.run {
		return errors.Join(fn(ctx, stubTx(s)), s.err)
	}
	return s.err
}

func (s stub) FindKey(context.Context, []byte) (k storage.Key, ok bool, err error) {
	return k, false, s.err
}

func (s stub) FindRecord(context.Context, string, string) ([]string, error) { return nil, s.err }

func (s stub) Organizations(context.Context, string, int) ([]string, error) { return nil, s.err }

func (s stub) Lease(context.Context, storage.LeaseQuery) ([]storage.Delivery, error) {
	return nil, s.err
}

func (s stub) Due(context.Context, int64, int) ([]storage.Due, error) { return nil, s.err }

func (s stub) Events(context.Context, string, storage.EventQuery) (p storage.EventPage, err error) {
	return p, s.err
}

func (s stub) Close() error { return nil }

type stubTx stub

func (t stubTx) Organization(context.Context) (o storage.Organization, ok bool, err error) {
	return o, false, t.err
}

func (t stubTx) Agents(context.Context, storage.AgentQuery) (p storage.AgentPage, err error) {
	return p, t.err
}

func (t stubTx) Keys(context.Context, storage.KeyQuery) ([]storage.Key, error) { return nil, t.err }

func (t stubTx) Tools(context.Context, storage.ToolQuery) (p storage.ToolPage, err error) {
	return p, t.err
}

func (t stubTx) Credentials(context.Context, []storage.CredentialRef) ([]storage.Credential, error) {
	return nil, t.err
}

func (t stubTx) Grants(context.Context, storage.GrantQuery) (p storage.GrantPage, err error) {
	return p, t.err
}

func (t stubTx) Approvals(context.Context, []string) ([]grants.Approval, error) { return nil, t.err }
func (t stubTx) DataKeys(context.Context) ([]storage.DataKey, error)            { return nil, t.err }
func (t stubTx) Head(context.Context) (h storage.Head, err error)               { return h, t.err }
func (t stubTx) Lines(context.Context, int64, int) ([]audit.Line, error)        { return nil, t.err }

func (t stubTx) Checkpoints(context.Context, int64, int) ([]storage.Checkpoint, error) {
	return nil, t.err
}

func (t stubTx) Record(context.Context, string, string) (r storage.Record, ok bool, err error) {
	return r, false, t.err
}

func (t stubTx) ScanRecords(context.Context, storage.Scan) ([]storage.Record, error) {
	return nil, t.err
}

func (t stubTx) Windows(context.Context, []storage.WindowRef) ([]storage.Window, error) {
	return nil, t.err
}

func (t stubTx) PutOrganization(context.Context, storage.Organization) (bool, error) {
	return false, t.err
}
func (t stubTx) PutAgent(context.Context, storage.Agent) (bool, error)           { return false, t.err }
func (t stubTx) PutKey(context.Context, storage.Key) (bool, error)               { return false, t.err }
func (t stubTx) PutTool(context.Context, storage.Tool) (bool, error)             { return false, t.err }
func (t stubTx) DeleteTool(context.Context, string, int64) (bool, error)         { return false, t.err }
func (t stubTx) PutCredential(context.Context, storage.Credential) (bool, error) { return false, t.err }
func (t stubTx) DeleteCredential(context.Context, string, int64) (bool, error)   { return false, t.err }
func (t stubTx) PutGrant(context.Context, grants.Grant) (bool, error)            { return false, t.err }
func (t stubTx) PutApproval(context.Context, grants.Approval) (bool, error)      { return false, t.err }
func (t stubTx) PutDataKey(context.Context, storage.DataKey) (bool, error)       { return false, t.err }
func (t stubTx) PutRecord(context.Context, storage.Record) (bool, error)         { return false, t.err }

func (t stubTx) ReserveSeals(context.Context, string, int64) (int64, bool, error) {
	return 0, false, t.err
}

func (t stubTx) DeleteRecord(context.Context, string, string, int64) (bool, error) {
	return false, t.err
}

func (t stubTx) Append(context.Context, storage.Append) error             { return t.err }
func (t stubTx) Erase(context.Context, []storage.Erasure) error           { return t.err }
func (t stubTx) Enqueue(context.Context, []storage.Delivery) error        { return t.err }
func (t stubTx) PutWindows(context.Context, []storage.Window) error       { return t.err }
func (t stubTx) Settle(context.Context, storage.Settlement) (bool, error) { return false, t.err }
