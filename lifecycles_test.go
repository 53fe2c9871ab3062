package agentkey_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
)

func (s *stage) perAgent(name string) string {
	s.t.Helper()
	return addTool(s.t, s.Manager, s.boss(), name, "")
}

// refusedWith wants that error.
func refusedWith(got error, want *agentkey.Error) error {
	if errors.Is(got, want) {
		return nil
	}
	return fmt.Errorf("got %w, want %s", got, want.Code)
}

// Agents: keys with grace, that end, and that are bound to addresses.
func TestKeys(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	vend := func(c agentkey.Caller) error { return second(s.Vend(ctx, c, s.tool.ID)) }
	next, err := s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{Grace: time.Minute, ExpiresIn: time.Hour, Addresses: []string{" 192.0.2.0/24 "}})
	is.NoErr(err)
	inside := agentkey.Key(string(next.Secret.Bytes())).With(agentkey.RequestContext{Address: address("192.0.2.7")})
	mapped := inside.With(agentkey.RequestContext{Address: address("::ffff:192.0.2.7")})
	outside := inside.With(agentkey.RequestContext{Address: address("198.51.100.7")})
	nowhere := inside.With(agentkey.RequestContext{})
	is.NoErr(vend(s.requester))
	is.NoErr(vend(inside))
	is.NoErr(vend(mapped))
	is.Equal(vend(outside), agentkey.ErrKeyAddress)
	is.Equal(vend(nowhere), agentkey.ErrKeyAddress)
	s.Clock.Advance(time.Minute - time.Microsecond)
	is.NoErr(vend(s.requester))
	s.Clock.Advance(time.Microsecond)
	is.Equal(vend(s.requester), agentkey.ErrKeyExpired)
	s.Clock.Advance(time.Hour)
	is.Equal(vend(inside), agentkey.ErrKeyExpired)
	last, err := s.RotateKey(ctx, s.Owner, s.bot.ID, agentkey.RotateKeyInput{})
	is.NoErr(err)
	is.NoErr(vend(agentkey.Key(string(last.Secret.Bytes()))))
	is.NoErr(s.RevokeKey(ctx, s.Owner, s.bot.ID, last.Key.ID))
	is.Equal(vend(agentkey.Key(string(last.Secret.Bytes()))), agentkey.ErrKeyRevoked)
	keys, err := s.AgentKeys(ctx, s.Owner, agentkey.AgentKeysInput{Agent: s.bot.ID})
	is.NoErr(err)
	is.Equal(len(keys), 3)
	for _, k := range keys {
		is.Equal(len(k.Digest), 0)
	}
	suspended, err := s.RotateKey(ctx, s.Owner, s.suspended.ID, agentkey.RotateKeyInput{}) // works on suspended agents too
	is.NoErr(err)
	is.Equal(vend(agentkey.Key(string(suspended.Secret.Bytes()))), agentkey.ErrSuspended)
}

