package agentkey

import (
	"crypto/sha256"
	"sync"
	handles "unique"

	"github.com/google/uuid"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// routes remembers which record a key's digest leads to, so that a vend needs no
// statement of its own to find the organization whose head it is decided under.
// What is remembered decides nothing: key and agent are read again under the head,
// the digest compared. Only a key that authenticated when it was looked up is
// remembered, and never that there is none. Of maxRoutes keys, one more has any of
// them forgotten; one whose ids the Manager has not made never is remembered. It is
// safe for concurrent use.
type routes struct {
	mu       sync.Mutex
	byDigest map[[sha256.Size]byte]route
}

// route is what is remembered of an active key: its ids as bytes, a third of their text.
type route struct {
	organization handles.Handle[string]
	agent, key   uuid.UUID
	expiresAt    int64
	addresses    *[]string // nil: from anywhere, as most are
}

func routeOf(k storage.Key) (r route, ok bool) {
	var errs [2]error
	r.agent, errs[0] = uuid.Parse(k.Agent)
	r.key, errs[1] = uuid.Parse(k.ID)
	if errs[0] != nil || errs[1] != nil || r.agent.String() != k.Agent || r.key.String() != k.ID {
		return route{}, false
	}
	r.organization, r.expiresAt = handles.Make(k.Organization), k.ExpiresAt
	if addresses := k.Addresses; len(addresses) > 0 {
		r.addresses = &addresses
	}
	return r, true
}

func (r route) of() storage.Key {
	k := storage.Key{Organization: r.organization.Value(), Agent: r.agent.String(), ID: r.key.String(), Status: storage.KeyActive, ExpiresAt: r.expiresAt}
	if r.addresses != nil {
		k.Addresses = *r.addresses
	}
	return k
}

// maxRoutes is how many keys routes remembers at most, in some 2 MiB.
const maxRoutes = 16384

func (r *routes) find(digest [sha256.Size]byte) (storage.Key, bool) {
	r.mu.Lock()
	found, ok := r.byDigest[digest]
	r.mu.Unlock()
	if !ok {
		return storage.Key{}, false
	}
	return found.of(), true
}

func (r *routes) remember(digest [sha256.Size]byte, k storage.Key) {
	to, ok := routeOf(k)
	if !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byDigest == nil {
		r.byDigest = make(map[[sha256.Size]byte]route)
	}
	if len(r.byDigest) >= maxRoutes {
		for other := range r.byDigest { // begins anywhere
			delete(r.byDigest, other)
			break
		}
	}
	r.byDigest[digest] = to
}

func (r *routes) forget(digest [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byDigest, digest)
}

// forgetRoute has the next call with the same key look it up.
func (m *Manager) forgetRoute(c Caller) {
	if digest := c.digest(); digest != nil {
		m.routes.forget([sha256.Size]byte(digest))
	}
}
