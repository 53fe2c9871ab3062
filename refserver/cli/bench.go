package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/load"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
)

// benchCommand measures this machine with databases that it makes, and removes.
type benchCommand struct {
	Database    string        `env:"AGENTKEY_BENCH_DATABASE" placeholder:"URL" help:"sqlite:PATH of a file that is not there yet, or postgres://… on this machine, where a schema of its own is made. Both are removed in the end. Default: a SQLite file in the directory for temporary files."`
	Agents      int           `default:"1000" placeholder:"N" help:"Agents."`
	Tools       int           `default:"100" placeholder:"N" help:"Tools."`
	Grants      int           `default:"1000" placeholder:"N" help:"Grants, all approved."`
	Events      int           `default:"10000" placeholder:"N" help:"Events in the log, at least those of the above."`
	Scale       []int         `placeholder:"N" help:"Measure several databases in turn, each with so many agents, grants and events, as a list such as 1000,100000,1000000."`
	Connections []int         `default:"1,16,64,256" placeholder:"N" help:"Connections that fetch credentials at a time, as a list."`
	Rounds      int           `default:"5" placeholder:"N" help:"How often everything is measured; medians are shown."`
	Duration    time.Duration `default:"2s" placeholder:"TIME" help:"How long each server is under each load in each round."`
	Replay      bool          `default:"true" negatable:"" help:"Servers replay their logs at the start, and are measured once they have. That of a million events takes minutes."`
	Timeout     time.Duration `default:"20m" placeholder:"TIME" help:"When to give up, in all."`
	SVG         string        `name:"svg" placeholder:"FILE" help:"Write a plot of latency against load to this new file."`
	JSON        bool          `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// The bounds of what may be asked for.
const (
	maxBenchSize        = 10_000_000
	maxBenchTools       = 5_000
	maxBenchConnections = 4096
)

func (c *benchCommand) check() error {
	for _, f := range []struct {
		name      string
		n         int
		low, high int
	}{
		{"--agents", c.Agents, 1, maxBenchSize}, {"--tools", c.Tools, 1, maxBenchTools}, {"--grants", c.Grants, 1, maxBenchSize},
		{"--events", c.Events, 0, maxBenchSize}, {"--rounds", c.Rounds, 1, 100},
	} {
		if f.n < f.low || f.n > f.high {
			return usagef("%s must be %d to %d", f.name, f.low, f.high)
		}
	}
	for _, n := range c.Connections {
		if n < 1 || n > maxBenchConnections {
			return usagef("--connections must be 1 to %d", maxBenchConnections)
		}
	}
	for _, n := range c.Scale {
		if n < 1 || n > maxBenchSize {
			return usagef("--scale must be 1 to %d", maxBenchSize)
		}
	}
	if c.Duration < 10*time.Millisecond || c.Duration > time.Minute {
		return usagef("--duration must be 10ms to 1m")
	}
	if len(c.Scale) == 0 && c.Grants > c.Agents*c.Tools {
		return usagef("--grants must be at most agents times tools: an agent has one grant for a tool")
	}
	if len(c.Scale) > 1 && strings.HasPrefix(c.Database, "sqlite:") {
		return usagef("--scale makes several databases: sqlite:PATH names only one")
	}
	if needs := c.Duration * time.Duration(c.Rounds*len(c.Connections)*(1+max(1, len(c.Scale)))); needs > c.Timeout {
		return usagef("--timeout must be longer than what is to be measured, which takes %v", needs)
	}
	return nil
}

// sizes are the databases to make, each under its name.
func (c *benchCommand) sizes() []benchSize {
	var all []benchSize
	for _, n := range c.Scale {
		all = append(all, benchSize{fmt.Sprint(n), seed.Counts{Agents: n, Tools: c.Tools, Grants: n, Events: n}})
	}
	if len(all) == 0 {
		all = []benchSize{{"agentkey", seed.Counts{Agents: c.Agents, Tools: c.Tools, Grants: c.Grants, Events: c.Events}}}
	}
	return all
}

type benchSize struct {
	name string
	seed.Counts
}

// bare is the server that a ratio is to.
const bare = "bare"

// Run measures.
func (c *benchCommand) Run(ctx context.Context, s *session) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	b := &bench{session: s, command: c}
	defer func() {
		failed := err != nil
		err = errors.Join(err, b.close())
		if failed && ctx.Err() != nil {
			err = fmt.Errorf("stopped before the end; what was made is removed: %w", err)
		}
	}()
	var plot *os.File
	if c.SVG != "" { // shows before minutes are spent
		if plot, err = os.OpenFile(c.SVG, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("--svg: %w", cause(err))
		}
		defer func() {
			err = errors.Join(err, plot.Close())
			if err != nil {
				err = errors.Join(err, os.Remove(c.SVG))
			}
		}()
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return err
	}
	r := b.report()
	if plot != nil {
		if err := load.Plot(plot, r.title(), r.lines()); err != nil {
			return err
		}
	}
	if c.JSON {
		return s.emit(r)
	}
	return r.print(s)
}

// bench is a measurement under way.
type bench struct {
	session *session
	command *benchCommand
	dir     string
	sync    time.Duration
	servers []*benchServer
	rounds  map[benchAt][]load.Sample
	closers []func() error
}

// benchServer is a server in a process of its own.
type benchServer struct {
	name   string
	target load.Target
	made   *benchMade // nil: the bare one
	idle   int64      // memory before the first load
}

// benchAt is a server at a number of connections.
type benchAt struct {
	server      string
	connections int
}

// later notes what is to be undone.
func (b *bench) later(undo func() error) { b.closers = append(b.closers, undo) }

// close undoes what was done, the last first.
func (b *bench) close() error {
	var err error
	for i := len(b.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, b.closers[i]())
	}
	b.closers = nil
	return err
}

// prepare makes the databases and starts all servers.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "agentkey-bench-"); err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	b.later(func() error { return os.RemoveAll(b.dir) })
	at := b.dir
	if path, found := strings.CutPrefix(b.command.Database, "sqlite:"); found {
		at = filepath.Dir(path)
	}
	for _, size := range b.command.sizes() {
		server, err := b.install(ctx, size)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, server)
	}
	if b.sync, err = load.Sync(at, b.session.options.Clock); err != nil {
		return err
	}
	server, err := b.startBare(ctx, b.servers[0])
	if err != nil {
		return err
	}
	b.servers = append(b.servers, server)
	p := b.session.progress("waiting until the servers have nothing to do")
	defer p.end()
	waits := make(chan error, len(b.servers))
	for _, server := range b.servers {
		go func() {
			err := load.Idle(ctx, server.target.Process, benchIdle)
			server.idle = load.Memory(server.target.Process)
			waits <- err
		}()
	}
	for range b.servers {
		err = errors.Join(err, <-waits)
	}
	return err
}

// benchIdle bounds the wait for a server's work at its start, which replays its
// log.
const benchIdle = 3 * time.Minute

// measure puts the servers under each load in turn, in every round.
func (b *bench) measure(ctx context.Context) error {
	c := b.command
	b.rounds = make(map[benchAt][]load.Sample)
	p := b.session.progress("measuring")
	defer p.end()
	for round := range c.Rounds {
		p.set(fmt.Sprintf("round %d of %d", round+1, c.Rounds))
		for _, connections := range c.Connections {
			for i := range b.servers { // each is the first of a round in its turn
				server := b.servers[(round+i)%len(b.servers)]
				sample, err := load.Run(ctx, server.target, connections, round*7919, c.Duration, b.session.options.Clock)
				if err != nil {
					return fmt.Errorf("measure %s with %s: %w", server.name, plural(int64(connections), "connection"), err)
				}
				at := benchAt{server.name, connections}
				b.rounds[at] = append(b.rounds[at], sample)
			}
		}
	}
	return nil
}

// machine says where it was measured.
func machine() string {
	return fmt.Sprintf("%s/%s, %s, %s", runtime.GOOS, runtime.GOARCH, plural(int64(runtime.NumCPU()), "processor"), runtime.Version())
}
