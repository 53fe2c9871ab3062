//go:build !unix

package pgtest

import (
	"os"
	"testing"
)

// DSN returns the URL of a database for tests. On this system it starts none
// itself, so that it skips the test where the variable is not set, and fails it
// when CI is set.
func DSN(t testing.TB) string {
	t.Helper()
	dsn := os.Getenv(Variable)
	if dsn == "" && os.Getenv("CI") != "" {
		t.Fatalf("set %s to the URL of a Postgres database", Variable)
	}
	if dsn == "" {
		t.Skipf("set %s to the URL of a Postgres database to run this test", Variable)
	}
	return dsn
}
