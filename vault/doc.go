// Package vault seals credentials and the rows that decide who may have them.
//
// It holds the cryptography of the module and nothing else: no database, no
// network, no clock, no log. What it offers:
//
//   - [Secret] owns plaintext bytes, prints as "[redacted]" and zeroes them.
//   - [Sealer] and [Opener] seal a secret to its [Place] and open it there only.
//     They are apart so that code which stores credentials can't read them.
//   - [RowSealer] puts a keyed seal over the deciding columns of a [Row], so that
//     someone who can write to the database can't forge a decision.
//   - [DataKey] is the key that does either; it has one purpose and an id derived
//     from its bytes. [Wrap] and [Unwrap] pass it through a [KeyProvider].
//
// The formats are drawn byte by byte in FORMAT.md and pinned by golden vectors.
// A version or an algorithm that is not known is refused; there is no older form
// and no form without authentication.
//
// # Memory
//
// The package zeroes every buffer of its own that held plaintext or a key. It
// can't promise the same of the Go runtime, which may move a stack, or of the
// standard library, whose expanded AES keys live until they are collected.
// Nothing here keeps memory from being swapped or dumped; the process does that.
package vault
