package grants_test

import (
	"strings"
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/matryer/is"
)

func TestDecideRefusals(t *testing.T) {
	t.Parallel()
	facts := func(f func(*grants.Facts)) grants.Facts { c := open; f(&c); return c }
	good := stored(grants.StatusApproved, "live")
	for name, tc := range map[string]struct {
		grant *grants.Grant
		facts grants.Facts
		now   int64
		want  grants.Reason
	}{
		"all is well":             {good, open, now, grants.ReasonNone},
		"zero facts":              {good, grants.Facts{}, now, grants.ReasonIntegrity},
		"seal":                    {good, facts(func(f *grants.Facts) { f.Intact = false }), now, grants.ReasonIntegrity},
		"locked":                  {good, facts(func(f *grants.Facts) { f.OrganizationLocked = true }), now, grants.ReasonOrganizationLocked},
		"locked, without grant":   {nil, facts(func(f *grants.Facts) { f.OrganizationLocked = true }), now, grants.ReasonOrganizationLocked},
		"suspended":               {good, facts(func(f *grants.Facts) { f.AgentActive = false }), now, grants.ReasonAgentSuspended},
		"no tool":                 {good, facts(func(f *grants.Facts) { f.ToolPresent = false }), now, grants.ReasonNoTool},
		"no grant":                {nil, open, now, grants.ReasonNoGrant},
		"no credential":           {good, facts(func(f *grants.Facts) { f.Credential.Present = false }), now, grants.ReasonNoCredential},
		"credential before end":   {good, facts(func(f *grants.Facts) { f.Credential.ExpiresAt = now + 1 }), now, grants.ReasonNone},
		"credential at its end":   {good, facts(func(f *grants.Facts) { f.Credential.ExpiresAt = now }), now, grants.ReasonCredentialExpired},
		"credential, late clock":  {good, facts(func(f *grants.Facts) { f.Credential.ExpiresAt = good.UpdatedAt }), good.UpdatedAt - 1, grants.ReasonCredentialExpired},
		"one before the end":      {good, open, good.ExpiresAt - 1, grants.ReasonNone},
		"at the end":              {good, open, good.ExpiresAt, grants.ReasonExpired},
		"expired before locked":   {good, facts(func(f *grants.Facts) { f.OrganizationLocked = true }), good.ExpiresAt, grants.ReasonOrganizationLocked},
		"no time":                 {good, open, 0, grants.ReasonUndecidable},
		"time out of range":       {good, open, 1 << 60, grants.ReasonUndecidable},
		"no time and no grant":    {nil, open, -1, grants.ReasonUndecidable},
		"grant before credential": {stored(grants.StatusDenied, "unset"), facts(func(f *grants.Facts) { f.Credential.Present = false }), now, grants.ReasonDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			d := grants.Decide(tc.grant, tc.facts, tc.now)
			is.Equal(d.Reason, tc.want)
			is.Equal(d.Allowed, tc.want == grants.ReasonNone)
		})
	}
}

// A row that contradicts itself gives no access, whatever it says.
func TestDecideOnBrokenRows(t *testing.T) {
	t.Parallel()
	for name, breakRow := range map[string]func(*grants.Grant){
		"no id":              func(g *grants.Grant) { g.ID = "" },
		"no organization":    func(g *grants.Grant) { g.Organization = "" },
		"no agent":           func(g *grants.Grant) { g.Agent = "" },
		"no tool":            func(g *grants.Grant) { g.Tool = "" },
		"unknown status":     func(g *grants.Grant) { g.Status = "Approved" },
		"status none":        func(g *grants.Grant) { g.Status = grants.StatusNone },
		"cycle":              func(g *grants.Grant) { g.Cycle = 0 },
		"revision":           func(g *grants.Grant) { g.Revision = 0 },
		"required approvals": func(g *grants.Grant) { g.RequiredApprovals = 0 },
		"approvals missing":  func(g *grants.Grant) { g.RequiredApprovals = 2 },
		"approvals negative": func(g *grants.Grant) { g.Approvals = -1 },
		"vends negative":     func(g *grants.Grant) { g.VendsUsed = -1 },
		"pending yet counted": func(g *grants.Grant) {
			g.Status, g.ApprovedAt, g.ExpiresAt, g.Approvals = grants.StatusPending, 0, 0, 0
		},
		"limit negative":      func(g *grants.Grant) { g.Granted.MaxVends = -5 },
		"duration negative":   func(g *grants.Grant) { g.Granted.Duration = -5 },
		"asked malformed":     func(g *grants.Grant) { g.Asked.Scopes = []string{"a b"} },
		"end removed":         func(g *grants.Grant) { g.ExpiresAt = 0 },
		"end moved":           func(g *grants.Grant) { g.ExpiresAt++ },
		"approval removed":    func(g *grants.Grant) { g.ApprovedAt, g.ExpiresAt = 0, g.Granted.Duration },
		"approval moved":      func(g *grants.Grant) { g.ApprovedAt++ },
		"wider than asked":    func(g *grants.Grant) { g.Granted.MaxVends++ },
		"scope added":         func(g *grants.Grant) { g.Granted.Scopes = []string{"read", "admin"} },
		"scopes removed":      func(g *grants.Grant) { g.Granted.Scopes = nil },
		"negative time":       func(g *grants.Grant) { g.CreatedAt = -1 },
		"time after the year": func(g *grants.Grant) { g.UpdatedAt = 1 << 60 },
		"pending yet complete": func(g *grants.Grant) {
			g.Status, g.ApprovedAt, g.ExpiresAt, g.VendsUsed = grants.StatusPending, 0, 0, 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			g := stored(grants.StatusApproved, "live")
			is.NoErr(g.Check())
			breakRow(g)
			is.True(g.Check() != nil)
			is.Equal(grants.Decide(g, open, now), grants.Decision{Reason: grants.ReasonUndecidable})
		})
	}
}

