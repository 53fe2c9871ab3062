package cli

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// progressStep is how often progress is shown. Work that is done sooner shows
// nothing.
const progressStep = 250 * time.Millisecond

// progress says on the terminal that long work goes on, and how far it is. Where
// standard error is no terminal it says nothing.
type progress struct {
	what  string
	mu    sync.Mutex
	so    func() string
	stop  chan struct{} // nil where there is no terminal
	ended chan struct{}
}

// progress begins to show what is being done; end ends it.
func (s *session) progress(what string) *progress {
	p := &progress{what: what}
	if _, ok := terminal(s.stderr); !ok {
		return p
	}
	p.stop, p.ended = make(chan struct{}), make(chan struct{})
	go p.show(s.stderr, s.options.Clock)
	return p
}

// set says how far the work is.
func (p *progress) set(text string) { p.follow(func() string { return text }) }

// follow asks so, whenever something is shown, how far the work is.
func (p *progress) follow(so func() string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.so = so
}

// end takes away what was shown.
func (p *progress) end() {
	if p.stop == nil {
		return
	}
	close(p.stop)
	<-p.ended
	p.stop = nil
}

const wipe = "\r\x1b[K" // back to the start of the line, and clear it

func (p *progress) show(w io.Writer, clock func() time.Time) {
	defer close(p.ended)
	began := clock()
	tick := time.NewTicker(progressStep)
	defer tick.Stop()
	shown := false
	for {
		select {
		case <-p.stop:
			if shown {
				_, _ = io.WriteString(w, wipe)
			}
			return
		case <-tick.C:
			shown = true
			_, _ = fmt.Fprintf(w, "%s%s…%s (%.0f s)", wipe, p.what, p.far(), clock().Sub(began).Seconds())
		}
	}
}

func (p *progress) far() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.so == nil {
		return ""
	}
	return " " + p.so()
}

// counter counts the bytes that pass.
type counter struct{ n atomic.Int64 }

// Write counts.
func (c *counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// of says how much of so many bytes has passed; of 0, which says that nobody knows how
// many there are, how much alone.
func (c *counter) of(size int64) string {
	if size == 0 {
		return c.megabytes()
	}
	n := c.n.Load()
	return fmt.Sprintf("%d %% of %.1f MB", 100*n/size, float64(size)/1e6)
}

func (c *counter) megabytes() string { return fmt.Sprintf("%.1f MB", float64(c.n.Load())/1e6) }
