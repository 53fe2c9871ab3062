//go:build !unix

package cli

// filesHaveModes says whether a file's mode tells who else may read it.
const filesHaveModes = false

// harden has nothing to do where there is neither umask nor core files.
func harden() error { return nil }
