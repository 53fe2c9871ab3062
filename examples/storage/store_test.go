package filestore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/matryer/is"

	filestore "github.com/agentkey-dev/agentkey-go/examples/storage"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/storagetest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T, path string) *fileStore {
		s, err := filestore.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return &fileStore{s, path}
	}
	storagetest.Run(t,
		func(t *testing.T) storage.Store { return open(t, filepath.Join(t.TempDir(), "agentkey.json")) },
		storagetest.Durable(func(t *testing.T, s storage.Store) storage.Store { return open(t, s.(*fileStore).path) }),
	)
}

// fileStore remembers where its file is, for the test to open it again.
type fileStore struct {
	*filestore.Store
	path string
}

func TestOpenRefusesWhatIsNoDatabase(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"text": "not a database", "cut off": `{"acme":{"Agents":`, "null": `{"acme":null}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			path := filepath.Join(t.TempDir(), "agentkey.json")
			is.NoErr(os.WriteFile(path, []byte(content), 0o600))
			_, err := filestore.Open(path)
			is.True(errors.Is(err, storage.ErrCorrupt))
			b, err := os.ReadFile(path)
			is.NoErr(err)
			is.Equal(string(b), content) // and leaves it alone
		})
	}
}

// A file that can't be written keeps what it held.
func TestFailedWriteKeepsTheFile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "agentkey.json")
	s, err := filestore.Open(path)
	is.NoErr(err)
	put := func(revision int64) error {
		return s.Update(ctx, "acme", func(ctx context.Context, tx storage.Tx) error {
			_, err := tx.PutOrganization(ctx, storage.Organization{ID: "acme", Revision: revision})
			return err
		})
	}
	is.NoErr(put(1))
	is.NoErr(os.Mkdir(path+".new", 0o700)) // in the way of the next file
	is.True(errors.Is(put(2), storage.ErrUnavailable))
	is.NoErr(os.Remove(path + ".new"))
	is.NoErr(put(2)) // revision 1 still stood
}
