package bunstore_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// These tell the process that is going to be killed where to write.
const (
	crashPlace  = "AGENTKEY_TEST_CRASH_PLACE"
	crashServer = "AGENTKEY_TEST_CRASH_SERVER"
)

// TestCrashWriter is that process: it says each line's number after the line
// was committed, until it is killed.
func TestCrashWriter(t *testing.T) {
	where := os.Getenv(crashPlace)
	if where == "" {
		t.Skip("runs as a process of TestKilled")
	}
	s := placeAt(t, where).open(t)
	var out sync.Mutex
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for {
				seq, err := vend(context.Background(), s, "acme", "agent-000")
				if err != nil {
					t.Errorf("vend: %v", err)
					return
				}
				out.Lock()
				fmt.Printf("committed %d\n", seq)
				out.Unlock()
			}
		})
	}
	writers.Wait()
}

// TestKilled: whatever was answered is there after the process was killed, the
// log is whole, and the next process goes on.
func TestKilled(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		ctx := context.Background()
		s := p.open(t)
		furnish(t, s, "acme", 1)
		for range 3 {
			said := killWhileWriting(t, p, "TestCrashWriter", 40)
			var head storage.Head
			lines := make(map[int64]audit.Line)
			var tree audit.Tree
			is.NoErr(s.View(ctx, "acme", func(ctx context.Context, tx storage.ReadTx) (err error) {
				if head, err = tx.Head(ctx); err != nil {
					return err
				}
				all, err := tx.Lines(ctx, 0, storage.MaxPage)
				for _, l := range all {
					is.Equal(l.Leaf, audit.LeafHash(l.Content))
					tree.Append(l.Leaf)
					lines[l.Seq] = l
				}
				return err
			}))
			is.Equal(tree.Size(), head.Size)
			is.Equal(tree.Edge(), head.Edge)
			for _, seq := range said {
				_, ok := lines[seq]
				is.True(ok)
			}
			_, err := vend(ctx, s, "acme", "agent-000")
			is.NoErr(err)
		}
	})
}

// killWhileWriting runs a test that writes in a process of its own, and kills that
// when it has said some lines.
func killWhileWriting(t *testing.T, p *place, writer string, after int) (said []int64) {
	t.Helper()
	is := is.New(t)
	c := exec.Command(os.Args[0], "-test.run=^"+writer+"$")
	c.Env = append(os.Environ(), crashPlace+"="+p.where, crashServer+"="+p.dsn)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	is.NoErr(err)
	is.NoErr(c.Start())
	defer func() { _ = c.Wait() }() // "signal: killed"
	defer func() { _ = c.Process.Kill() }()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		number, ok := strings.CutPrefix(lines.Text(), "committed ")
		if !ok {
			t.Fatalf("the writer said %q", lines.Text())
		}
		seq, err := strconv.ParseInt(number, 10, 64)
		is.NoErr(err)
		if said = append(said, seq); len(said) == after {
			is.NoErr(c.Process.Kill()) // what it still says was committed as well
		}
	}
	is.True(len(said) >= after)
	return said
}
