package agentkey

import "github.com/agentkey-dev/agentkey-go/storage"

// NormalWords and ASCIIHost are what identities are made of.
var (
	NormalWords = normalWords
	ASCIIHost   = asciiHost
)

// ConversionPage is how many requests one transaction opens for supporters.
const ConversionPage = conversionPage

// RemembersKeys is how many keys' routes m remembers.
func RemembersKeys(m *Manager) int { return len(m.routes.byDigest) }

// MaxRoutes bounds what RemembersKeys answers.
const MaxRoutes = maxRoutes

// RememberKey remembers where a key leads, for tests that need many.
func RememberKey(m *Manager, digest [32]byte, k storage.Key) { m.routes.remember(digest, k) }

// HoldAtMost makes a Manager hold fewer records in one pass over a log.
func HoldAtMost(m *Manager, n int) { m.held = n }
