package bunstore_test

import (
	"context"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// openSQLite opens the file and migrates it.
func openSQLite(t testing.TB, path string) *bunstore.Store {
	t.Helper()
	s, err := bunstore.OpenSQLite(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSQLite(t testing.TB) *bunstore.Store {
	return openSQLite(t, filepath.Join(t.TempDir(), "agentkey.db"))
}
