// Package archtest holds the architecture by tests: which package may import
// which, what a program links that imports the root package, and the habits that
// a compiler can check. It has no code but its tests.
package archtest
