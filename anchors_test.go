package agentkey_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// notebook is an anchor in memory, with everything that it was ever given.
type notebook struct {
	mu      sync.Mutex
	kept    map[string][]byte // by organization
	all     []string
	fails   error
	refused int // how often it failed
	hangs   bool
}

func newNotebook() *notebook { return &notebook{kept: make(map[string][]byte)} }

func (n *notebook) Name() string { return "notes" }

func (n *notebook) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	n.mu.Lock()
	kept, fails, hangs := n.kept[h.Organization()], n.fails, n.hangs
	if fails != nil {
		n.refused++
	}
	n.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	if fails != nil {
		return fails
	}
	if err := h.Follows(ctx, kept); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kept[h.Organization()] = h.Signed
	n.all = append(n.all, string(h.Signed))
	return nil
}

func (n *notebook) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails = err
}

func (n *notebook) get(organization string) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept[organization]
}

func (n *notebook) copy() *notebook {
	c := newNotebook()
	for id, note := range n.kept {
		c.kept[id] = note
	}
	return c
}

// startWith makes the Manager of a copy with anchors.
func (c *burglary) startWith(change func(*agentkey.Config), anchors ...agentkey.Anchor) error {
	c.t.Helper()
	c.open()
	config := c.config(c.store)
	config.Anchors = anchors
	if change != nil {
		change(&config)
	}
	var err error
	c.m, err = agentkey.New(c.t.Context(), config)
	return err
}

func initAnchors(c *agentkey.Config) { c.InitAnchors = true }
func restoring(c *agentkey.Config)   { c.Restoring = true }

func (c *burglary) close() {
	c.t.Helper()
	noErr(c.t, c.m.Close(c.t.Context()))
}

// anchoredSite is a copy whose heads are kept, with something done after the state
// that reset puts back.
func anchoredSite(t *testing.T, on *site) (*burglary, *notebook) {
	t.Helper()
	c, n := on.copy(t).keep(), newNotebook()
	noErr(t, c.startWith(initAnchors, n))
	c.clock.Advance(time.Hour)
	_, err := c.m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "third", Owner: "tim"})
	noErr(t, err)
	noErr(t, c.vend(c.bot, c.shared))
	_, err = c.m.Revoke(t.Context(), c.owner, c.bot, c.shared)
	noErr(t, err)
	c.close()
	return c, n
}

// restoreAll replaces the whole database, with what began since.
func (c *burglary) restoreAll() {
	c.t.Helper()
	c.reset(c.t)
}

// TestDatabasePutBackIsRefused, and one that only went on is not.
func TestDatabasePutBackIsRefused(t *testing.T) {
	t.Parallel()
	eachSite(t, testDatabasePutBack)
}

func testDatabasePutBack(t *testing.T, s *site) {
	is := is.New(t)
	c, n := anchoredSite(t, s)
	is.NoErr(c.startWith(nil, n))
	is.True(errors.Is(c.vend(c.bot, c.shared), agentkey.ErrRevoked))
	c.close()
	before := n.copy()
	c.restoreAll()
	err := c.startWith(nil, n)
	is.True(errors.Is(err, agentkey.ErrRolledBack))
	is.True(strings.Contains(err.Error(), "notes"))
	is.Equal(n.kept, before.kept) // and keeps nothing of what it refused

	// Without anchors nobody notices; with them not even then.
	is.NoErr(c.start())
	is.NoErr(c.vend(c.bot, c.shared))
	c.close()
	is.True(errors.Is(c.startWith(nil, n), agentkey.ErrRolledBack)) // a fork
	is.True(errors.Is(c.startWith(initAnchors, n), agentkey.ErrRolledBack))
}

