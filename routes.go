package agentkey

import (
	"crypto/sha256"
	"sync"
	handles "unique"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// routes remembers which record a key's digest leads to, so that a vend needs no
// statement of its own to find the organization whose head it is decided under.
// What is remembered decides nothing: key and agent are read again under the head,
// the digest compared. Only a key that authenticated when it was looked up is
// remembered, and never that there is none. What has not been asked for within the
// last so many keys is forgotten. It is safe for concurrent use.
type routes struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]route
}

// route is what is remembered of an active key.
type route struct {
	organization handles.Handle[string]
	agent, key   string
	expiresAt    int64
	addresses    []string
}

func routeOf(k storage.Key) route {
	return route{handles.Make(k.Organization), k.Agent, k.ID, k.ExpiresAt, k.Addresses}
}

func (r route) of() storage.Key {
	return storage.Key{
		Organization: r.organization.Value(), Agent: r.agent, ID: r.key, Status: storage.KeyActive, ExpiresAt: r.expiresAt, Addresses: r.addresses,
	}
}

// maxRoutes is how many keys routes remembers at most, twice.
const maxRoutes = 8192

func (r *routes) find(digest [sha256.Size]byte) (storage.Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	found, ok := r.young[digest]
	if !ok {
		if found, ok = r.old[digest]; !ok {
			return storage.Key{}, false
		}
		r.put(digest, found)
	}
	return found.of(), true
}

func (r *routes) remember(digest [sha256.Size]byte, k storage.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put(digest, routeOf(k))
}

func (r *routes) put(digest [sha256.Size]byte, to route) {
	if r.young == nil || len(r.young) >= maxRoutes {
		r.young, r.old = make(map[[sha256.Size]byte]route), r.young
	}
	r.young[digest] = to
}

func (r *routes) forget(digest [sha256.Size]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, digest)
	delete(r.old, digest)
}

// forgetRoute has the next call with the same key look it up.
func (m *Manager) forgetRoute(c Caller) {
	if digest := c.digest(); digest != nil {
		m.routes.forget([sha256.Size]byte(digest))
	}
}
