package memstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

func TestClosedStoreLetsNobodyWait(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := memstore.New()
	held, release := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- s.Update(context.Background(), "acme", func(context.Context, storage.Tx) error {
			close(held)
			<-release
			return nil
		})
	}()
	<-held
	second := make(chan error, 1)
	go func() {
		second <- s.Update(context.Background(), "acme", func(context.Context, storage.Tx) error { return nil })
	}()
	is.NoErr(s.Close())
	is.True(errors.Is(<-second, storage.ErrClosed)) // a waiting Update ends at once
	close(release)
	is.True(errors.Is(<-first, storage.ErrClosed)) // and a running one is not committed
	is.NoErr(s.Close())
}

// Two organizations put a key with the same digest at the same time. Whichever
// commits second runs again and then finds the digest taken.
func TestDigestTakenMeanwhileRunsAgain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := context.Background()
	s := memstore.New()
	put := func(organization string, then func()) (runs int, ok bool) {
		err := s.Update(ctx, organization, func(ctx context.Context, tx storage.Tx) error {
			runs++
			_, err := tx.PutAgent(ctx, storage.Agent{Organization: organization, ID: "a", Revision: 1})
			is.NoErr(err)
			ok, err = tx.PutKey(ctx, storage.Key{
				Organization: organization, ID: "k", Agent: "a", Digest: make([]byte, 32), Revision: 1,
			})
			is.NoErr(err)
			if runs == 1 {
				then()
			}
			return nil
		})
		is.NoErr(err)
		return runs, ok
	}
	runs, ok := put("acme", func() {
		runs, ok := put("globex", func() {})
		is.Equal(runs, 1)
		is.True(ok)
	})
	is.Equal(runs, 2)
	is.True(!ok)
	k, found, err := s.FindKey(ctx, make([]byte, 32))
	is.NoErr(err)
	is.True(found)
	is.Equal(k.Organization, "globex")
}
