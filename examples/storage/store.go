package filestore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Store keeps its database in one file. It is safe for concurrent use by many
// goroutines of one process. Updates of all organizations run one after another.
type Store struct {
	path      string
	committed atomic.Pointer[database] // never changed once it is here
	head      chan struct{}            // filled by the one Update that runs
	closed    atomic.Bool
}

// database is all that the file holds, by organization.
type database map[string]*organization

// organization is what belongs to one. Rows are by their id, or by the parts of
// their identity, joined with NUL, which no text holds.
type organization struct {
	Row         storage.Organization
	Agents      map[string]storage.Agent
	Keys        map[string]storage.Key
	Tools       map[string]storage.Tool
	Credentials map[string]storage.Credential
	Grants      map[string]grants.Grant
	Approvals   map[string]grants.Approval
	DataKeys    map[string]storage.DataKey
	Records     map[string]storage.Record
	Windows     map[string]storage.Window
	Outbox      map[string]storage.Delivery
	Head        storage.Head
	Lines       []audit.Line
	Checkpoints []storage.Checkpoint
}

func newOrganization() *organization {
	return &organization{
		Agents: map[string]storage.Agent{}, Keys: map[string]storage.Key{}, Tools: map[string]storage.Tool{},
		Credentials: map[string]storage.Credential{}, Grants: map[string]grants.Grant{}, Approvals: map[string]grants.Approval{},
		DataKeys: map[string]storage.DataKey{}, Records: map[string]storage.Record{}, Windows: map[string]storage.Window{},
		Outbox: map[string]storage.Delivery{},
	}
}

// copy is one whose maps can be changed. Rows themselves are only ever replaced,
// so that both may share them.
func (o organization) copy() *organization {
	o.Agents, o.Keys, o.Tools = maps.Clone(o.Agents), maps.Clone(o.Keys), maps.Clone(o.Tools)
	o.Credentials, o.Grants, o.Approvals = maps.Clone(o.Credentials), maps.Clone(o.Grants), maps.Clone(o.Approvals)
	o.DataKeys, o.Records, o.Windows = maps.Clone(o.DataKeys), maps.Clone(o.Records), maps.Clone(o.Windows)
	o.Outbox, o.Lines, o.Checkpoints = maps.Clone(o.Outbox), slices.Clone(o.Lines), slices.Clip(o.Checkpoints)
	return &o
}

// Open reads the file, or begins a new one.
func Open(path string) (*Store, error) {
	db := database{}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	default:
		if err := json.Unmarshal(b, &db); err != nil {
			return nil, fmt.Errorf("%w: the file is not a database", storage.ErrCorrupt)
		}
		for _, o := range db {
			if o == nil {
				return nil, fmt.Errorf("%w: organization without rows", storage.ErrCorrupt)
			}
		}
	}
	s := &Store{path: path, head: make(chan struct{}, 1)}
	s.committed.Store(&db)
	return s, nil
}

// Close ends the store. An Update that runs still ends, but isn't committed.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

// save makes db the state of the store. What it replaces stays whole until the
// new file stands in its place.
func (s *Store) save(db *database) error {
	b, err := json.Marshal(db)
	if err != nil {
		return fmt.Errorf("%w: %w", storage.ErrInvalid, err)
	}
	if err := writeSynced(s.path+".new", b); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	if err := os.Rename(s.path+".new", s.path); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnavailable, err)
	}
	s.committed.Store(db)
	if err := syncDirectory(filepath.Dir(s.path)); err != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnknown, err) // done, but perhaps not for good
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// clone is a copy that shares nothing with v.
func clone[T any](v T) T {
	var c T
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		panic(err) // rows are strings, numbers and bytes; their text was checked
	}
	return c
}

// inside marks the context that a running fn was given.
type inside struct{}

func (s *Store) begin(ctx context.Context, texts ...string) error {
	if s.closed.Load() {
		return storage.ErrClosed
	}
	return cmp.Or(ctx.Err(), storage.CheckText(texts...))
}

func (s *Store) beginTx(ctx context.Context, org string) error {
	if err := s.begin(ctx, org); err != nil {
		return err
	}
	if ctx.Value(inside{}) != nil {
		return storage.ErrNested
	}
	if org == "" {
		return fmt.Errorf("%w: no organization", storage.ErrInvalid)
	}
	return nil
}

// takeHead waits until no other Update runs.
func (s *Store) takeHead(ctx context.Context) error {
	patience := time.NewTimer(storage.UpdateTime)
	defer patience.Stop()
	select {
	case s.head <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-patience.C:
		return storage.ErrBusy
	}
}

// Update implements storage.Store.
func (s *Store) Update(ctx context.Context, org string, fn func(context.Context, storage.Tx) error) error {
	if err := s.beginTx(ctx, org); err != nil {
		return err
	}
	if err := s.takeHead(ctx); err != nil {
		return err
	}
	defer func() { <-s.head }()
	db := maps.Clone(*s.committed.Load()) // after the wait: fn sees what those before it did
	if db[org] == nil {
		db[org] = newOrganization()
	}
	db[org] = db[org].copy()
	t := &tx{reader{db: db, org: db[org], name: org}}
	defer t.done.Store(true)
	if err := fn(context.WithValue(ctx, inside{}, true), t); err != nil {
		return err
	}
	if t.failed != nil {
		return t.failed
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	return s.save(&db)
}

// View implements storage.Store.
func (s *Store) View(ctx context.Context, org string, fn func(context.Context, storage.ReadTx) error) error {
	if err := s.beginTx(ctx, org); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storage.ViewTime)
	defer cancel()
	r := &reader{db: *s.committed.Load(), org: s.organization(org), name: org}
	defer r.done.Store(true)
	if err := fn(context.WithValue(ctx, inside{}, true), r); err != nil {
		return err
	}
	return cmp.Or(r.failed, ctx.Err())
}

