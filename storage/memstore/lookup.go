package memstore

import (
	"cmp"
	"context"
	"slices"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// FindKey implements storage.Store.
func (s *Store) FindKey(ctx context.Context, digest []byte) (storage.Key, bool, error) {
	if err := s.enter(ctx); err != nil {
		return storage.Key{}, false, err
	}
	committed := s.root.Load()
	place, ok := committed.keys.get(string(digest))
	if !ok {
		return storage.Key{}, false, nil
	}
	o, _ := committed.organizations.get(place.organization)
	k, _ := o.keys.get(place.id)
	return *copyKey(*k), true, nil
}

// FindRecord implements storage.Store.
func (s *Store) FindRecord(ctx context.Context, kind, id string) ([]string, error) {
	if err := s.enter(ctx, kind, id); err != nil {
		return nil, err
	}
	return s.root.Load().recordHolders(kind, id), nil
}

// Organizations implements storage.Store.
func (s *Store) Organizations(ctx context.Context, after string, limit int) ([]string, error) {
	if err := cmp.Or(s.enter(ctx, after), checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []string
	for id, o := range s.root.Load().organizations.ascend(after) {
		if len(found) == limit {
			break
		}
		if id != after && o.lines.size > 0 {
			found = append(found, id)
		}
	}
	return found, nil
}

// Lease implements storage.Store. Taking a delivery counts as an attempt.
func (s *Store) Lease(ctx context.Context, q storage.LeaseQuery) ([]storage.Delivery, error) {
	if err := cmp.Or(s.enter(ctx, q.Node), checkLimit(q.Limit)); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isClosed() {
		return nil, storage.ErrClosed
	}
	committed := s.root.Load()
	next := *committed
	var taken []storage.Delivery
	for _, d := range committed.queue.ascend("") {
		if d.NextAt > q.Now || len(taken) == q.Limit {
			break
		}
		if d.LeaseUntil > q.Now {
			continue
		}
		leased := *d
		leased.LeaseUntil, leased.LeaseNode = q.Until, q.Node
		leased.Attempts++
		next.replaceDelivery(d, &leased)
		taken = append(taken, *copyDelivery(leased))
	}
	s.root.Store(&next)
	return taken, nil
}

// Due implements storage.Store.
func (s *Store) Due(ctx context.Context, now int64, limit int) ([]storage.Due, error) {
	if err := cmp.Or(s.enter(ctx), checkLimit(limit)); err != nil {
		return nil, err
	}
	var found []storage.Due
	for _, o := range s.root.Load().organizations.ascend("") {
		n := 0
		for _, d := range o.ends.ascend("") {
			if d.At > now || n == limit {
				break
			}
			found = append(found, *d)
			n++
		}
	}
	slices.SortStableFunc(found, func(a, b storage.Due) int { return cmp.Compare(a.At, b.At) })
	return found[:min(limit, len(found))], nil
}

// Events implements storage.Store.
func (s *Store) Events(ctx context.Context, organization string, q storage.EventQuery) (storage.EventPage, error) {
	if err := cmp.Or(s.enter(ctx, organization), q.Check()); err != nil {
		return storage.EventPage{}, err
	}
	o, ok := s.root.Load().organizations.get(organization)
	if !ok {
		return storage.EventPage{}, nil
	}
	return o.events(ctx, q)
}
