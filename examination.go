package agentkey

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// examined is an organization whose keys and seals are examined. It unwraps keys
// of its own, one by one: one that is damaged hides nothing else.
type examined struct {
	*diagnosis
	id     string
	rows   []storage.DataKey         // as last read
	seen   map[string]bool           // data keys that were looked at
	keys   map[string]*vault.DataKey // those of them that unwrap
	ring   *ring                     // over keys
	wraps  map[vault.Purpose]string  // the provider's keys that wrap now
	sealed map[string]int64          // values found, by data key
	batch  []sealedValue             // to be opened when the page is read
	sample []rowRef                  // of values to be opened at last
}

func (o *examined) find(kind, id, problem string) { o.diagnosis.find(o.id, kind, id, problem) }

func (o *examined) examine(ctx context.Context) error {
	how := strconv.Itoa(o.in.Sample)
	if o.in.All {
		how = "all"
	}
	err := o.record(ctx, o.id, func(e *entry) {
		e.Target, e.Details = audit.Ref{Kind: audit.KindOrganization, ID: o.id}, map[string]string{"opened": how}
	})
	if err != nil {
		return err
	}
	if err := o.load(ctx); err != nil || o.ring == nil {
		return err
	}
	if err := o.head(ctx); err != nil {
		return err
	}
	walk := rowWalk{organization: o.id, page: o.page, check: o.check, sealed: o.value}
	if err := walk.run(ctx); err != nil {
		return err
	}
	if err := o.openSample(ctx); err != nil {
		return err
	}
	return o.counters(ctx)
}

// destroyed says whether nothing of the organization can be opened any more, by
// what the rows of its data keys say, whose seals are looked at like all others.
func (o *examined) destroyed() bool {
	n := 0
	for _, d := range o.rows {
		if d.Purpose == vault.PurposeSeal {
			if d.State != vault.KeyDestroyed {
				return false
			}
			n++
		}
	}
	return n > 0
}

// read gives fn a consistent read, and the data keys as they are in it.
func (o *examined) read(ctx context.Context, fn func(ctx context.Context, tx storage.ReadTx, keys []storage.DataKey) error) error {
	ctx, cancel := reading(ctx)
	defer cancel()
	err := o.m.store.View(ctx, o.id, func(ctx context.Context, tx storage.ReadTx) error {
		keys, err := tx.DataKeys(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, tx, keys)
	})
	return operationError(err)
}

// load reads the data keys and unwraps those that it has not seen. Without a key
// that seals rows, nothing can be said of what the rows hold.
func (o *examined) load(ctx context.Context) error {
	first := o.rows == nil
	err := o.read(ctx, func(_ context.Context, _ storage.ReadTx, keys []storage.DataKey) error {
		o.rows = keys
		return nil
	})
	if err != nil {
		return err
	}
	if o.wraps, err = o.m.keys.wrappers(ctx, o.id, o.out.Provider); err != nil {
		return err
	}
	for _, d := range o.rows {
		if o.seen[d.ID] {
			continue
		}
		o.seen[d.ID] = true
		if err := o.unwrap(ctx, d); err != nil {
			return err
		}
	}
	if o.ring, err = newRing(o.id, o.m.installation, o.keys, o.rows); err != nil {
		o.ring = nil
		o.find(audit.KindDataKey, o.id, "no key that seals rows is at hand: no row and no value was looked at")
		return nil
	}
	if first && o.destroyed() {
		o.out.Destroyed++
	}
	if first {
		o.complete()
	}
	return nil
}

// unwrap looks at one data key.
func (o *examined) unwrap(ctx context.Context, d storage.DataKey) error {
	if d.State == vault.KeyDestroyed {
		return nil
	}
	o.out.DataKeys++
	if d.Provider != o.wraps[d.Purpose] {
		o.out.Rewrap++
	}
	ctx, cancel := context.WithTimeout(ctx, o.m.config.KeyTimeout)
	defer cancel()
	key, err := vault.Unwrap(ctx, o.m.config.Keys, vault.Wrapped{Provider: d.Provider, Blob: d.Wrapped}, d.ID, d.Purpose,
		vault.Context{Installation: o.m.installation, Organization: o.id, Purpose: string(d.Purpose), Key: d.ID})
	switch {
	case err == nil:
		o.keys[d.ID] = key
	case errors.Is(err, vault.ErrWrongKey):
		o.find(audit.KindDataKey, d.ID, "unwraps to a key that has another id")
	case errors.Is(err, vault.ErrUnknownKey): // its text names the ids needed and held
		o.find(audit.KindDataKey, d.ID, "does not unwrap: "+err.Error())
	case errors.Is(err, vault.ErrIntegrity), errors.Is(err, vault.ErrPurpose), errors.Is(err, vault.ErrPlace):
		o.find(audit.KindDataKey, d.ID, "does not unwrap: it was changed, or is of another place")
	default:
		return keyError(err)
	}
	return nil
}

