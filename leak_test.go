package agentkey_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// scanner is where reports of leaks come from.
var scanner = agentkey.RequestContext{Address: netip.MustParseAddr("192.0.2.66"), Request: "req-scan"}

// leakStage is an agent with a key in hand, a grant and a request.
type leakStage struct {
	*agentkeytest.Kit
	t      *testing.T
	is     *is.I
	bot    agentkey.IssuedKey
	key    string
	linear agentkey.Tool
}

func newLeakStage(t *testing.T) *leakStage {
	t.Helper()
	s := &leakStage{Kit: agentkeytest.New(t), t: t, is: is.New(t)}
	var err error
	s.bot, err = s.RegisterAgent(t.Context(), s.Owner, agentkey.RegisterAgentInput{Name: "triage-bot"})
	s.is.NoErr(err)
	s.key = string(s.bot.Secret.Bytes())
	s.linear = s.Tool("Linear", "lin_api_test_1")
	s.Allow(s.bot.Agent, s.linear)
	_, err = s.RequestAccess(t.Context(), agentkey.Key(s.key), agentkey.RequestInput{Tool: s.Tool("Sentry", "sen_api_test_1").ID, Reason: "to read errors"})
	s.is.NoErr(err)
	return s
}

func (s *leakStage) report(secret string) (agentkey.Leaked, error) {
	return s.ReportLeak(s.t.Context(), scanner, agentkey.LeakReport{
		Secret: agentkey.NewSecret([]byte(secret)), Source: "content", URL: "https://git.example.com/acme/bot/blob/1f/.env?token=abc#L3",
	})
}

// told are the actions recorded since a number, oldest first.
func (s *leakStage) since(seq int64) (events []agentkey.LoggedEvent) {
	page, err := s.Events(s.t.Context(), s.Owner, agentkey.EventsInput{Limit: 100})
	s.is.NoErr(err)
	for _, e := range page.Events {
		if e.Seq > seq {
			events = append([]agentkey.LoggedEvent{e}, events...)
		}
	}
	return events
}

func actionsOf(events []agentkey.LoggedEvent) string {
	var all []string
	for _, e := range events {
		all = append(all, string(e.Action))
	}
	return strings.Join(all, " ")
}

func (s *leakStage) newest() int64 {
	page, err := s.Events(s.t.Context(), s.Owner, agentkey.EventsInput{Limit: 1})
	s.is.NoErr(err)
	return page.Events[0].Seq
}

func TestLeakedKeyStopsItsAgent(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	before := s.newest()
	_, err := s.Vend(t.Context(), agentkey.Key(s.key), s.linear.ID)
	s.is.NoErr(err)
	leaked, err := s.report(s.key)
	s.is.NoErr(err)
	s.is.Equal(leaked, agentkey.LeakedKey)

	_, err = s.Vend(t.Context(), agentkey.Key(s.key), s.linear.ID)
	s.is.True(errors.Is(err, agentkey.ErrKeyRevoked))
	_, err = s.Vend(t.Context(), agentkey.TrustedAgent(s.Organization.ID, s.bot.Agent.ID), s.linear.ID)
	s.is.True(errors.Is(err, agentkey.ErrSuspended))

	events := s.since(before)
	s.is.Equal(actionsOf(events[1:]), "agent.key_leaked agent.key_revoked agent.suspended grant.revoked grant.revoked auth.rejected auth.rejected_suspended")
	e := events[1]
	s.is.Equal(e.Target, audit.Ref{Kind: audit.KindKey, ID: s.bot.Key.ID})
	s.is.Equal(e.Actor.Kind, audit.ActorUnknown)
	s.is.Equal(e.Details["source"], "content")
	s.is.Equal(e.Personal.Extra["found_at"], "git.example.com") // and nothing more of the URL
	s.is.Equal(e.Personal.Address, "192.0.2.66")
	for _, e := range events {
		content, err := e.Encode()
		s.is.NoErr(err)
		s.is.True(!strings.Contains(string(content), "sk_agent_"))
	}

	// Reactivating brings neither key nor grants back.
	_, err = s.ReactivateAgent(t.Context(), s.Owner, s.bot.Agent.ID)
	s.is.NoErr(err)
	_, err = s.Vend(t.Context(), agentkey.Key(s.key), s.linear.ID)
	s.is.True(errors.Is(err, agentkey.ErrKeyRevoked))
	_, err = s.Vend(t.Context(), agentkey.TrustedAgent(s.Organization.ID, s.bot.Agent.ID), s.linear.ID)
	s.is.True(errors.Is(err, agentkey.ErrRevoked))
	open, err := s.Grants(t.Context(), s.Owner, agentkey.GrantsInput{Agent: s.bot.Agent.ID, Status: grants.StatusPending})
	s.is.NoErr(err)
	s.is.Equal(len(open), 0)

	// The old key, found again, stops nobody, is noted once a minute, and is not lost.
	before = s.newest()
	for range 3 {
		leaked, err = s.report(s.key)
		s.is.NoErr(err)
		s.is.Equal(leaked, agentkey.LeakedKey)
	}
	s.is.Equal(actionsOf(s.since(before)), "agent.key_leaked")
	s.Clock.Advance(2 * time.Minute)
	s.is.NoErr(s.Sweep(t.Context()))
	counted := int64(0)
	for _, e := range s.since(before) {
		if e.Action == audit.ActionAgentKeyLeaked {
			counted += e.Count
		}
	}
	s.is.Equal(counted, int64(2))
	a, err := s.Agents(t.Context(), s.Owner, agentkey.ListInput{Name: "triage-bot"})
	s.is.NoErr(err)
	s.is.Equal(string(a[0].Status), "active")

	r, err := s.Reconcile(t.Context(), s.Owner)
	s.is.NoErr(err)
	s.is.True(r.OK())
}

