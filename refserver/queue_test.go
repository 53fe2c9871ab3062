package refserver_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// occupied is a store in which somebody holds the head of one organization's log.
type occupied struct {
	storage.Store
	organization string
	letGo        chan struct{}
}

func (s *occupied) Update(ctx context.Context, organization string, fn func(context.Context, storage.Tx) error) error {
	if organization == s.organization {
		<-s.letGo
	}
	return s.Store.Update(ctx, organization, fn)
}

// TestFullQueue: over HTTP, whoever finds an organization's queue full is told 503
// with Retry-After at once, be it an agent or an administrator; other organizations
// are served, and everybody in the queue is. What takes access away finds room in it,
// and goes first.
func TestFullQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		store := &occupied{Store: memstore.New(), letGo: make(chan struct{})}
		f := servertest.New(t, servertest.Options{Store: store, Policies: servertest.Unlimited()})
		agent, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_queue")
		f.Approved(key, tool)
		_, _, other := f.CreateOrganization("Globex")
		store.organization = f.Organization

		const held, bound = 1, 4096
		var all sync.WaitGroup
		var given atomic.Int64
		for range held + bound {
			all.Go(func() {
				v, err := f.Manager.Vend(t.Context(), agentkey.TrustedAgent(f.Organization, agent), tool)
				switch {
				case err == nil:
					v.Credential.Destroy()
					given.Add(1)
				case !errors.Is(err, agentkey.ErrSuspended):
					t.Error(err)
				}
			})
			synctest.Wait() // until it waits: the first one for the head, the others for it
		}
		began := time.Now()
		for _, r := range []servertest.Request{
			{Method: "GET", Path: "/api/tools/" + tool + "/credentials", Token: key},
			{Method: "PUT", Path: "/api/admin/agents/" + agent, Token: f.Owner, Body: `{"description":"changed"}`},
		} {
			res := f.Send(r)
			is.Equal(res.Status, http.StatusServiceUnavailable)
			is.Equal(res.Header.Get("Retry-After"), "2")
		}
		is.Equal(f.Do("POST", "/api/admin/agents", other, `{"name":"elsewhere"}`).Status, http.StatusCreated)
		is.Equal(time.Since(began), time.Duration(0)) // of the bubble's clock: nobody waited
		var suspended servertest.Response
		all.Go(func() {
			suspended = f.Send(servertest.Request{Method: "DELETE", Path: "/api/admin/agents/" + agent, Token: f.Owner})
		})
		synctest.Wait()
		close(store.letGo)
		all.Wait()
		is.Equal(suspended.Status, http.StatusOK)
		is.Equal(given.Load(), int64(held))
		is.Equal(f.Do("GET", "/api/tools/"+tool+"/credentials", key, "").Status, http.StatusForbidden)
	})
}
