package main

import (
	"strings"
	"testing"

	"github.com/matryer/is"
)

// With --unprepared the program prepares nothing under a name, which would be on
// another connection than the transaction that uses it behind a pooler of
// transactions, and it does not migrate, which takes a lock of its session.
func TestUnprepared(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	between, in := proxied(t)
	binary := program(t)
	unmigrated := in.launch(t, binary, freeAddress(t), "--unprepared")
	<-unmigrated.finished
	is.True(strings.Contains(unmigrated.log.String(), "without --unprepared, which migrates it"))

	p, _ := in.start(t, binary, freeAddress(t))
	is.True(between.prepared.Load() > 0) // else this test sees nothing
	p.kill()
	between.prepared.Store(0)
	p = in.launch(t, binary, freeAddress(t), "--unprepared")
	p.await(t)
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	l.advance(t, 50)
	stop()
	is.Equal(l.cut.Load(), int64(0))
	l.check(t)
	is.Equal(between.prepared.Load(), int64(0))
}