// TestForkIsRefused: two copies that both went on, the one as far as the other and
// farther.
func TestForkIsRefused(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := newSite(t).copy(t).keep(), newNotebook()
	is.NoErr(c.startWith(initAnchors, n))
	is.NoErr(c.vend(c.bot, c.shared))
	c.close()
	c.restoreAll()
	is.NoErr(c.start())
	for range 3 {
		is.NoErr(c.vend(c.bot, c.shared))
		err := c.startWith(nil, n)
		is.True(errors.Is(err, agentkey.ErrRolledBack))
		is.True(strings.Contains(err.Error(), c.org))
		is.NoErr(c.start())
	}
}

// TestAnchorBehindIsNoAlarm: the process may end between any commit and its head's
// way to the anchor.
func TestAnchorBehindIsNoAlarm(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := newSite(t).copy(t).keep(), newNotebook()
	is.NoErr(c.startWith(initAnchors, n))
	first := n.copy()
	for i := range 700 { // more than what is read without a proof
		is.NoErr(c.vend(c.otherBotVend(i)))
	}
	c.m = nil // as if it were killed
	is.NoErr(c.startWith(nil, first))
	is.True(string(first.get(c.org)) != string(n.get(c.org)))
	c.close()
	is.NoErr(c.startWith(nil, n))
	is.Equal(first.get(c.org), n.get(c.org))
}

func (c *burglary) otherBotVend(int) (agent, tool string) { return c.bot, c.personal }

// TestAnchorIsMissing: also that of one log, unless it began after what the anchor
// covers.
func TestAnchorIsMissing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := anchoredSite(t, newSite(t))
	is.True(errors.Is(c.startWith(nil, newNotebook()), agentkey.ErrAnchorMissing))
	lacking := n.copy()
	delete(lacking.kept, c.other)
	err := c.startWith(nil, lacking)
	is.True(errors.Is(err, agentkey.ErrAnchorMissing))
	is.True(strings.Contains(err.Error(), c.other))
	is.NoErr(c.startWith(initAnchors, lacking))
	is.True(len(lacking.get(c.other)) > 0)
	c.close()

	// A new organization, made by a process without anchors.
	is.NoErr(c.start())
	c.clock.Advance(time.Hour)
	made, err := c.m.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "fourth", Owner: "tim"})
	is.NoErr(err)
	is.NoErr(c.startWith(nil, n))
	is.True(len(n.get(made.Organization.ID)) > 0)
}

