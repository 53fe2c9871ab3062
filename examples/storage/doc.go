// Package filestore is a small, complete storage backend, meant to be read and
// copied. It keeps everything in one JSON file, and is as slow as it sounds.
//
// To write a backend of your own:
//
//  1. Declare types with all methods of storage.Store and storage.Tx, each
//     returning errors.New("not implemented"). Your compiler lists what is
//     missing.
//  2. Write a test that calls storagetest.Run, as this package's does. Every
//     clause of the contract fails, by itself and within seconds.
//  3. Do Update, View and the Record methods first: go test -run
//     'Conformance/contention/serial' needs nothing else but the log.
//  4. Go on clause by clause: basic/insert, basic/update, then the roles.
//     A failure names the sentence that is broken, and what was seen.
//  5. Claim what your backend can do beyond it: Durable, Processes, LostCommits.
//
// What to look at here: how a transaction works on a copy that is thrown away
// unless it is committed (tx.go), how a commit becomes durable and what it
// answers when it can't know (save), and how little a row needs beyond the
// Check functions of package storage (put).
//
// Limits of this backend: the file belongs to one process at a time, and every
// Update writes all of it.
package filestore