// complete looks whether every purpose has its active key.
func (o *examined) complete() {
	want := []vault.Purpose{vault.PurposeSeal}
	if o.id == storage.System {
		want = append(want, vault.PurposeSign)
	}
	for _, p := range want {
		active := 0
		for _, d := range o.rows {
			if d.Purpose == p && d.State == vault.KeyActive {
				active++
			}
		}
		if active != 1 && !(active == 0 && p == vault.PurposeSeal && o.destroyed()) {
			o.find(audit.KindDataKey, o.id, strconv.Itoa(active)+" active keys of purpose "+string(p)+", where there has to be one")
		}
	}
}

// page gives fn a read whose data keys were all looked at, and opens what it found.
func (o *examined) page(ctx context.Context, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error {
	err := errStale
	for run := 0; run < maxRuns && errors.Is(err, errStale); run++ {
		if run > 0 {
			if err := o.load(ctx); err != nil {
				return err
			}
			if o.ring == nil {
				return &integrityError{kind: audit.KindDataKey, id: o.id}
			}
		}
		err = o.read(ctx, func(ctx context.Context, tx storage.ReadTx, keys []storage.DataKey) error {
			for _, d := range keys {
				if !o.seen[d.ID] {
					return errStale
				}
			}
			o.rows = keys
			return fn(ctx, tx, &unit{state: &state{organization: o.id, installation: o.m.installation, ring: o.ring}})
		})
	}
	o.open()
	o.progress()
	return err
}

func (o *examined) head(ctx context.Context) error {
	return o.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		head, err := tx.Head(ctx)
		if err != nil {
			return err
		}
		o.out.Rows++
		if _, err := o.m.checkStoredHead(u, head); err != nil {
			o.find(audit.KindLog, o.id, "head is not what was signed and sealed")
		}
		return nil
	})
}

// state is that of a data key as it was last read; empty for one that is not there.
func (o *examined) state(id string) vault.KeyState {
	for _, d := range o.rows {
		if d.ID == id {
			return d.State
		}
	}
	return ""
}

// check looks at the seal of a row.
func (o *examined) check(u *unit, row vault.Row, seal []byte) {
	o.out.Rows++
	id, err := vault.RowSealKeyID(seal)
	switch state := o.state(id); {
	case err != nil:
		o.find(row.Kind, row.Record, "row has no seal of a known form")
	case state == "":
		o.find(row.Kind, row.Record, "row is sealed with a data key that is not there")
	case state == vault.KeyDestroyed:
		o.find(row.Kind, row.Record, "row is sealed with a data key that is destroyed")
	case o.keys[id] == nil:
		o.find(row.Kind, row.Record, "row is sealed with a data key that does not unwrap")
	case u.ring.rows.Verify(row, seal) != nil:
		o.find(row.Kind, row.Record, "row does not fit its seal")
	}
}

// value looks at a sealed value without opening it, and keeps it for that if it is
// to be opened.
func (o *examined) value(_ *unit, v sealedValue) {
	o.out.Values++
	id, err := vault.SealedKeyID(v.sealed)
	if err != nil {
		o.find(v.kind, v.id, "value is not sealed in a known form")
		return
	}
	o.sealed[id]++
	switch o.state(id) {
	case "":
		o.find(v.kind, v.id, "value is sealed with a data key that is not there")
		return
	case vault.KeyDestroyed:
		if !o.destroyed() {
			o.find(v.kind, v.id, "value is sealed with a data key that is destroyed")
		}
		return
	case vault.KeyDecryptOnly:
		o.out.Older++
	}
	if o.in.All {
		o.batch = append(o.batch, v)
		return
	}
	if len(o.sample) < o.in.Sample {
		o.sample = append(o.sample, v.rowRef)
	} else if i := rand.Int64N(o.out.Values); i < int64(len(o.sample)) { // each value is as likely to be kept
		o.sample[i] = v.rowRef
	}
}

