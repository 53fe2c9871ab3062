package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Target is a server under load.
type Target struct {
	Address  string   // HOST:PORT
	Requests [][]byte // of HTTP/1.1, without a body; sent in turn, beginning anywhere
	Process  int      // the server's process
}

// Sample is what one run saw.
type Sample struct {
	PerSecond       float64
	P50, P99, P999  time.Duration
	CPU             time.Duration // of the server, for each request
	Memory          int64         // the most that the server held in memory, in bytes
	MeasuresProcess bool          // whether CPU and Memory are known on this system
}

// memoryStep is how often a server's memory is looked at.
const memoryStep = 50 * time.Millisecond

// Run sends requests over so many connections, the next on each as soon as the
// last is answered, for a time. Every connection is made, and has sent a request,
// before the time begins. Any answer but 200 is an error. offset says where in
// the requests the connections begin.
func Run(ctx context.Context, t Target, connections, offset int, duration time.Duration, clock func() time.Time) (Sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := make([]*client, connections)
	defer func() {
		for _, c := range clients {
			if c != nil {
				_ = c.conn.Close()
			}
		}
	}()
	for i := range clients {
		c, err := dial(ctx, t, offset+i*len(t.Requests)/connections)
		if err != nil {
			return Sample{}, err
		}
		clients[i] = c
		if err := c.once(); err != nil {
			return Sample{}, err
		}
	}
	return measure(ctx, t, clients, duration, clock)
}

func measure(ctx context.Context, t Target, clients []*client, duration time.Duration, clock func() time.Time) (Sample, error) {
	stop := make(chan struct{})
	watched := watch(t.Process, stop)
	before, known := CPUTime(t.Process)
	began := clock()
	end := began.Add(duration)
	var wg sync.WaitGroup
	unblock := context.AfterFunc(ctx, func() {
		for _, c := range clients {
			_ = c.conn.Close()
		}
	})
	for _, c := range clients {
		wg.Go(func() { c.err = c.until(end, clock) })
	}
	wg.Wait()
	took := clock().Sub(began)
	after, _ := CPUTime(t.Process)
	unblock()
	close(stop)
	s := Sample{Memory: <-watched, MeasuresProcess: known}
	var all []time.Duration
	for _, c := range clients {
		if err := errors.Join(ctx.Err(), c.err); err != nil {
			return s, err
		}
		all = append(all, c.took...)
	}
	slices.Sort(all)
	s.PerSecond = float64(len(all)) / took.Seconds()
	s.P50, s.P99, s.P999 = percentile(all, 500), percentile(all, 990), percentile(all, 999)
	s.CPU = (after - before) / time.Duration(len(all))
	return s, nil
}

// watch looks at a process's memory until it is stopped, then says the most.
func watch(process int, stop <-chan struct{}) <-chan int64 {
	most := make(chan int64, 1)
	go func() {
		tick := time.NewTicker(memoryStep)
		defer tick.Stop()
		n := Memory(process)
		for {
			select {
			case <-tick.C:
				n = max(n, Memory(process))
			case <-stop:
				most <- max(n, Memory(process))
				return
			}
		}
	}()
	return most
}

// percentile is the time that so many of a thousand stay within.
func percentile(sorted []time.Duration, permille int) time.Duration {
	return sorted[(len(sorted)*permille+999)/1000-1]
}

// client is one connection.
type client struct {
	conn     net.Conn
	in       *bufio.Reader
	requests [][]byte
	next     int
	took     []time.Duration
	err      error
}

func dial(ctx context.Context, t Target, first int) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 8<<10), requests: t.Requests, next: first % len(t.Requests)}, nil
}

// until sends requests up to a time. Whatever began by then counts.
func (c *client) until(end time.Time, clock func() time.Time) error {
	for now := clock(); now.Before(end); {
		if err := c.once(); err != nil {
			return err
		}
		then := clock()
		c.took = append(c.took, then.Sub(now))
		now = then
	}
	return nil
}

// once sends a request and reads its answer.
func (c *client) once() error {
	request := c.requests[c.next]
	c.next = (c.next + 1) % len(c.requests)
	if _, err := c.conn.Write(request); err != nil {
		return fmt.Errorf("send a request: %w", err)
	}
	return c.answer()
}

var errAnswer = errors.New("the answer is not one that this client can read")

func (c *client) answer() error {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
		status := "no HTTP"
		if bytes.HasPrefix(line, []byte("HTTP/1.1 ")) && len(line) >= 12 {
			status = string(line[9:12])
		}
		return fmt.Errorf("the server answered %s instead of 200", status)
	}
	length := -1
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return errAnswer
			}
		}
	}
	if length < 0 {
		return errAnswer
	}
	if _, err := c.in.Discard(length); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	return nil
}
