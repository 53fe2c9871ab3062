package agentkey

import (
	"errors"
	"sync"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// heads remembers what this process knows of logs. A head that it wrote last is
// extended without checking its signature again, as long as it is still there
// as it was written. One that it has proven, whoever wrote it, is what the log is held
// to from then on: see saw.
type heads struct {
	mu   sync.Mutex
	last map[string]knownHead
	seen map[string]seenHead
}

type knownHead struct {
	head storage.Head
	tree audit.Tree
	root audit.Hash
}

// seenHead is a proven head; the zero value is that of a log of which nothing is known.
type seenHead struct {
	epoch, size int64
	root        audit.Hash
}

// before says whether a log that had the head s may have the head t later. Whether t
// extends s in the same epoch only a proof can tell; a shorter one does not.
func (s seenHead) before(t seenHead) bool {
	switch {
	case s.epoch != t.epoch:
		return s.epoch < t.epoch
	case s.size != t.size:
		return s.size < t.size
	}
	return s.root == t.root
}

// known is what the process knows of a log: who reads a head asks before it reads.
func (h *heads) known(organization string) seenHead {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen[organization]
}

// saw remembers a proven head, and says whether it may come after one that was known
// before it was read. If not, the database was put back under this process.
func (h *heads) saw(organization string, known seenHead, epoch int64, tree audit.Tree) bool {
	now := seenHead{epoch, tree.Size(), tree.Root()}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !known.before(now) {
		return false
	}
	if h.seen[organization].before(now) {
		h.seen[organization] = now
	}
	return true
}

func (h *heads) get(organization string) (knownHead, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k, ok := h.last[organization]
	return k, ok
}

func (h *heads) set(organization string, k knownHead) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last[organization] = k
	h.seen[organization] = seenHead{k.head.Epoch, k.tree.Size(), k.root}
}

// checkHead proves a head that this process did not write last. A log is never
// shorter than this process left or found it, nor another one of the same length.
func (m *Manager) checkHead(u *unit, head storage.Head) (audit.Tree, error) {
	known, ok := m.heads.get(u.organization)
	switch {
	case ok && sameHead(known.head, head):
		return known.tree, nil
	case ok && head.Epoch <= known.head.Epoch && head.Size <= known.head.Size:
		return audit.Tree{}, m.wentBack(u.organization)
	}
	tree, err := m.checkStoredHead(u, head)
	if err == nil && !m.heads.saw(u.organization, m.heads.known(u.organization), head.Epoch, tree) {
		err = m.wentBack(u.organization)
	}
	return tree, err
}

// wentBack is the error of a log that is shorter than this process knows it to have
// been. The anchors are asked at the next occasion: they are believed for good.
func (m *Manager) wentBack(organization string) error {
	m.anchors.changed(organization)
	return &headError{organization: organization}
}

// checkStoredHead proves a head by its signature and its seal. Every log whose
// organization has data keys has begun: they were made in its first transaction.
func (m *Manager) checkStoredHead(u *unit, head storage.Head) (audit.Tree, error) {
	damaged := &headError{organization: u.organization}
	if head.Size == 0 {
		return audit.Tree{}, damaged
	}
	tree, err := audit.CheckHead(head.Head, u.installation, u.organization, m.verifiers())
	if errors.Is(err, audit.ErrSignature) && !u.fresh {
		return audit.Tree{}, errStale // another process may have rotated the signing key
	}
	if err != nil {
		return audit.Tree{}, damaged
	}
	err = u.ring.rows.Verify(storage.HeadRow(u.installation, u.organization, head.Head), head.Seal)
	if errors.Is(err, vault.ErrUnknownKey) && !u.fresh {
		return audit.Tree{}, errStale // or the row key
	}
	if err != nil {
		return audit.Tree{}, damaged
	}
	return tree, nil
}

func sameHead(a, b storage.Head) bool {
	return a.Epoch == b.Epoch && a.Size == b.Size && a.Time == b.Time &&
		string(a.Edge) == string(b.Edge) && string(a.Signed) == string(b.Signed) && string(a.Seal) == string(b.Seal)
}

// headError says that the head of a log is not what was signed. Nothing can be
// appended to such a log, not even that. It is an ErrIntegrity.
type headError struct{ organization string }

func (e *headError) Error() string { return ErrIntegrity.Error() + ": head of the log" }
func (e *headError) Unwrap() error { return ErrIntegrity }