func TestLeakedTokenIsRevoked(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	token, err := s.CreateToken(t.Context(), s.Owner, agentkey.CreateTokenInput{Name: "laptop"})
	s.is.NoErr(err)
	before := s.newest()
	for range 2 {
		leaked, err := s.report(string(token.Secret.Bytes()))
		s.is.NoErr(err)
		s.is.Equal(leaked, agentkey.LeakedToken)
	}
	_, err = s.Authenticate(t.Context(), token.Secret, agentkey.RequestContext{})
	s.is.True(errors.Is(err, agentkey.ErrUnknownToken))
	s.is.Equal(actionsOf(s.since(before)), "token.leaked token.revoked token.leaked")
}

// TestUnknownLeak shows that what is not known is only counted, and that what a
// stranger says is recorded nowhere.
func TestUnknownLeak(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	before := s.newest()
	for _, secret := range []string{"", "sk_agent_", "sk_agent_unknown", "sk_admin_unknown", "ghp_test", s.key + "x", s.key[:len(s.key)-1], strings.Repeat("x", 70_000)} {
		leaked, err := s.report(secret)
		s.is.NoErr(err)
		s.is.Equal(leaked, agentkey.LeakedNothing)
	}
	s.is.Equal(s.newest(), before)
	leaked, err := s.ReportLeak(t.Context(), scanner, agentkey.LeakReport{
		Secret: agentkey.NewSecret([]byte(s.key)), Source: "lin_api_test_1", URL: "https://lin_api_test_1@lin_api_test_1/lin_api_test_1",
	})
	s.is.NoErr(err)
	s.is.Equal(leaked, agentkey.LeakedKey)
	e := s.since(before)[0]
	s.is.Equal(e.Details["source"], "other")
	s.is.Equal(len(e.Personal.Extra), 0) // that is no name of a host
}

func TestOwnLeak(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	report := func(a agentkey.Actor) (agentkey.Leaked, error) {
		return s.ReportOwnLeak(t.Context(), a, agentkey.LeakReport{Secret: agentkey.NewSecret([]byte(s.key)), Source: "person"})
	}
	_, err := report(s.Actor(agentkey.RoleAuditor))
	s.is.True(errors.Is(err, agentkey.ErrForbidden))
	other, err := s.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "Other", Owner: "eve@example.com"})
	s.is.NoErr(err)
	eve, err := s.Authenticate(t.Context(), other.Token.Secret, agentkey.RequestContext{})
	s.is.NoErr(err)
	leaked, err := report(eve) // of another organization: nothing that she may know
	s.is.NoErr(err)
	s.is.Equal(leaked, agentkey.LeakedNothing)
	_, err = s.Vend(t.Context(), agentkey.Key(s.key), s.linear.ID)
	s.is.NoErr(err)
	before := s.newest()
	leaked, err = report(s.Actor(agentkey.RoleApprover))
	s.is.NoErr(err)
	s.is.Equal(leaked, agentkey.LeakedKey)
	for _, e := range s.since(before) {
		s.is.Equal(e.Actor.Kind, audit.ActorHuman)
	}
}
