package agentkey_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// truncate takes away the lines of one log that came after the state that keep noted,
// and puts its head of that time back: a sound log, that is shorter.
func (c *burglary) truncate() {
	c.t.Helper()
	const size = "(SELECT size FROM kept_agentkey_logs WHERE organization = ?)"
	for _, table := range []string{"agentkey_events", "agentkey_leaves"} {
		c.change("DELETE FROM "+table+" WHERE organization = ? AND seq >= "+size, c.org, c.org)
	}
	c.exec("DELETE FROM agentkey_checkpoints WHERE organization = ? AND size > "+size, c.org, c.org)
	c.change("DELETE FROM agentkey_logs WHERE organization = ?", c.org)
	c.change("INSERT INTO agentkey_logs SELECT * FROM kept_agentkey_logs WHERE organization = ?", c.org)
}

// TestTruncatedLogIsRefused when a process starts, and by one that runs.
func TestTruncatedLogIsRefused(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		is := is.New(t)
		c, n := anchoredSite(t, s)
		is.NoErr(c.startWith(nil, n))
		c.truncate()
		is.True(errors.Is(c.vend(c.bot, c.personal), agentkey.ErrIntegrity))
		is.NoErr(c.vendFor(c.other, c.otherBot, c.otherTool)) // until the anchors are asked
		c.close()                                             // which does
		is.True(errors.Is(c.vendFor(c.other, c.otherBot, c.otherTool), agentkey.ErrClosed))
		err := c.startWith(nil, n)
		is.True(errors.Is(err, agentkey.ErrRolledBack))
		is.True(strings.Contains(err.Error(), c.org))
	})
}

// TestShorterLogIsServedNoMore: a process that wrote nothing, and has neither compared
// anything nor been asked to, holds a log to what it once proved of it.
func TestShorterLogIsServedNoMore(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, _ := anchoredSite(t, newSite(t))
	is.NoErr(c.start()) // without anchors
	served, err := c.m.LatestCheckpoint(t.Context(), c.owner)
	is.NoErr(err)
	c.restoreUnder()
	_, err = c.m.LatestCheckpoint(t.Context(), c.owner)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	_, err = c.m.InclusionProof(t.Context(), c.owner, 1, 0)
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	is.True(errors.Is(c.vend(c.bot, c.shared), agentkey.ErrIntegrity)) // revoked in what was lost

	// Another process goes on from there, until its log is longer again: two heads, of
	// which one does not extend the other, which only a proof can show.
	m := c.m
	is.NoErr(c.start())
	var fork agentkey.SignedCheckpoint
	for fork.Size <= served.Size {
		is.NoErr(c.vend(c.bot, c.shared))
		fork, err = c.m.LatestCheckpoint(t.Context(), c.owner)
		is.NoErr(err)
		got, err := m.LatestCheckpoint(t.Context(), c.owner)
		is.True(fork.Size > served.Size == (err == nil))
		is.True(err != nil || got.Size == fork.Size)
	}
}

// TestReaderHasAnchorsAsked: what a process finds shorter than it knew it stops it
// soon, and not at the next interval.
func TestReaderHasAnchorsAsked(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := anchoredSite(t, newSite(t))
	is.NoErr(c.startWith(func(o *agentkey.Config) { o.AnchorInterval, o.ReconcileInterval = time.Hour, -1 }, n))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	m := c.m
	go func() { ended <- m.Run(ctx) }()
	until(t, func() bool { // all that it wrote at its start is kept: it has nothing to ask an anchor
		system, err := m.LatestCheckpoint(t.Context(), person(systemLog, "reader", agentkey.RoleAuditor))
		return err == nil && len(c.logged(systemLog, audit.ActionServerStarted)) > 0 && string(n.get(systemLog)) == string(system.Signed)
	})
	c.restoreUnder()
	_, err := c.m.LatestCheckpoint(t.Context(), c.owner)
	is.True(errors.Is(err, agentkey.ErrIntegrity) || errors.Is(err, agentkey.ErrRolledBack))
	until(t, func() bool { return errors.Is(c.m.Ready(t.Context()), agentkey.ErrRolledBack) })
	stop()
	<-ended
}

