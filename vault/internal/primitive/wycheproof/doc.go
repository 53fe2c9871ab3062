// Package wycheproof holds package primitive against the test vectors of Project
// Wycheproof. It is a module of its own because the vectors want a later Go than the
// library, and nobody who uses the library needs them.
package wycheproof
