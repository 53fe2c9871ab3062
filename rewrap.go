package agentkey

import (
	"bytes"
	"context"
	"errors"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// continueRewrap carries out what RewrapDataKeys asked for, if this process's
// provider has the key that was asked for.
func (m *Manager) continueRewrap(ctx context.Context) (done bool, err error) {
	job, err := lookUp[rotationPayload](ctx, m, storage.System, rewrap.kind, rewrap.id)
	if err != nil || job.Requested == 0 {
		return err == nil, err
	}
	current, err := m.keys.current(ctx)
	if err != nil || current != job.Provider || m.keys.ownKeys() != job.Own {
		return false, err
	}
	w := &rewrapper{m: m, job: job, lease: &lease{m: m, work: "rewrap"}}
	if err := w.run(ctx); err != nil {
		return false, notMine(err)
	}
	return true, nil
}

// rewrapper wraps data keys anew. It needs no cursor: what is done names the
// provider's current key.
type rewrapper struct {
	m        *Manager
	job      rotationPayload
	lease    *lease
	progress progressPayload
	failed   error
}

func (w *rewrapper) run(ctx context.Context) error {
	if err := w.lease.keep(ctx); err != nil {
		return err
	}
	if err := w.count(ctx); err != nil {
		return err
	}
	err := w.m.eachOrganization(ctx, func(id string) error {
		err := w.organization(ctx, id)
		if errors.Is(err, errNotMine) || errors.Is(err, ErrKeys) || ctx.Err() != nil {
			return err
		}
		w.failed = errors.Join(w.failed, err) // one that is damaged keeps no other waiting
		return nil
	})
	if err = errors.Join(err, w.failed); err != nil {
		return err
	}
	err = w.m.commit(ctx, &operation{organization: storage.System, needs: needs{records: []recordRef{rewrap}}, decide: func(u *unit) error {
		e := u.event(system, audit.ActionRewrapCompleted)
		e.Target = audit.Ref{Kind: audit.KindOrganization, ID: storage.System}
		e.Details, e.Count = map[string]string{"provider": w.job.Provider}, w.progress.Done
		return u.finish(rewrap, w.job.Requested, e)
	}})
	if err != nil {
		return err
	}
	return w.report(ctx)
}

func (w *rewrapper) report(ctx context.Context) error {
	w.progress.Done = min(w.progress.Done, w.progress.Total)
	return w.m.report(ctx, storage.System, rewrap, w.progress)
}

// count counts the data keys of all organizations.
func (w *rewrapper) count(ctx context.Context) error {
	w.progress = progressPayload{Requested: w.job.Requested}
	err := w.m.eachOrganization(ctx, func(id string) error {
		keys, err := w.m.dataKeys(ctx, id)
		for _, d := range keys {
			if d.State != vault.KeyDestroyed {
				w.progress.Total++
				if !w.own(id, d) && d.Provider == w.job.Provider {
					w.progress.Done++
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return w.report(ctx)
}

// own says whether a data key is wrapped by its organization's own key. Whether it is
// wrapped by the present one, only the provider knows.
func (w *rewrapper) own(organization string, d storage.DataKey) bool {
	return w.job.Own && organization != storage.System && d.Purpose == vault.PurposeSeal
}

// dataKeys reads the rows of an organization's data keys, as they stand.
func (m *Manager) dataKeys(ctx context.Context, organization string) (keys []storage.DataKey, err error) {
	ctx, cancel := reading(ctx)
	defer cancel()
	err = m.store.View(ctx, organization, func(ctx context.Context, tx storage.ReadTx) (err error) {
		keys, err = tx.DataKeys(ctx)
		return err
	})
	return keys, storageError(err)
}

// organization wraps the data keys of one: before the head is taken, and written
// where the row is still what was read.
func (w *rewrapper) organization(ctx context.Context, id string) error {
	keys, err := w.m.dataKeys(ctx, id)
	if err != nil {
		return err
	}
	wrappers, err := w.m.keys.wrappers(ctx, id, w.job.Provider)
	if err != nil {
		return err
	}
	next := make(map[string]storage.DataKey)
	for _, d := range keys {
		if d.State != vault.KeyDestroyed && d.Provider == wrappers[d.Purpose] && w.own(id, d) {
			w.progress.Done++ // which count could not tell
		}
		if d.State == vault.KeyDestroyed || d.Provider == wrappers[d.Purpose] {
			continue
		}
		if err := w.lease.keep(ctx); err != nil {
			return err
		}
		d.Organization = id
		if next[d.ID], err = w.m.keys.rewrap(ctx, d); err != nil {
			return err
		}
	}
	if len(next) == 0 {
		return nil
	}
	moved := int64(0)
	err = w.m.commit(ctx, &operation{organization: id, needs: needs{recordKinds: []string{kindOuterKey}, ended: true}, decide: func(u *unit) error {
		moved = 0
		for _, d := range u.dataKeys {
			n, ok := next[d.ID]
			if !ok || n.Revision != d.Revision+1 {
				continue
			}
			moved++
			if err := u.rewrapped(d, n); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	w.progress.Done += moved
	if moved < int64(len(next)) {
		return w.organization(ctx, id) // some were retired meanwhile
	}
	return w.report(ctx)
}

// rewrapped writes a data key that was wrapped anew, and remembers the key that
// wrapped it before: copies of the row in backups are of that.
func (u *unit) rewrapped(before, after storage.DataKey) error {
	e := u.event(system, audit.ActionDataKeyRewrapped)
	e.Target = audit.Ref{Kind: audit.KindDataKey, ID: after.ID}
	e.Details = map[string]string{"purpose": string(after.Purpose), "provider": after.Provider, "previous": before.Provider}
	after.State, after.Reserved = before.State, before.Reserved
	if err := u.putDataKey(e, after); err != nil {
		return err
	}
	return u.outer(e, before.Provider)
}

// kindOuterKey is the kind of the records that name the provider's keys which have
// wrapped data keys of an organization and wrap them no more.
const kindOuterKey = "outer_key"

func (u *unit) outer(e *entry, provider string) error {
	if _, ok := u.records[recordRef{kindOuterKey, provider}]; ok {
		return nil
	}
	return u.putPayload(e, storage.Record{Kind: kindOuterKey, ID: provider, Revision: 1}, struct {
		Until int64 `json:"until"`
	}{u.now})
}

// rewrap wraps a data key by the provider's current key. It uses the key that is
// held in memory, where it is; the row that it gives is not sealed yet.
func (k *keyring) rewrap(ctx context.Context, d storage.DataKey) (storage.DataKey, error) {
	r, err := k.acquire(ctx, d.Organization, false)
	if err == nil && r.keys[d.ID] == nil { // it was made after those that are held
		r.release()
		r, err = k.acquire(ctx, d.Organization, true)
	}
	if err != nil {
		return d, err
	}
	defer r.release()
	if r.keys[d.ID] == nil {
		return d, &integrityError{kind: audit.KindDataKey, id: d.ID}
	}
	bounded, cancel := k.bounded(ctx)
	defer cancel()
	wrapper, _ := k.wrapper(d.Organization, d.Purpose)
	wrapped, err := vault.Wrap(bounded, wrapper, r.keys[d.ID], vault.Context{
		Installation: k.installation, Organization: d.Organization, Purpose: string(d.Purpose), Key: d.ID,
	})
	if err != nil {
		return d, keyError(err)
	}
	d.Provider, d.Wrapped, d.Revision = wrapped.Provider, bytes.Clone(wrapped.Blob), d.Revision+1
	return d, nil
}