// TestAnchorIsAwayForLong: it gets the newest heads when it is back, and no others,
// and before that nothing is held for it but the logs' names.
func TestAnchorIsAwayForLong(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	n := newNotebook()
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.Storage, c.Anchors, c.AnchorInterval = memstore.New(), []agentkey.Anchor{n}, time.Millisecond
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	until(t, func() bool { return len(n.get(k.Organization.ID)) > 0 })
	n.fail(errors.New("no route"))
	recordMany(t, k.Manager, k.Owner, 2000)
	n.mu.Lock()
	before, tries := len(n.all), n.refused+2
	n.mu.Unlock()
	until(t, func() bool { // the try that was under way may have been of an older head
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.refused >= tries
	})
	n.fail(nil)
	latest, err := k.LatestCheckpoint(t.Context(), k.Owner)
	is.NoErr(err)
	until(t, func() bool { return string(n.get(k.Organization.ID)) == string(latest.Signed) })
	n.mu.Lock()
	posted := 0
	for _, signed := range n.all[before:] {
		if strings.Contains(signed, "/"+k.Organization.ID+"/") {
			posted++
		}
	}
	n.mu.Unlock()
	is.Equal(posted, 1)
	stop()
	is.NoErr(<-ended)
}

// TestRestoreBehindSigningKey puts back a database from before the key that signed
// what is kept: it is refused in so many words, and accepted with that key alone, which
// then counts for the anchors of other nodes too.
func TestRestoreBehindSigningKey(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		is := is.New(t)
		ctx, operator := t.Context(), agentkey.Operator("test")
		c, n := anchoredSite(t, s)
		is.NoErr(c.startWith(nil, n))
		former := c.m.PublicKey()
		_, err := c.m.RotateSigningKey(ctx, operator)
		is.NoErr(err)
		lost := c.m.PublicKey()
		is.NoErr(c.vend(c.bot, c.personal))
		c.close()
		other := n.copy() // another node's
		c.restoreAll()

		err = c.startWith(nil, n)
		is.True(errors.Is(err, agentkey.ErrAnchorDamaged))
		is.True(strings.Contains(err.Error(), "a key that the database does not know"))
		is.NoErr(c.startWith(restoring, n))
		stranger, err := audit.NewSigner(audit.SignerName(c.m.Installation()), []byte(strings.Repeat("7", 32)))
		is.NoErr(err)
		for _, keys := range [][]string{nil, {former}, {stranger.PublicKey()}} {
			_, err = c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{PublicKeys: keys})
			is.True(errors.Is(err, agentkey.ErrAnchorDamaged))
		}
		_, err = c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{PublicKeys: []string{"nonsense"}})
		is.True(errors.Is(err, agentkey.ErrInvalid))
		accepted, err := c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{PublicKeys: []string{stranger.PublicKey(), lost}})
		is.NoErr(err)
		is.Equal(len(accepted), 2)
		c.close()

		is.NoErr(c.startWith(nil, n, other))
		is.Equal(n.get(c.org), other.get(c.org))
		is.Equal(c.m.PublicKey(), former) // which signs again
		keys := c.m.PublicKeys()
		is.True(slices.Contains(keys, lost))
		is.True(!slices.Contains(keys, stranger.PublicKey())) // it signed nothing that is kept
		_, err = c.m.Unlock(ctx, c.owner, "reviewed")
		is.NoErr(err)
		is.NoErr(c.vend(c.bot, c.shared))
		for _, organization := range []string{c.org, systemLog} {
			reader := person(organization, "reader", agentkey.RoleAuditor)
			report, err := c.m.Verify(ctx, reader)
			is.NoErr(err)
			is.True(report.OK())
		}
		found, err := c.m.Reconcile(ctx, c.owner)
		is.NoErr(err)
		is.True(found.OK())
		found, err = c.m.Reconcile(ctx, operator)
		is.NoErr(err)
		is.True(found.OK())
		_, err = c.m.RotateSigningKey(ctx, operator) // and goes on
		is.NoErr(err)
		c.close()
		is.NoErr(c.startWith(nil, n))
	})
}
