package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// network is what a proxy makes of the network between a server and Postgres.
type network int32

const (
	whole   network = iota
	refused         // connections are cut, and new ones too
	silent          // connections stay, and nothing arrives any more
	delayed         // everything arrives, some time later
)

// cutCommit is what a proxy makes of the next COMMIT of a vend. In each case it
// has no answer: the server's connection is cut, or all are silent.
type cutCommit int32

const (
	cutNone   cutCommit = iota
	cutBefore           // it never arrives
	cutAfter            // it arrives, and is carried out
	cutLate             // it arrives after the server has begun to look for it
	cutSilent           // nothing arrives any more from here on
)

// lateness is how much later a late COMMIT arrives: before Postgres ends an idle
// transaction.
const lateness = 700 * time.Millisecond

// delay is how much later everything arrives when it is delayed.
const delay = 50 * time.Millisecond

// proxy stands between a server and Postgres, on loopback.
type proxy struct {
	listener net.Listener
	target   string // Postgres' Unix socket
	ctx      context.Context
	state    atomic.Int32 // network
	next     atomic.Int32 // cutCommit
	cuts     atomic.Int64 // commits that were cut
	prepared atomic.Int64 // statements that were prepared under a name

	mu    sync.Mutex
	conns map[net.Conn]bool
	free  chan struct{} // closed when the network is whole again
}

// newProxy is a proxy in front of the database, and answers the database's URL
// through it. It skips the test where Postgres is on another machine.
func newProxy(t *testing.T, dsn string) (p *proxy, through string) {
	t.Helper()
	p = &proxy{target: socketOf(dsn), conns: make(map[net.Conn]bool), free: make(chan struct{})}
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if p.target == "" {
		t.Skip("the Postgres of the tests has no socket on this machine")
	}
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	var cancel context.CancelFunc
	p.ctx, cancel = context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.carry(c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = p.listener.Close()
		p.cutAll()
		serving.Wait()
	})
	u.User, u.Host = url.User("postgres"), p.listener.Addr().String()
	u.RawQuery = url.Values{"sslmode": {"disable"}}.Encode()
	return p, u.String()
}

// set changes the network.
func (p *proxy) set(n network) {
	p.mu.Lock()
	was := network(p.state.Swap(int32(n)))
	if was == silent && n != silent {
		close(p.free)
		p.free = make(chan struct{})
	}
	p.mu.Unlock()
	if n == refused {
		p.cutAll()
	}
}

func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// keep remembers the connection, unless it can't be.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil || network(p.state.Load()) == refused {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// carry carries one connection.
func (p *proxy) carry(server net.Conn) {
	if !p.keep(server) {
		return
	}
	defer p.drop(server)
	postgres, err := net.Dial("unix", p.target)
	if err != nil || !p.keep(postgres) {
		return
	}
	defer p.drop(postgres)
	answers := make(chan struct{})
	go func() {
		defer close(answers)
		defer func() { _ = server.Close() }()
		p.copy(server, postgres, nil)
	}()
	vending := false
	p.copy(postgres, server, func(part []byte) bool {
		if len(part) > 5 && part[0] == 'P' && part[5] != 0 { // Parse, its length, and a name
			p.prepared.Add(1)
		}
		vending = vending || bytes.Contains(part, []byte(audit.ActionCredentialVended))
		if !bytes.Contains(part, commitRun) {
			return false
		}
		cut := vending && p.cutHere(server, postgres, part)
		vending = false
		return cut
	})
	_ = postgres.(*net.UnixConn).CloseWrite() // it carries out what it has read
	<-answers
}

// commitRun is in the message that runs a COMMIT, which the driver prepares under a
// name of its own, and not in the one that prepares it: that begins with the name.
var commitRun = func() []byte {
	digest := sha256.Sum256([]byte("COMMIT"))
	return []byte("\x00stmtcache_" + hex.EncodeToString(digest[:24]) + "\x00")
}()

// copy carries one direction, until either side ends or cut says so.
func (p *proxy) copy(to, from net.Conn, cut func(part []byte) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			p.wait()
			if cut != nil && cut(buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait holds what is carried as long as the network says.
func (p *proxy) wait() {
	p.mu.Lock()
	state, free := network(p.state.Load()), p.free
	p.mu.Unlock()
	switch state {
	case delayed:
		pause(p.ctx, delay)
	case silent:
		select {
		case <-free:
		case <-p.ctx.Done():
		}
	}
}

// cutHere cuts the connection, if one is to be cut, where it carries a COMMIT.
func (p *proxy) cutHere(server, postgres net.Conn, part []byte) bool {
	how := cutCommit(p.next.Swap(int32(cutNone)))
	switch how {
	case cutNone:
		return false
	case cutSilent:
		p.set(silent)
		p.cuts.Add(1)
		p.wait()
		return false
	}
	p.cuts.Add(1)
	_ = server.Close()
	if how == cutBefore {
		return true
	}
	if how == cutLate {
		pause(p.ctx, lateness)
	}
	_, _ = postgres.Write(part) // a session that has ended needs none
	return true
}