// organization is the committed state of one; that of an unknown one is empty.
func (s *Store) organization(org string) *organization {
	if o, ok := (*s.committed.Load())[org]; ok {
		return o
	}
	return &organization{}
}

// FindKey implements storage.Store.
func (s *Store) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	if err := s.begin(ctx); err != nil {
		return storage.Key{}, false, err
	}
	for _, o := range *s.committed.Load() {
		for _, k := range o.Keys {
			if bytes.Equal(k.Digest, digest) {
				return clone(k), true, nil
			}
		}
	}
	return storage.Key{}, false, nil
}

// FindRecord implements storage.Store.
func (s *Store) FindRecord(ctx context.Context, kind, id string) ([]string, error) {
	if err := s.begin(ctx, kind, id); err != nil {
		return nil, err
	}
	var found []string
	for name, o := range *s.committed.Load() {
		if _, ok := o.Records[join(kind, id)]; ok && len(found) < 2 {
			found = append(found, name)
		}
	}
	return found, nil
}

// Organizations implements storage.Store.
func (s *Store) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	if err := cmp.Or(s.begin(ctx, after), checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []string
	db := *s.committed.Load()
	for _, name := range slices.Sorted(maps.Keys(db)) {
		if name > after && len(db[name].Lines) > 0 && len(found) < limit {
			found = append(found, name)
		}
	}
	return found, nil
}

// Lease implements storage.Store.
func (s *Store) Lease(ctx context.Context, q storage.LeaseQuery) ([]storage.Delivery, error) {
	if err := cmp.Or(s.begin(ctx, q.Node), checkLimit(q.Limit)); err != nil {
		return nil, err
	}
	if err := s.takeHead(ctx); err != nil {
		return nil, err
	}
	defer func() { <-s.head }()
	db := maps.Clone(*s.committed.Load())
	var due []storage.Delivery
	for name, o := range db {
		db[name] = o.copy()
		for _, d := range o.Outbox {
			if d.State != storage.DeliveryDead && d.NextAt <= q.Now && d.LeaseUntil <= q.Now {
				due = append(due, d)
			}
		}
	}
	slices.SortFunc(due, func(a, b storage.Delivery) int { return cmp.Compare(a.NextAt, b.NextAt) })
	due = due[:min(q.Limit, len(due))]
	for i := range due {
		d := &due[i]
		d.LeaseUntil, d.LeaseNode, d.Attempts = q.Until, q.Node, d.Attempts+1
		db[d.Organization].Outbox[d.ID] = *d
	}
	if len(due) == 0 {
		return nil, nil
	}
	return clone(due), s.save(&db)
}

// Due implements storage.Store.
func (s *Store) Due(ctx context.Context, now int64, limit int) ([]storage.Due, error) {
	if err := cmp.Or(s.begin(ctx), checkLimit(limit)); err != nil {
		return nil, err
	}
	var due []storage.Due
	add := func(active bool, d storage.Due) {
		if active && d.At != 0 && d.At <= now {
			due = append(due, d)
		}
	}
	for name, o := range *s.committed.Load() {
		for _, g := range o.Grants {
			add(g.Status == grants.StatusApproved, storage.Due{Organization: name, Kind: audit.KindGrant, ID: g.ID, Agent: g.Agent, Tool: g.Tool, At: g.ExpiresAt})
		}
		for _, k := range o.Keys {
			add(k.Status == storage.KeyActive, storage.Due{Organization: name, Kind: audit.KindKey, ID: k.ID, Agent: k.Agent, At: k.ExpiresAt})
		}
		for _, c := range o.Credentials {
			add(c.Status == storage.CredentialActive, storage.Due{Organization: name, Kind: audit.KindCredential, ID: c.ID, Tool: c.Tool, Grant: c.Grant, At: c.ExpiresAt})
		}
	}
	slices.SortFunc(due, func(a, b storage.Due) int { return cmp.Compare(a.At, b.At) })
	return due[:min(limit, len(due))], nil
}

// Events implements storage.Store.
func (s *Store) Events(ctx context.Context, org string, q storage.EventQuery) (page storage.EventPage, err error) {
	if err := cmp.Or(s.begin(ctx, org), q.Check()); err != nil {
		return page, err
	}
	for _, line := range slices.Backward(s.organization(org).Lines) {
		if line.Content == nil || !q.Count && q.Before > 0 && line.Seq >= q.Before {
			continue
		}
		event, err := audit.Parse(line.Content)
		if err != nil {
			return storage.EventPage{}, fmt.Errorf("%w: line %d", storage.ErrCorrupt, line.Seq)
		}
		switch {
		case !q.Filter.Match(&event):
		case q.Count:
			page.Count++
			page.Latest = max(page.Latest, event.Time)
		case len(page.Lines) == q.Limit:
			page.Next = page.Lines[q.Limit-1].Seq
			return page, nil
		default:
			page.Lines = append(page.Lines, clone(line))
		}
	}
	return page, nil
}
