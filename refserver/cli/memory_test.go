package cli_test

import (
	"context"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// TestMemoryIsGivenBack: once each time that a server becomes quiet, and never
// under load.
func TestMemoryIsGivenBack(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, end := context.WithCancel(t.Context())
	look := make(chan time.Time)
	used := make(chan uint64, 1) // what is answered at the next look
	given := 0
	ended := make(chan struct{})
	used <- 0
	go func() {
		cli.WhenQuiet(ctx, look, func() uint64 { return <-used }, func() { given++ })
		close(ended)
	}()
	var total uint64
	for _, more := range []uint64{cli.QuietBytes, 50 * cli.QuietBytes, 100, 0, cli.QuietBytes - 1, cli.QuietBytes, 7, 7} {
		total += more
		look <- time.Time{}
		used <- total
	}
	look <- time.Time{} // is taken when all before is done
	end()
	used <- total
	<-ended
	is.Equal(given, 2)
	is.True(cli.Allocated() > 0)
}
