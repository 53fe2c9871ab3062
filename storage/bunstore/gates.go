package bunstore

import "sync"

// gates let one caller at a time through for each name, in the order in which
// they came. They keep the waiters of one head, within this process, from
// taking all connections; the lock that decides is the database's.
type gates struct {
	mu   sync.Mutex
	open map[string]*gate
}

type gate struct {
	slot  chan struct{}
	users int
}

// enter waits for the gate and answers how to leave it, unless something else is
// done before that.
func (g *gates) enter(done <-chan struct{}, name string) (leave func(), ok bool) {
	g.mu.Lock()
	w := g.open[name]
	if w == nil {
		w = &gate{slot: make(chan struct{}, 1)}
		if g.open == nil {
			g.open = make(map[string]*gate)
		}
		g.open[name] = w
	}
	w.users++
	g.mu.Unlock()
	select {
	case w.slot <- struct{}{}:
		return func() { <-w.slot; g.leave(name, w) }, true
	case <-done:
		g.leave(name, w)
		return nil, false
	}
}

// crowded tells who is in the gate whether others wait.
func (g *gates) crowded(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open[name].users > 1
}

func (g *gates) leave(name string, w *gate) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.users--; w.users == 0 {
		delete(g.open, name)
	}
}