// Requests: terms are only narrowed, several approve, the owner not alone.
func TestRequestsAndApprovals(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	two := int64(2)
	is.NoErr(s.updateTool(agentkey.UpdateToolInput{RequiredApprovals: &two}))
	other, caller := s.Agent("second")
	g, err := s.RequestAccess(ctx, caller, agentkey.RequestInput{Tool: s.tool.ID, Reason: "to test", Duration: time.Hour, MaxVends: 5, Scopes: []string{"a", "b"}})
	is.NoErr(err)
	is.Equal(second(s.RequestAccess(ctx, caller, agentkey.RequestInput{Tool: s.tool.ID, Reason: "to test"})), agentkey.ErrAlreadyPending)
	for _, wider := range []agentkey.DecisionInput{{Duration: 2 * time.Hour}, {MaxVends: 6}, {Scopes: []string{"c"}}} {
		is.True(errors.Is(second(s.Approve(ctx, s.boss(), g.ID, wider)), agentkey.ErrInvalid))
	}
	is.Equal(second(s.Assign(ctx, s.boss(), agentkey.AssignInput{Agent: other.ID, Tool: s.tool.ID})), agentkey.ErrApprovalsRequired)
	first, err := s.Approve(ctx, s.Owner, g.ID, agentkey.DecisionInput{MaxVends: 3})
	is.NoErr(err)
	is.Equal(string(first.Status), "pending")
	is.Equal(second(s.Vend(ctx, caller, s.tool.ID)), agentkey.ErrPending)
	is.Equal(second(s.Approve(ctx, s.Owner, g.ID, agentkey.DecisionInput{})), agentkey.ErrAlreadyDecided)
	is.True(errors.Is(second(s.Approve(ctx, s.boss(), g.ID, agentkey.DecisionInput{MaxVends: 4})), agentkey.ErrInvalid))
	last, err := s.Approve(ctx, s.boss(), g.ID, agentkey.DecisionInput{Scopes: []string{"b"}})
	is.NoErr(err)
	is.Equal(last.Granted.MaxVends, int64(3))
	is.Equal(last.Granted.Scopes, []string{"b"})
	is.Equal(last.ExpiresAt, agentkeytest.Epoch.Add(time.Hour).UnixMicro())
	is.Equal(second(s.Approve(ctx, s.boss(), g.ID, agentkey.DecisionInput{})), agentkey.ErrNotPending)
	is.Equal(second(s.Deny(ctx, s.boss(), g.ID, "")), agentkey.ErrNotPending)
	is.True(errors.Is(second(s.Narrow(ctx, s.boss(), g.ID, agentkey.Terms{MaxVends: 9})), agentkey.ErrInvalid))
	v, err := s.Vend(ctx, caller, s.tool.ID)
	is.NoErr(err)
	is.Equal(v.VendsLeft, int64(2))
	revoked, err := s.Revoke(ctx, s.boss(), other.ID, s.tool.ID)
	is.NoErr(err)
	is.Equal(revoked.Vends, int64(1))
	is.Equal(revoked.LastVend, s.Clock.Now().UnixMicro())
	is.True(revoked.RotateUpstream)
	is.Equal(second(s.Approve(ctx, s.Owner, s.pending.ID, agentkey.DecisionInput{})), agentkey.ErrOwnerAlone)
}

// The credential of a per-agent tool is needed by the last approval and goes with
// the grant, however that ends.
func TestPerAgentCredentials(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	tool := s.perAgent("Own")
	own := agentkey.NewSecret([]byte("own_test_credential"))
	in := agentkey.AssignInput{Agent: s.bot.ID, Tool: tool}
	ends := map[string]func() error{
		"revoke":  func() error { return second(s.Revoke(ctx, s.boss(), s.bot.ID, tool)) },
		"used up": func() error { return second(s.Vend(ctx, s.requester, tool)) },
		"expiry": func() error {
			s.Clock.Advance(time.Hour)
			return refusedWith(second(s.Vend(ctx, s.requester, tool)), agentkey.ErrExpired)
		},
		"suspend": func() error { return second(s.SuspendAgent(ctx, s.boss(), s.bot.ID)) },
	}
	for _, name := range []string{"revoke", "used up", "expiry", "suspend"} {
		in.DecisionInput = agentkey.DecisionInput{Duration: time.Hour, MaxVends: 2}
		is.True(errors.Is(second(s.Assign(ctx, s.boss(), in)), agentkey.ErrInvalid)) // the last one is gone
		in.Credential = own
		is.NoErr(second(s.Assign(ctx, s.boss(), in)))
		is.NoErr(second(s.Vend(ctx, s.requester, tool)))
		lines, err := s.recorded(ends[name])
		is.NoErr(err)
		is.True(strings.Contains(strings.Join(lines, "\n"), "-credential")) // says so
	}
}

// Administrators and tokens: the last owner stays, and what was taken away counts
// at once.
func TestAdministrators(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	auditor := agentkey.RoleAuditor
	is.Equal(s.RemoveAdministrator(ctx, s.Owner, s.Owner.ID), agentkey.ErrLastOwner)
	is.Equal(second(s.UpdateAdministrator(ctx, s.Owner, s.Owner.ID, agentkey.UpdateAdministratorInput{Role: &auditor})), agentkey.ErrLastOwner)
	admin := s.Actor(agentkey.RoleOwner)
	is.NoErr(second(s.UpdateAdministrator(ctx, s.Owner, s.Owner.ID, agentkey.UpdateAdministratorInput{Role: &auditor})))
	is.Equal(second(s.Lock(ctx, s.Owner, "")), agentkey.ErrRole) // as it was authenticated, it is an owner still
	is.NoErr(s.RemoveAdministrator(ctx, admin, s.Owner.ID))
	is.True(errors.Is(second(s.Lock(ctx, s.Owner, "")), agentkey.ErrUnauthenticated))
	is.Equal(s.RemoveAdministrator(ctx, admin, s.Owner.ID), agentkey.ErrNoAdministrator)
	short, err := s.CreateToken(ctx, admin, agentkey.CreateTokenInput{ExpiresIn: time.Minute})
	is.NoErr(err)
	brief, err := s.Authenticate(ctx, short.Secret, agentkey.RequestContext{})
	is.NoErr(err)
	s.Clock.Advance(time.Minute)
	is.Equal(second(s.Lock(ctx, brief, "")), agentkey.ErrTokenExpired)
	is.Equal(second(s.Authenticate(ctx, short.Secret, agentkey.RequestContext{})), agentkey.ErrTokenExpired)
	is.NoErr(s.RevokeToken(ctx, admin, short.Token.ID))
	is.Equal(second(s.Authenticate(ctx, short.Secret, agentkey.RequestContext{})), agentkey.ErrUnknownToken)
}

