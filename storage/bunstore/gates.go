package bunstore

import (
	"slices"
	"sync"
)

// gates let one caller at a time through for each name, in the order in which
// they came. They keep the waiters of one head, within this process, from
// taking all connections; the lock that decides is the database's.
type gates struct {
	mu   sync.Mutex
	open map[string]*gate // those in which somebody is
}

type gate struct{ waiting []chan struct{} }

// enter waits for the gate and answers how to leave it, unless something else is
// done before that.
func (g *gates) enter(done <-chan struct{}, name string) (leave func(), ok bool) {
	leave = func() { g.leave(name) }
	g.mu.Lock()
	w := g.open[name]
	if w == nil {
		if g.open == nil {
			g.open = make(map[string]*gate)
		}
		g.open[name] = new(gate)
		g.mu.Unlock()
		return leave, true
	}
	turn := make(chan struct{})
	w.waiting = append(w.waiting, turn)
	g.mu.Unlock()
	select {
	case <-turn:
		return leave, true
	case <-done:
	}
	g.mu.Lock()
	i := slices.Index(w.waiting, turn)
	if i >= 0 {
		w.waiting = slices.Delete(w.waiting, i, i+1)
	}
	g.mu.Unlock()
	if i < 0 {
		leave() // the turn came all the same
	}
	return nil, false
}

// crowded tells who is in the gate whether others wait.
func (g *gates) crowded(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open[name].waiting) > 0
}

// leave lets the next one in.
func (g *gates) leave(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.open[name]
	if len(w.waiting) == 0 {
		delete(g.open, name)
		return
	}
	close(w.waiting[0])
	w.waiting = slices.Delete(w.waiting, 0, 1)
}
