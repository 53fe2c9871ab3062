// Package memstore is a [storage.Store] in the memory of one process.
//
// It keeps every clause of the contract but durable: what it holds is gone when
// the process ends. It is meant for tests, for trying things out, and as the
// yardstick that other backends are measured by. It imports no driver.
//
// All state hangs from one immutable root. A transaction works on a copy of the
// organization's top level, whose maps share everything that it does not
// change, and a commit swaps the root. So a View costs one load of a pointer
// and neither waits nor makes anyone wait, and an undone Update is merely
// forgotten.
package memstore