func address(s string) netip.Addr { return netip.MustParseAddr(s) }

// trusted is the agent bot, vouched for by the host.
func (s *stage) trusted() agentkey.Caller {
	return agentkey.TrustedAgent(s.Kit.Organization.ID, s.bot.ID)
}

func (s *stage) sweepAfter(d time.Duration) error {
	s.Clock.Advance(d)
	return s.Sweep(s.t.Context())
}

func (s *stage) endCredential() error {
	end := s.Clock.Now().Add(time.Hour)
	return s.updateTool(agentkey.UpdateToolInput{CredentialExpiresAt: &end})
}

func (s *stage) suspendWithGrant() error {
	if _, err := s.Assign(s.t.Context(), s.boss(), agentkey.AssignInput{Agent: s.bot.ID, Tool: s.tool.ID}); err != nil {
		return err
	}
	return second(s.SuspendAgent(s.t.Context(), s.boss(), s.bot.ID))
}

// Tools: keys of their own under equal names, and health as their credential goes.
func TestToolsAndTheirHealth(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	for _, want := range []string{"linear-2", "linear-3"} {
		v, err := s.AddTool(ctx, s.boss(), agentkey.AddToolInput{Name: "Linear", AuthType: "other", Mode: "per_agent"})
		is.NoErr(err)
		is.Equal(v.Tool.ConfigKey, want)
		is.Equal(v.Health, agentkey.Healthy)
	}
	v, err := s.AddTool(ctx, s.boss(), agentkey.AddToolInput{Name: "日本", AuthType: "other", Mode: "per_agent"})
	is.NoErr(err)
	is.Equal(v.Tool.ConfigKey, "tool")
	health := func() agentkey.Health {
		v, err := s.Manager.Tool(ctx, s.boss(), s.tool.ID)
		is.NoErr(err)
		return v.Health
	}
	vend := func() error { return second(s.Vend(ctx, s.trusted(), s.tool.ID)) }
	end := s.Clock.Now().Add(15 * 24 * time.Hour)
	is.NoErr(s.updateTool(agentkey.UpdateToolInput{CredentialExpiresAt: &end}))
	is.Equal(health(), agentkey.Healthy)
	s.Clock.Advance(24 * time.Hour)
	is.Equal(health(), agentkey.Attention)
	is.NoErr(vend())
	s.Clock.Advance(14 * 24 * time.Hour)
	is.Equal(health(), agentkey.ActionNeeded)
	is.Equal(vend(), agentkey.ErrCredentialExpired)
	is.NoErr(s.updateTool(agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("lin_api_test_next"))}))
	got, err := s.Vend(ctx, s.trusted(), s.tool.ID)
	is.NoErr(err)
	is.Equal(string(got.Credential.Bytes()), "lin_api_test_next") // an old end does not end the next one
	s.Clock.Advance(91 * 24 * time.Hour)
	is.Equal(health(), agentkey.Attention) // rotated long ago
	is.NoErr(second(s.RemoveCredential(ctx, s.boss(), s.tool.ID)))
	is.Equal(health(), agentkey.ActionNeeded)
	is.Equal(vend(), agentkey.ErrNoCredential)
	is.Equal(second(s.RemoveCredential(ctx, s.boss(), s.tool.ID)), agentkey.ErrNoCredential)
	is.True(errors.Is(second(s.UpdateTool(ctx, s.boss(), v.Tool.ID, agentkey.UpdateToolInput{Credential: agentkey.NewSecret([]byte("x_test"))})), agentkey.ErrInvalid))
	is.NoErr(second(s.RequestAccess(ctx, s.suspendedNoMore(), agentkey.RequestInput{Tool: s.tool.ID, Reason: "to test"})))
	deleted, err := s.DeleteTool(ctx, s.boss(), s.tool.ID)
	is.NoErr(err)
	is.Equal(deleted, agentkey.DeletedTool{ID: s.tool.ID, ApprovedRevoked: 1, PendingRevoked: 1})
	is.Equal(vend(), agentkey.ErrNoTool)
	is.Equal(second(s.DeleteTool(ctx, s.boss(), s.tool.ID)), agentkey.ErrNoTool)
}