func TestAnchorIsDamaged(t *testing.T) {
	t.Parallel()
	c, n := anchoredSite(t, newSite(t))
	foreign := newNotebook()
	_, err := agentkey.New(t.Context(), agentkey.Config{
		Storage: memstore.New(), Keys: agentkeytest.Keys(t), Anchors: []agentkey.Anchor{foreign},
	})
	noErr(t, err)
	signed := n.get(c.org)
	edited := []byte(strings.Replace(string(signed), "\n1", "\n2", 1))
	for name, note := range map[string][]byte{
		"cut": signed[:len(signed)/2], "no note": []byte("x"), "another log's": n.get(c.other), "another size": append(edited, '\n'),
		"another installation's": foreign.get(storage.System), "signature cut": []byte(strings.SplitAfter(string(signed), "\n\n")[0]),
	} {
		damaged := n.copy()
		damaged.kept[c.org] = note
		for _, change := range []func(*agentkey.Config){nil, initAnchors} {
			if err := c.startWith(change, damaged); !errors.Is(err, agentkey.ErrAnchorDamaged) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestAnchorIsAway: it fails no start and no vend, and revocations say so.
func TestAnchorIsAway(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := anchoredSite(t, newSite(t))
	n.fails = errors.New("no route")
	is.NoErr(c.startWith(nil, n))
	is.NoErr(c.vend(c.bot, c.personal))
	var said []bool
	ctx := agentkey.AwaitAnchors(t.Context(), time.Minute, func(ok bool) { said = append(said, ok) })
	_, err := c.m.SuspendAgent(ctx, c.owner, c.bystander)
	is.NoErr(err)
	n.fails, n.hangs = nil, true
	ctx = agentkey.AwaitAnchors(t.Context(), 10*time.Millisecond, func(ok bool) { said = append(said, ok) })
	_, err = c.m.ReactivateAgent(ctx, c.owner, c.bystander)
	is.NoErr(err)
	is.NoErr(c.vend(c.bot, c.personal))
	n.hangs = false
	_, err = c.m.SuspendAgent(agentkey.AwaitAnchors(t.Context(), time.Minute, func(ok bool) { said = append(said, ok) }), c.owner, c.bystander)
	is.NoErr(err)
	is.Equal(said, []bool{false, false, true})
	latest, err := c.m.LatestCheckpoint(t.Context(), c.owner)
	is.NoErr(err)
	is.Equal(string(n.get(c.org)), string(latest.Signed))
	is.NoErr(c.vend(c.bot, c.personal))
}

// TestRunningServerNotices: another process's database was put back under it.
func TestRunningServerNotices(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c, n := anchoredSite(t, newSite(t))
	is.NoErr(c.startWith(func(o *agentkey.Config) { o.AnchorInterval = time.Millisecond }, n))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.m.Run(ctx) }()
	until(t, func() bool { return len(c.logged(systemLog, audit.ActionServerStarted)) > 0 })
	c.restoreUnder()
	until(t, func() bool { return errors.Is(c.m.Ready(t.Context()), agentkey.ErrRolledBack) })
	is.True(errors.Is(c.vend(c.bot, c.personal), agentkey.ErrRolledBack))
	is.True(errors.Is(c.vendFor(c.other, c.otherBot, c.otherTool), agentkey.ErrRolledBack)) // nothing at all
	stop()
	is.True(errors.Is(<-ended, agentkey.ErrRolledBack))
}

// restoreUnder is restoreAll under a running Manager.
func (c *burglary) restoreUnder() {
	m := c.m
	c.restoreAll()
	c.m = m
}

func until(t *testing.T, holds func() bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); !holds(); {
		select {
		case <-deadline:
			t.Fatal("did not come about")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// TestAcceptRestore: the whole way back, on an anchor of this node, and on those of
// others that have more of what was lost, or less.
func TestAcceptRestore(t *testing.T) {
	t.Parallel()
	eachSite(t, testAcceptRestore)
}

func testAcceptRestore(t *testing.T, s *site) {
	is := is.New(t)
	ctx, operator := t.Context(), agentkey.Operator("test")
	c, n := anchoredSite(t, s)
	less := n.copy() // another node, that was killed earlier
	is.NoErr(c.startWith(nil, n))
	is.NoErr(c.vend(c.bot, c.personal))
	c.close()
	more := n.copy() // and one that went on longer
	is.NoErr(c.startWith(nil, more))
	is.NoErr(c.vend(c.bot, c.personal))
	c.close()
	lostHead := n.get(c.org)
	c.restoreAll()

	is.NoErr(c.startWith(restoring, n))
	is.True(errors.Is(c.vend(c.bot, c.personal), agentkey.ErrRolledBack))
	_, err := c.m.AcceptRestore(ctx, c.owner, agentkey.AcceptRestoreInput{})
	is.True(errors.Is(err, agentkey.ErrRolledBack) || errors.Is(err, agentkey.ErrForbidden)) // nobody but an operator
	accepted, err := c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{Reason: "disk failed"})
	is.NoErr(err)
	is.Equal(len(accepted), 2) // the third organization is gone, the other one did not change
	is.Equal(accepted[0].Organization, storage.System)
	is.Equal(accepted[1].Organization, c.org)
	is.Equal(accepted[1].Epoch, int64(2))
	is.Equal(len(accepted[1].Review), 2) // the revoked grant is approved again
	_, err = c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{})
	is.True(errors.Is(err, agentkey.ErrNothingLost))
	c.close()

	is.True(errors.Is(c.startWith(nil, more), agentkey.ErrRolledBack)) // that was never accepted
	is.NoErr(c.startWith(nil, n, less))
	is.True(errors.Is(c.vend(c.bot, c.shared), agentkey.ErrOrganizationLocked))
	is.NoErr(c.vendFor(c.other, c.otherBot, c.otherTool))
	opened := c.logged(c.org, audit.ActionLogEpochOpened)
	is.Equal(len(opened), 1)
	is.Equal(opened[0].Details["lost_head"], string(lostHead))
	is.Equal(opened[0].Seq, accepted[1].Size) // the first of the epoch
	is.Equal(len(c.logged(systemLog, audit.ActionRestoreAccepted)), 1)

	approver := person(c.org, "app", agentkey.RoleApprover)
	_, err = c.m.Unlock(ctx, approver, "looks fine")
	is.True(errors.Is(err, agentkey.ErrForbidden))
	_, err = c.m.Unlock(ctx, c.owner, "reviewed")
	is.NoErr(err)
	is.Equal(c.logged(c.org, audit.ActionOrganizationUnlocked)[0].Details["reviewed_epoch"], "2")
	is.NoErr(c.vend(c.bot, c.shared))
	report, err := c.m.Verify(ctx, c.owner)
	is.NoErr(err)
	is.True(report.OK())
	found, err := c.m.Reconcile(ctx, c.owner)
	is.NoErr(err)
	is.True(found.OK())
	var exported strings.Builder
	is.NoErr(c.m.Export(ctx, c.owner, &exported))
	lines, err := audit.NewExportReader(strings.NewReader(exported.String()))
	is.NoErr(err)
	known, err := audit.NewVerifiers(c.m.PublicKeys()...)
	is.NoErr(err)
	against, err := audit.Verify(ctx, audit.Log{
		Installation: c.m.Installation(), Organization: c.org, Entries: lines, Verifiers: known, Elsewhere: [][]byte{lostHead},
	})
	is.NoErr(err)
	is.Equal(len(against.Findings), 1)
	is.True(strings.Contains(against.Findings[0].Problem, "an epoch that was lost"))
	proof, err := c.m.InclusionProof(ctx, c.owner, 0, 0)
	is.NoErr(err)
	keys, err := audit.NewVerifiers(c.m.PublicKeys()...)
	is.NoErr(err)
	_, err = proof.Verify(keys)
	is.NoErr(err)
	c.close()
	is.True(strings.HasPrefix(string(n.get(c.org)), "agentkey/"+c.m.Installation()+"/"+c.org+"/2\n"))
	is.Equal(n.get(c.org), less.get(c.org))
	is.NoErr(c.startWith(nil, n)) // and goes on
	is.True(errors.Is(c.startWith(restoring, more), nil))
	again, err := c.m.AcceptRestore(ctx, operator, agentkey.AcceptRestoreInput{})
	is.NoErr(err)
	is.Equal(again[len(again)-1].Epoch, int64(3))
}

// remembers is an anchor that knows sizes alone, as a witness does.
type remembers struct {
	mu    sync.Mutex
	sizes map[string]int64 // by origin
}

func (r *remembers) Name() string { return "remembers" }

func (r *remembers) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := h.FollowsSize(ctx, r.sizes[h.Origin]); err != nil {
		return err
	}
	r.sizes[h.Origin] = h.Size
	return nil
}

// wentBack is a Manager on the scene's storage for which an anchor remembers more than
// there is.
func (s *scene) wentBack() *agentkey.Manager {
	s.t.Helper()
	head, err := s.LatestCheckpoint(s.t.Context(), asHost(s.Owner))
	s.noErr(err)
	m, err := agentkey.New(s.t.Context(), agentkey.Config{
		Storage: s.faults, Keys: s.keys, Clock: s.Clock.Now, Policies: agentkeytest.Unlimited(), Restoring: true,
		Anchors: []agentkey.Anchor{&remembers{sizes: map[string]int64{head.Origin: head.Size + 10}}},
	})
	s.noErr(err)
	s.others = append(s.others, m)
	return m
}