func TestDecideCountsVends(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := approved(t, grants.Terms{MaxVends: 3})
	for used := int64(1); used <= 3; used++ {
		d := grants.Decide(&g, open, now+used)
		is.True(d.Allowed)
		is.Equal(d.Next.VendsUsed, used)
		is.Equal(d.Next.Revision, g.Revision+1)
		is.Equal(d.Event == grants.EventUsedUp, used == 3) // the last one ends the grant at once
		is.Equal(d.Next.Status == grants.StatusUsedUp, used == 3)
		g = *d.Next
	}
	d := grants.Decide(&g, open, now+4)
	is.Equal(d, grants.Decision{Reason: grants.ReasonUsedUp}) // and nothing more to write
}

func TestDecideWritesNothingWithoutALimit(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := approved(t, grants.Terms{Duration: hour})
	is.Equal(grants.Decide(&g, open, now+1), grants.Decision{Allowed: true})
}

// An end that was found stands, also for a clock that is set back.
func TestNoClockUndoesAnEnd(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := approved(t, grants.Terms{Duration: hour})
	d := grants.Decide(&g, open, now+hour)
	is.Equal(d.Reason, grants.ReasonExpired)
	is.Equal(d.Event, grants.EventExpired)
	is.Equal(d.Next.Status, grants.StatusExpired)
	is.Equal(d.Next.Revision, g.Revision+1)
	back := grants.Decide(d.Next, open, now)
	is.Equal(back, grants.Decision{Reason: grants.ReasonExpired})
	is.Equal(grants.Access(d.Next, now), grants.StatusExpired)

	// Nor does a clock that is behind the row's own last change.
	late := must(t)(grants.Request(nil, request(grants.Terms{}, 1), now+hour)).Grant
	tr := must(t)(grants.Approve(late, grants.ApproveInput{By: ada, Terms: grants.Terms{Duration: second}}, now))
	is.Equal(tr.Grant.ApprovedAt, now+hour)
	is.Equal(tr.Grant.ExpiresAt, now+hour+second)
}

// The refusal that comes first is reported, and the end is still written.
func TestDecideSettlesAlsoWhenItRefusesForAnotherReason(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	locked := open
	locked.OrganizationLocked = true
	d := grants.Decide(stored(grants.StatusApproved, "ended"), locked, now)
	is.Equal(d.Reason, grants.ReasonOrganizationLocked)
	is.Equal(d.Event, grants.EventExpired)
}

func TestSettleAndAccessOutsideTheRangeOfTime(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := stored(grants.StatusApproved, "live")
	is.True(!grants.Settle(*g, 1<<60).Changed())
	is.Equal(grants.Access(&grants.Grant{Status: "unheard of"}, now), grants.StatusNone)
}

// A change carries no seal of the row before it and shares no memory with it.
func TestChangesAreUnsealedCopies(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := stored(grants.StatusApproved, "live")
	d := grants.Decide(g, open, now)
	is.Equal(d.Next.Seal, nil)
	is.Equal(string(g.Seal), "seal")
	d.Next.Granted.Scopes[0], d.Next.Asked.Scopes[0] = "changed", "changed"
	is.Equal(g.Granted.Scopes[0], "read")
}

func TestHints(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(grants.ReasonNone.Hint(), "")
	is.Equal(grants.Reason("unheard of").Hint(), "")
	for _, r := range grants.Reasons() {
		hint := r.Hint()
		is.True(strings.HasSuffix(hint, "."))       // a sentence
		is.Equal(strings.Count(hint, "."), 1)       // and only one
		is.True(len(hint) > 40 && len(hint) <= 160) // that says what to do
	}
	is.True(!strings.Contains(grants.ReasonExpired.Hint(), "denied")) // expired is not denied
}