// suspendedNoMore is the agent that was suspended, reactivated: with no grants.
func (s *stage) suspendedNoMore() agentkey.Caller {
	s.t.Helper()
	noErr(s.t, second(s.ReactivateAgent(s.t.Context(), s.boss(), s.suspended.ID)))
	is.New(s.t).Equal(second(s.ReactivateAgent(s.t.Context(), s.boss(), s.suspended.ID)), agentkey.ErrAgentActive)
	is.New(s.t).Equal(second(s.Vend(s.t.Context(), s.suspender, s.tool.ID)), agentkey.ErrNoGrant)
	return s.suspender
}

// What an agent sees of itself and of the catalog.
func TestCatalogAndProfile(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	denied := s.perAgent("Denied")
	g, err := s.RequestAccess(ctx, s.requester, agentkey.RequestInput{Tool: denied, Reason: "to test"})
	is.NoErr(err)
	is.NoErr(second(s.Deny(ctx, s.boss(), g.ID, "not yours")))
	is.NoErr(second(s.Narrow(ctx, s.boss(), s.granted.ID, agentkey.Terms{MaxVends: 4, Duration: time.Hour.Microseconds()})))
	catalog, err := s.Catalog(ctx, s.requester, agentkey.CatalogInput{})
	is.NoErr(err)
	var access []string
	for _, i := range catalog.Items { // the newest first
		access = append(access, fmt.Sprintf("%s %s %q %d", i.Name, i.Access, i.DenialReason, i.VendsLeft))
	}
	is.Equal(access, []string{`Denied denied "not yours" -1`, `GitHub pending "" -1`, `Linear approved "" 4`})
	is.Equal(catalog.Items[2].ExpiresAt, agentkeytest.Epoch.Add(time.Hour).UnixMicro())
	profile, err := s.Profile(ctx, s.requester)
	is.NoErr(err)
	is.Equal(profile.Approved, []string{"Linear"})
	is.Equal(profile.Pending, []string{"GitHub"})
	is.Equal(profile.Denied, []agentkey.Denial{{Tool: "Denied", Reason: "not yours"}})
	is.Equal(profile.Available, int64(3))
	s.Clock.Advance(time.Hour)
	catalog, err = s.Catalog(ctx, s.requester, agentkey.CatalogInput{})
	is.NoErr(err)
	is.Equal(string(catalog.Items[2].Access), "expired") // written or not
	first, err := s.Catalog(ctx, s.requester, agentkey.CatalogInput{Limit: 2})
	is.NoErr(err)
	rest, err := s.Catalog(ctx, s.requester, agentkey.CatalogInput{Limit: 2, After: first.Next})
	is.NoErr(err)
	is.Equal(append(first.Items, rest.Items...), catalog.Items)
}

