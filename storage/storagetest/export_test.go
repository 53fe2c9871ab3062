package storagetest

import (
	"sync"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// Sentence is a clause's name, group and sentence.
type Sentence struct{ Group, Name, Text string }

// Sentences are the clauses of the suite.
func Sentences() []Sentence {
	var list []Sentence
	for _, c := range clauses() {
		list = append(list, Sentence{c.group, c.name, c.sentence})
	}
	return list
}

// Verdicts of the clauses, by group and name: what was seen, and why those that
// were skipped were.
type Verdicts struct {
	Failed, Skipped map[string]string
}

// Examine runs the clauses that are wanted, all at once, without failing t. It waits
// less for each: many of its stores hang, or are busy for ever.
func Examine(t *testing.T, open func(*testing.T) storage.Store, want func(group, name string) bool, opts ...Option) Verdicts {
	claimed := claims{most: 8500 * time.Millisecond}
	for _, o := range opts {
		o(&claimed)
	}
	v := Verdicts{make(map[string]string), make(map[string]string)}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, c := range clauses() {
		if !want(c.group, c.name) {
			continue
		}
		all.Go(func() {
			r := c.run(t, open, claimed)
			mu.Lock()
			defer mu.Unlock()
			if r.seen != "" {
				v.Failed[c.group+"/"+c.name] = r.seen
			} else if r.skipped != "" {
				v.Skipped[c.group+"/"+c.name] = r.skipped
			}
		})
	}
	all.Wait()
	return v
}