// openChunk is how many values of the sample are read at a time.
const openChunk = 100

func (o *examined) openSample(ctx context.Context) error {
	for from := 0; from < len(o.sample); from += openChunk {
		part := o.sample[from:min(from+openChunk, len(o.sample))]
		err := o.page(ctx, func(ctx context.Context, tx storage.ReadTx, _ *unit) error {
			return o.fetch(ctx, tx, part)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch reads values again. Those replaced or removed meanwhile are others', or gone.
func (o *examined) fetch(ctx context.Context, tx storage.ReadTx, rows []rowRef) error {
	var credentials []storage.CredentialRef
	for _, ref := range rows {
		if ref.kind == audit.KindCredential {
			credentials = append(credentials, ref.of)
			continue
		}
		r, ok, err := tx.Record(ctx, ref.kind, ref.id)
		if err != nil {
			return err
		}
		if ok {
			r.Organization = o.id
			o.batch = append(o.batch, webhookValue(o.m.installation, r))
		}
	}
	if len(credentials) == 0 {
		return nil
	}
	found, err := tx.Credentials(ctx, credentials)
	for _, c := range found {
		c.Organization = o.id
		o.batch = append(o.batch, credentialValue(o.m.installation, c))
	}
	return err
}

// open opens what a page has brought: each value in its place, which must work,
// and elsewhere, which must not.
func (o *examined) open() {
	for i, v := range o.batch {
		id, err := vault.SealedKeyID(v.sealed)
		if err != nil || o.keys[id] == nil || o.state(id) == vault.KeyDestroyed {
			continue // its key is what is wrong, and was found; or it is gone since
		}
		if !o.opens(v.place, v.sealed) {
			problem := "value does not open in its place"
			if home := o.home(v); home != "" {
				problem += "; it is that of " + home
			}
			o.find(v.kind, v.id, problem)
			continue
		}
		o.out.Opened++
		for _, p := range elsewhere(v.place, o.batch[(i+1)%len(o.batch)].place) {
			if p != v.place && o.opens(p, v.sealed) {
				o.find(v.kind, v.id, "value opens in another place than its own")
			}
		}
	}
	o.batch = nil
}

// opens opens a value and zeroes it at once.
func (o *examined) opens(p vault.Place, sealed []byte) bool {
	secret, err := o.ring.opener.Open(p, sealed)
	if err == nil {
		secret.Destroy()
	}
	return err == nil
}

// home is the row of the batch in whose place a value opens.
func (o *examined) home(v sealedValue) string {
	for _, other := range o.batch {
		if other.id != v.id && o.opens(other.place, v.sealed) {
			return other.kind + " " + other.id
		}
	}
	return ""
}

// elsewhere is where a value of place p must not open: in the place of another
// record, and in those that differ from its own in one part.
func elsewhere(p, other vault.Place) []vault.Place {
	out := []vault.Place{other, p, p, p, p, p}
	out[1].Installation += "x"
	out[2].Organization = storage.System
	out[3].Kind += "x"
	out[4].Field += "x"
	out[5].Revision++
	return out
}

// counters compares how many seals were reserved with how many values there are
// and how many there may be. Reservations only grow: those that are read after the
// values cover all of them.
func (o *examined) counters(ctx context.Context) error {
	return o.read(ctx, func(_ context.Context, _ storage.ReadTx, keys []storage.DataKey) error {
		for _, d := range keys {
			if d.Purpose != vault.PurposeSeal {
				continue
			}
			if n := o.sealed[d.ID]; n > d.Reserved && d.State != vault.KeyDestroyed {
				o.find(audit.KindDataKey, d.ID, "seals "+strconv.FormatInt(n, 10)+" values, and "+strconv.FormatInt(d.Reserved, 10)+" seals were reserved: its count was changed")
			}
			if d.Reserved < 0 || d.Reserved > o.m.config.SealsPerKey {
				o.find(audit.KindDataKey, d.ID, "has reserved "+strconv.FormatInt(d.Reserved, 10)+" seals, of "+strconv.FormatInt(o.m.config.SealsPerKey, 10)+" that a key may make")
			}
		}
		return nil
	})
}