// Lists come whole, page by page, the newest first.
func TestListsByCursor(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	for i := range 5 {
		agent, _ := s.Agent(fmt.Sprintf("more %d", i))
		tool := s.Tool(fmt.Sprintf("more %d", i), "more_test_credential")
		is.NoErr(second(s.Assign(ctx, s.boss(), agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID})))
	}
	pages := map[string]func(after string) (ids []string, err error){
		"agents": func(after string) (ids []string, err error) {
			found, err := s.Agents(ctx, s.boss(), agentkey.ListInput{After: after, Limit: 2})
			for _, v := range found {
				ids = append(ids, v.ID)
			}
			return ids, err
		},
		"tools": func(after string) (ids []string, err error) {
			found, err := s.Tools(ctx, s.boss(), agentkey.ListInput{After: after, Limit: 2})
			for _, v := range found {
				ids = append(ids, v.ID)
			}
			return ids, err
		},
		"grants": func(after string) (ids []string, err error) {
			found, err := s.Grants(ctx, s.boss(), agentkey.GrantsInput{After: after, Limit: 2})
			for _, v := range found {
				ids = append(ids, v.ID)
			}
			return ids, err
		},
	}
	for name, page := range pages {
		var all []string
		for after := ""; ; after = all[len(all)-1] {
			ids, err := page(after)
			is.NoErr(err)
			all = append(all, ids...)
			if len(ids) < 2 {
				break
			}
		}
		if len(all) != 7 {
			t.Errorf("%s: %d of 7", name, len(all))
		}
		is.True(slices.IsSortedFunc(all, func(a, b string) int { return strings.Compare(b, a) }))
		is.Equal(len(slices.Compact(all)), 7)
	}
	var seqs []int64
	for cursor := ""; ; {
		page, err := s.Events(ctx, s.boss(), agentkey.EventsInput{Cursor: cursor, Limit: 3})
		is.NoErr(err)
		for _, e := range page.Events {
			seqs = append(seqs, e.Seq)
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for i, seq := range seqs {
		is.Equal(seq, int64(len(seqs)-1-i))
	}
	found, err := s.Agents(ctx, s.boss(), agentkey.ListInput{Name: "more 3"})
	is.NoErr(err)
	is.Equal(len(found), 1)
}

// A host that vouches for an agent gets no more than the agent's own key.
func TestTrustedAgents(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	ctx := t.Context()
	org := s.Kit.Organization.ID
	vend := func(organization, agent string) error {
		return second(s.Vend(ctx, agentkey.TrustedAgent(organization, agent), s.tool.ID))
	}
	other, _ := s.NewOrganization("Other")
	is.NoErr(vend(org, s.bot.ID))
	is.Equal(vend(org, s.suspended.ID), agentkey.ErrSuspended)
	for _, c := range [][2]string{{org, "unknown"}, {other.ID, s.bot.ID}, {"", s.bot.ID}, {org, ""}, {"system", s.bot.ID}} {
		is.True(errors.Is(vend(c[0], c[1]), agentkey.ErrUnauthenticated))
	}
	is.True(vend("nowhere", s.bot.ID) != nil)
	is.NoErr(second(s.Lock(ctx, s.boss(), "")))
	is.Equal(vend(org, s.bot.ID), agentkey.ErrOrganizationLocked)
	is.Equal(second(s.RequestAccess(ctx, s.trusted(), agentkey.RequestInput{Tool: s.pending.Tool, Reason: "to test"})), agentkey.ErrOrganizationLocked)
	is.NoErr(second(s.Unlock(ctx, s.boss(), "")))
	is.NoErr(second(s.Revoke(ctx, s.boss(), s.bot.ID, s.tool.ID)))
	is.Equal(vend(org, s.bot.ID), agentkey.ErrRevoked)
	page, err := s.Events(ctx, s.boss(), agentkey.EventsInput{Limit: 1})
	is.NoErr(err)
	is.Equal(page.Events[0].Actor.Auth, "trusted")
}

// People are told of requests, also of repeated ones, and of nothing else.
func TestNotifications(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var told []agentkey.Notification
	s := &stage{t: t, Kit: agentkeytest.New(t, func(c *agentkey.Config) {
		c.Notifier = notifierFunc(func(n agentkey.Notification) { told = append(told, n) })
	})}
	bot, caller := s.Agent("bot")
	tool := s.Tool("Linear", "lin_api_test_notify")
	for _, reason := range []string{"to test", "to test again"} {
		g, err := s.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: reason})
		is.NoErr(err)
		is.Equal(second(s.RequestAccess(t.Context(), caller, agentkey.RequestInput{Tool: tool.ID, Reason: reason})), agentkey.ErrAlreadyPending)
		is.NoErr(second(s.Deny(t.Context(), s.boss(), g.ID, "no")))
	}
	is.NoErr(s.Sweep(t.Context()))
	is.Equal(len(told), 2)
	want := agentkey.Notification{
		Organization: s.Kit.Organization.ID, Topic: agentkey.TopicAccessRequested, Time: agentkeytest.Epoch,
		Request: told[0].Request, Agent: bot.ID, AgentName: "bot", Tool: tool.ID, ToolName: "Linear",
	}
	for i := range told {
		is.True(told[i].ID != "")
		told[i].ID = ""
	}
	slices.SortFunc(told, func(a, b agentkey.Notification) int { return strings.Compare(a.Reason, b.Reason) })
	for i, reason := range []string{"to test", "to test again"} {
		want.Reason = reason
		is.Equal(told[i], want)
	}
}

type notifierFunc func(n agentkey.Notification)

func (f notifierFunc) Notify(_ context.Context, n agentkey.Notification) error { f(n); return nil }
