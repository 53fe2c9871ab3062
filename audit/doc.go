// Package audit is the log that an organization's decisions are written to: the exact bytes of an event, the Merkle tree
// over them, signed checkpoints, and the checks that find what was changed afterwards.
//
// An [Event] is encoded to one line of canonical JSON, its content. The hash of the content is a leaf of an RFC 6962 tree;
// the tree's root is signed as a C2SP checkpoint in the commit that writes the event. Labels, addresses and free text go
// to the [Personal] part, which is stored beside the content and may be erased alone; the content holds only its hash.
//
// [Extend] makes the next head, [CheckHead] judges a stored one, [Verify] judges a whole log, [Replay] compares the log with
// the records that it speaks of, and [Export] writes a file that Verify can judge on a machine without the database.
// [ProveInclusion] and [ProveConsistency] prove that a log holds an event, and that it only grew, to whoever kept a
// [Receipt] or a checkpoint. [ExportCSV] and [ExportOCSF] write views for other programs.
//
// The formats are drawn in FORMAT.md and never change. Nothing in this package reads a clock, a file or the network,
// starts a goroutine or logs.
package audit
