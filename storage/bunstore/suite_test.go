package bunstore_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
)

func TestSuiteOnSQLite(t *testing.T) {
	t.Parallel()
	var files sync.Map // of each store
	open := func(t *testing.T, path string) storage.Store {
		s := openSQLite(t, path)
		files.Store(storage.Store(s), path)
		return s
	}
	again := func(t *testing.T, s storage.Store) storage.Store {
		path, _ := files.Load(s)
		return open(t, path.(string))
	}
	storagetest.Run(t, func(t *testing.T) storage.Store {
		return open(t, filepath.Join(t.TempDir(), "agentkey.db"))
	}, storagetest.Durable(again), storagetest.Processes(again))
}
