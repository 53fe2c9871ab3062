package agentkey_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// atOnce runs fn n times concurrently and gives what each answered.
func atOnce(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// tallyErrors counts successes and failures by sentinel; anything else is an error.
func tallyErrors(t *testing.T, errs []error, allowed error) (ok, refused int) {
	t.Helper()
	for _, err := range errs {
		switch {
		case err == nil:
			ok++
		case allowed != nil && errors.Is(err, allowed):
			refused++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	return ok, refused
}

func TestConcurrentRequests(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	_, key := k.Agent("bot")
	for range 50 {
		tool := k.Tool("Linear", "lin_api_test_1")
		ok, refused := tallyErrors(t, atOnce(16, func(int) error {
			_, err := k.RequestAccess(context.Background(), key, agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
			return err
		}), agentkey.ErrAlreadyPending)
		is.Equal(ok, 1)
		is.Equal(refused, 15)
	}
	requests, err := k.Requests(t.Context(), k.Owner, agentkey.ListInput{Limit: 100})
	is.NoErr(err)
	is.Equal(len(requests), 50)
}

func TestConcurrentDecisions(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	agent, key := k.Agent("bot")
	for range 10 {
		tool := k.Tool("Linear", "lin_api_test_1")
		ids := make([]string, 16)
		ok, _ := tallyErrors(t, atOnce(16, func(i int) error {
			g, err := k.Assign(context.Background(), k.Owner, agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID})
			ids[i] = g.ID
			return err
		}), nil)
		is.Equal(ok, 16) // one made it, and for the others it stood already
		for _, id := range ids {
			is.Equal(id, ids[0])
		}

		asked := k.Tool("Linear", "lin_api_test_1")
		g, err := k.RequestAccess(t.Context(), key, agentkey.RequestInput{Tool: asked.ID, Reason: "to file issues"})
		is.NoErr(err)
		ok, refused := tallyErrors(t, atOnce(16, func(int) error {
			_, err := k.Approve(context.Background(), k.Owner, g.ID, agentkey.DecisionInput{})
			return err
		}), agentkey.ErrNotPending)
		is.Equal(ok, 1)
		is.Equal(refused, 15)
	}
	r, err := k.Reconcile(t.Context(), k.Owner)
	is.NoErr(err)
	is.True(r.OK())
}

// Tools of one name, added at once, get keys of their own.
func TestConcurrentTools(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	ok, _ := tallyErrors(t, atOnce(16, func(int) error {
		_, err := k.AddTool(context.Background(), k.Owner, agentkey.AddToolInput{
			Name: "Linear", AuthType: "api_key", Mode: storage.Shared, Credential: agentkey.NewSecret([]byte("lin_api_test_1")),
		})
		return err
	}), nil)
	is.Equal(ok, 16)
	tools, err := k.Tools(t.Context(), k.Owner, agentkey.ListInput{})
	is.NoErr(err)
	keys := make(map[string]bool)
	for _, tool := range tools {
		keys[tool.ConfigKey] = true
	}
	is.Equal(len(keys), 16)
	is.True(keys["linear"] && keys["linear-2"] && keys["linear-16"])
}
