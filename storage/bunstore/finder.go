package bunstore

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// On Postgres a digest travels in base 16 as bytea is written there.
var selectKeysByDigest = map[bool]statement{
	true:  "SELECT " + keyRelation.list("k") + " FROM @keys AS k WHERE k.digest = ANY (ARRAY(SELECT decode(json_array_elements_text(?::text::json), 'hex')))",
	false: "SELECT " + keyRelation.list("k") + " FROM @keys AS k WHERE k.digest IN (SELECT unhex(value) FROM json_each(?))",
}

// finder lets those who look for keys at the same time share statements: who comes
// while one runs is found by the next, which begins after that, and nobody waits
// for company. No goroutine belongs to it: the first who waits asks for all.
type finder struct {
	mu      sync.Mutex
	waiting []*lookup
	busy    bool
}

// maxLookups is how many digests one statement looks for.
const maxLookups = 256

type lookup struct {
	digest string
	until  time.Time // when its caller gives up; zero: never
	key    storage.Key
	found  bool
	err    error
	done   chan struct{} // closed when the answer is there
	lead   chan struct{} // closed when it is this one's turn to ask
}

// errAlone says that a shared look-up failed, and that each is to ask for itself.
var errAlone = errors.New("bunstore: ask alone")

// find looks for one digest, with others if there are some.
func (f *finder) find(ctx context.Context, s *Store, digest []byte) (storage.Key, bool, error) {
	l := &lookup{digest: string(digest), done: make(chan struct{}), lead: make(chan struct{})}
	l.until, _ = ctx.Deadline()
	f.mu.Lock()
	f.waiting = append(f.waiting, l)
	leads := !f.busy
	f.busy = true
	f.mu.Unlock()
	if !leads {
		select {
		case <-l.done:
		case <-l.lead:
			leads = true
		case <-ctx.Done():
			if f.withdraw(l) {
				return storage.Key{}, false, ctx.Err()
			}
			select {
			case <-l.done:
			case <-l.lead:
				leads = true
			}
		}
	}
	if leads {
		f.carry(ctx, s)
	}
	if l.err == errAlone {
		return s.findKey(ctx, digest)
	}
	return l.key, l.found, l.err
}

// withdraw takes l out of those who wait, unless its turn has come.
func (f *finder) withdraw(l *lookup) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-l.lead:
		return false
	default:
	}
	for i, w := range f.waiting {
		if w == l {
			f.waiting = append(f.waiting[:i:i], f.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// carry asks for those who wait, the caller among them, and hands over.
func (f *finder) carry(ctx context.Context, s *Store) {
	f.mu.Lock()
	n := min(len(f.waiting), maxLookups)
	ls := f.waiting[:n:n]
	f.waiting = f.waiting[n:]
	f.mu.Unlock()
	for _, l := range ls {
		l.err = errAlone // also when a panic passes through here
	}
	defer func() {
		for _, l := range ls {
			close(l.done)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.busy = len(f.waiting) > 0; f.busy {
			close(f.waiting[0].lead)
		}
	}()
	if n == 1 {
		ls[0].key, ls[0].found, ls[0].err = s.findKey(ctx, []byte(ls[0].digest))
		return
	}
	s.findKeys(ctx, ls)
}

// findKeys looks for several digests in one statement. The end of one caller's
// context is not the others'; it lasts until the first of them gives up.
func (s *Store) findKeys(ctx context.Context, ls []*lookup) {
	var until time.Time
	wanted := make([]string, 0, len(ls))
	for _, l := range ls {
		wanted = append(wanted, hex.EncodeToString([]byte(l.digest)))
		if !l.until.IsZero() && (until.IsZero() || l.until.Before(until)) {
			until = l.until
		}
	}
	ctx = context.WithoutCancel(ctx)
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	argument, err := list(wanted)
	if err != nil {
		return
	}
	var keys []storage.Key
	if s.ask(ctx, selectKeysByDigest[s.postgres], []any{argument}, func(rows Row) error {
		return scan(rows, keyRelation.fields(added(&keys))...)
	}) != nil {
		return
	}
	byDigest := make(map[string]storage.Key, len(keys))
	for _, k := range keys {
		byDigest[string(k.Digest)] = k
	}
	for _, l := range ls {
		l.key, l.found = byDigest[l.digest]
		l.err = nil
	}
}
