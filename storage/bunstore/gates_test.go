package bunstore_test

import (
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// TestGatesKeepTheOrder: who comes first is let in first, one at a time; who goes away
// holds up nobody, and a gate in which nobody is is forgotten.
func TestGatesKeepTheOrder(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := new(bunstore.Gates)
	leave, ok := g.Enter(nil, "acme")
	is.True(ok)
	other, ok := g.Enter(nil, "globex")
	is.True(ok) // which is another gate
	other()
	var order []int // of who is in the gate
	var all sync.WaitGroup
	gone := make(chan struct{})
	for i := range 9 {
		var done chan struct{}
		if i%3 == 1 {
			done = gone
		}
		all.Go(func() {
			leave, ok := g.Enter(done, "acme")
			if ok {
				order = append(order, i)
				leave()
			}
		})
		for g.Waiting("acme") < i+1 {
		}
	}
	close(gone)
	for g.Waiting("acme") > 6 {
	}
	leave()
	all.Wait()
	is.Equal(order, []int{0, 2, 3, 5, 6, 8})
	is.Equal(g.Waiting("acme"), -1)
}

// TestGatesAreNotLost: whose turn comes as it goes away passes it on.
func TestGatesAreNotLost(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := new(bunstore.Gates)
	for range 2000 {
		leave, _ := g.Enter(nil, "acme")
		done := make(chan struct{})
		var all sync.WaitGroup
		in := 0 // guarded by the gate
		for range 2 {
			all.Go(func() {
				if leave, ok := g.Enter(done, "acme"); ok {
					in++
					leave()
				}
			})
		}
		all.Go(func() { close(done) })
		leave()
		all.Wait()
		is.Equal(g.Waiting("acme"), -1)
	}
}
