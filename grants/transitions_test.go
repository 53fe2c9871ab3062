package grants_test

import (
	"errors"
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/matryer/is"
)

func TestRequestBeginsTheFirstCycle(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	asked := grants.Terms{Duration: hour, Scopes: []string{"read"}}
	tr := must(t)(grants.Request(nil, request(asked, 0), now))
	is.Equal(tr.From, grants.StatusNone)
	is.Equal(tr.Event, grants.EventRequested)
	is.Equal(tr.Approval, nil)
	is.Equal(tr.Grant, grants.Grant{
		ID: "g1", Organization: "org", Agent: "bot", Tool: "linear", Cycle: 1, Status: grants.StatusPending,
		Asked: asked, Reason: "to file issues", Ticket: "T-1", RequestedAt: now,
		RequiredApprovals: 1, CreatedAt: now, UpdatedAt: now, Revision: 1,
	})
	tr.Grant.Asked.Scopes[0] = "changed"
	is.Equal(asked.Scopes[0], "read") // the row shares no memory with the input
}

// Row 2 of the contract's table: same id, reason replaced, all of the last
// cycle's decision forgotten.
func TestRequestAgainForgetsTheLastCycle(t *testing.T) {
	t.Parallel()
	for _, status := range []grants.Status{grants.StatusDenied, grants.StatusRevoked, grants.StatusExpired, grants.StatusUsedUp} {
		t.Run(string(status), func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			old := stored(status, "spent")
			old.Reason, old.DenialReason, old.DecidedBy, old.DecidedByKind, old.DecidedByLabel = "old", "no", "ada", "human", "Ada"
			in := request(grants.Terms{MaxVends: 9}, 3)
			in.ID = "ignored"
			tr := must(t)(grants.Request(old, in, now))
			is.Equal(tr.From, status)
			is.Equal(tr.Grant, grants.Grant{
				ID: "g1", Organization: "org", Agent: "bot", Tool: "linear", Cycle: 3, Status: grants.StatusPending,
				Asked: grants.Terms{MaxVends: 9}, Reason: "to file issues", Ticket: "T-1", RequestedAt: now,
				RequiredApprovals: 3, CreatedAt: old.CreatedAt, UpdatedAt: now, Revision: 6,
			})
		})
	}
}

func TestApprove(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := pending(t, grants.Terms{Duration: 8 * hour, MaxVends: 5}, 1)
	tr := must(t)(grants.Approve(g, grants.ApproveInput{By: ada, Reason: "fine", Terms: grants.Terms{MaxVends: 2}}, now+second))
	want := g
	want.Status, want.Revision, want.UpdatedAt, want.Approvals = grants.StatusApproved, 2, now+second, 1
	want.Granted = grants.Terms{Duration: 8 * hour, MaxVends: 2} // what was not narrowed is as asked
	want.ApprovedAt, want.DecidedAt, want.ExpiresAt = now+second, now+second, now+second+8*hour
	want.DecidedBy, want.DecidedByKind, want.DecidedByLabel = "ada", "human", "ada@example.test"
	is.Equal(tr.Grant, want)
	is.Equal(tr.Event, grants.EventApproved)
	is.Equal(*tr.Approval, grants.Approval{
		Organization: "org", Grant: "g1", Cycle: 1, Actor: "ada", ActorKind: "human", ActorLabel: "ada@example.test",
		Verdict: grants.VerdictApprove, Reason: "fine", Time: now + second, Terms: want.Granted, Revision: 1,
	})
}

func TestApproversNarrowEachOther(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := pending(t, grants.Terms{Duration: 8 * hour, Scopes: []string{"read", "write", "admin"}}, 2)
	first := must(t)(grants.Approve(g, grants.ApproveInput{By: ada, Terms: grants.Terms{Duration: 4 * hour, Scopes: []string{"write", "read"}}}, now))
	is.Equal(first.Event, grants.EventApprovalRecorded)
	is.Equal(first.Grant.Status, grants.StatusPending)
	is.Equal(first.Grant.DecidedBy, "") // nothing is decided yet
	is.Equal(first.Grant.ApprovedAt, int64(0))
	is.Equal(first.Grant.ExpiresAt, int64(0))

	rows := []grants.Approval{*first.Approval}
	second := func(terms grants.Terms) (grants.Transition, error) {
		return grants.Approve(first.Grant, grants.ApproveInput{By: bob, Terms: terms, Approvals: rows}, now+1)
	}
	_, err := second(grants.Terms{Duration: 6 * hour}) // within what was asked, not within what ada left
	is.Equal(widened(err), "duration")
	_, err = second(grants.Terms{Scopes: []string{"read", "admin"}})
	is.Equal(widened(err), "scopes")
	tr := must(t)(second(grants.Terms{Scopes: []string{"read"}}))
	is.Equal(tr.Event, grants.EventApproved)
	is.Equal(tr.Grant.Granted, grants.Terms{Duration: 4 * hour, Scopes: []string{"read"}})
	is.Equal(tr.Grant.ExpiresAt, now+1+4*hour) // the duration counts from the last approval
	is.Equal(tr.Grant.DecidedBy, "bob")
}

// widened returns the field that an error says was widened.
func widened(err error) string {
	var te *grants.TermsError
	if !errors.Is(err, grants.ErrWidened) || !errors.As(err, &te) {
		return ""
	}
	return te.Field
}

func TestApproveTwiceIsOneApproval(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	first := must(t)(grants.Approve(pending(t, grants.Terms{}, 2), grants.ApproveInput{By: ada}, now))
	again := ada
	again.Kind, again.Label = "token", "another name"
	_, err := grants.Approve(first.Grant, grants.ApproveInput{By: again, Approvals: []grants.Approval{*first.Approval}}, now)
	is.True(errors.Is(err, grants.ErrAlreadyDecided))
}

// Approval rows that do not fit the grant's count were added or removed by
// somebody else; nothing is decided on them.
func TestApprovalRowsMustFit(t *testing.T) {
	t.Parallel()
	first := must(t)(grants.Approve(pending(t, grants.Terms{}, 3), grants.ApproveInput{By: ada}, now))
	row := *first.Approval
	change := func(f func(*grants.Approval)) grants.Approval { a := row; f(&a); return a }
	other := change(func(a *grants.Approval) { a.Actor = "bob" })
	for name, rows := range map[string][]grants.Approval{
		"removed":            nil,
		"added":              {row, other},
		"doubled":            {row, row},
		"turned to denial":   {change(func(a *grants.Approval) { a.Verdict = grants.VerdictDeny })},
		"without actor":      {change(func(a *grants.Approval) { a.Actor = "" })},
		"another cycle":      {change(func(a *grants.Approval) { a.Cycle = 2 })},
		"another grant":      {change(func(a *grants.Approval) { a.Grant = "g2" })},
		"other organization": {change(func(a *grants.Approval) { a.Organization = "org2" })},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, err := grants.Approve(first.Grant, grants.ApproveInput{By: cyd, Approvals: rows}, now)
			is.True(errors.Is(err, grants.ErrInconsistent))
		})
	}
	t.Run("rows of other cycles are passed over", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		old := change(func(a *grants.Approval) { a.Cycle = 0; a.Actor = "cyd" })
		tr := must(t)(grants.Approve(first.Grant, grants.ApproveInput{By: cyd, Approvals: []grants.Approval{old, row}}, now))
		is.Equal(tr.Grant.Approvals, int64(2))
	})
}

func TestToolMayRaiseRequiredApprovals(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := pending(t, grants.Terms{}, 2)
	first := must(t)(grants.Approve(g, grants.ApproveInput{By: ada, RequiredApprovals: 1}, now))
	is.Equal(first.Event, grants.EventApprovalRecorded) // lowering does not count
	rows := []grants.Approval{*first.Approval}
	second := must(t)(grants.Approve(first.Grant, grants.ApproveInput{By: bob, RequiredApprovals: 3, Approvals: rows}, now))
	is.Equal(second.Event, grants.EventApprovalRecorded) // raising does
	is.Equal(second.Grant.RequiredApprovals, int64(3))
}

func TestOwnerDoesNotApproveAlone(t *testing.T) {
	t.Parallel()
	one, two := pending(t, grants.Terms{}, 1), pending(t, grants.Terms{}, 2)
	t.Run("others could", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		_, err := grants.Approve(one, grants.ApproveInput{By: ada, Owner: "ada", OtherApprovers: true}, now)
		is.True(errors.Is(err, grants.ErrOwnerAlone))
		for _, prev := range []*grants.Grant{nil, &one, stored(grants.StatusRevoked, "unset")} {
			_, err = grants.Assign(prev, grants.AssignInput{Identity: id, By: ada, Owner: "ada", OtherApprovers: true}, now)
			is.True(errors.Is(err, grants.ErrOwnerAlone)) // assigning is no way around
		}
	})
	t.Run("nobody else could", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		tr := must(t)(grants.Approve(one, grants.ApproveInput{By: ada, Owner: "ada"}, now))
		is.Equal(tr.Event, grants.EventApproved)
		is.True(tr.Approval.OwnerAlone)
		tr = must(t)(grants.Assign(nil, grants.AssignInput{Identity: id, By: ada, Owner: "ada"}, now))
		is.True(tr.Approval.OwnerAlone)
	})
	t.Run("somebody else approves", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		tr := must(t)(grants.Approve(one, grants.ApproveInput{By: bob, Owner: "ada", OtherApprovers: true}, now))
		is.Equal(tr.Event, grants.EventApproved)
		is.True(!tr.Approval.OwnerAlone)
	})
	t.Run("as one of two", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		first := must(t)(grants.Approve(two, grants.ApproveInput{By: ada, Owner: "ada", OtherApprovers: true}, now))
		is.Equal(first.Event, grants.EventApprovalRecorded)
		rows := []grants.Approval{*first.Approval}
		tr := must(t)(grants.Approve(first.Grant, grants.ApproveInput{By: bob, Owner: "ada", OtherApprovers: true, Approvals: rows}, now))
		is.Equal(tr.Event, grants.EventApproved)
		is.True(!tr.Approval.OwnerAlone)
	})
}

func TestDeny(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	narrow := grants.Terms{MaxVends: 1}
	first := must(t)(grants.Approve(pending(t, grants.Terms{}, 2), grants.ApproveInput{By: ada, Terms: narrow}, now))
	rows := []grants.Approval{*first.Approval}
	tr := must(t)(grants.Deny(first.Grant, grants.DenyInput{By: ada, Reason: "  too much \n", Approvals: rows}, now+1))
	is.Equal(tr.Grant.Status, grants.StatusDenied)
	is.Equal(tr.Grant.DenialReason, "too much")
	is.Equal(tr.Grant.Approvals, int64(0))
	is.Equal(tr.Grant.Granted, grants.Terms{})
	is.Equal(tr.Grant.DecidedBy, "ada")
	is.Equal(tr.Grant.DecidedAt, now+1)
	is.Equal(tr.Approval.Verdict, grants.VerdictDeny)
	is.Equal(tr.Approval.Revision, int64(2)) // it replaces ada's own approval

	tr = must(t)(grants.Deny(first.Grant, grants.DenyInput{By: bob, Reason: " ", Approvals: rows}, now+1))
	is.Equal(tr.Grant.DenialReason, "")
	is.Equal(tr.Approval.Revision, int64(1))

	again := must(t)(grants.Request(&tr.Grant, request(grants.Terms{}, 2), now+2)).Grant
	tr = must(t)(grants.Deny(again, grants.DenyInput{By: ada, Approvals: rows}, now+3))
	is.Equal(tr.Approval.Cycle, int64(2))
	is.Equal(tr.Approval.Revision, int64(1)) // ada's approval of the last cycle is another row
}

// Nothing that gives access is decided on a row that contradicts itself.
func TestBrokenRowsAreNotChanged(t *testing.T) {
	t.Parallel()
	broken := func(s grants.Status) grants.Grant { g := stored(s, "live"); g.RequiredApprovals = 0; return *g }
	denied, approved := broken(grants.StatusDenied), broken(grants.StatusApproved)
	for name, call := range map[string]func() (grants.Transition, error){
		"request": func() (grants.Transition, error) { return grants.Request(&denied, request(grants.Terms{}, 1), now) },
		"approve": func() (grants.Transition, error) {
			return grants.Approve(broken(grants.StatusPending), grants.ApproveInput{By: ada}, now)
		},
		"assign": func() (grants.Transition, error) {
			return grants.Assign(&denied, grants.AssignInput{Identity: id, By: ada}, now)
		},
		"assign again": func() (grants.Transition, error) {
			return grants.Assign(&approved, grants.AssignInput{Identity: id, By: ada}, now)
		},
		"narrow": func() (grants.Transition, error) { return grants.Narrow(approved, grants.Terms{MaxVends: 2}, ada, now) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			tr, err := call()
			is.True(errors.Is(err, grants.ErrInconsistent))
			is.Equal(tr, grants.Transition{})
		})
	}
}

func TestAssign(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	in := grants.AssignInput{Identity: id, By: bob, Ticket: "T-2", Reason: "onboarding", Terms: grants.Terms{Duration: hour}}
	tr := must(t)(grants.Assign(nil, in, now))
	is.Equal(tr.Event, grants.EventAssigned)
	is.Equal(tr.Grant, grants.Grant{
		ID: "g1", Organization: "org", Agent: "bot", Tool: "linear", Cycle: 1, Status: grants.StatusApproved,
		Granted: grants.Terms{Duration: hour}, Ticket: "T-2", DecidedAt: now, ApprovedAt: now, ExpiresAt: now + hour,
		DecidedBy: "bob", DecidedByKind: "human", DecidedByLabel: "bob@example.test",
		RequiredApprovals: 1, Approvals: 1, CreatedAt: now, UpdatedAt: now, Revision: 1,
	})
	is.Equal(tr.Approval.Reason, "onboarding")

	old := stored(grants.StatusDenied, "live")
	old.Reason, old.DenialReason = "old", "no"
	tr = must(t)(grants.Assign(old, in, now))
	is.Equal(tr.Grant.Reason, "")
	is.Equal(tr.Grant.DenialReason, "")
	is.Equal(tr.Grant.RequestedAt, old.RequestedAt)      // kept
	is.Equal(tr.Grant.Cycle, old.Cycle+1)                // so that old approvals count no more
	is.Equal(tr.Approval.Cycle, old.Cycle+1)             // and the new one does
	is.True(tr.Grant.Asked.IsZero())                     // nobody asked
	is.True(tr.Grant.Granted.Equal(in.Terms))            // wider than the old request, which is over
	is.True(grants.Decide(&tr.Grant, open, now).Allowed) // and it gives access

	asked := pending(t, grants.Terms{Duration: hour / 2}, 1)
	_, err := grants.Assign(&asked, in, now)
	is.Equal(widened(err), "duration")
	in.Terms = grants.Terms{}
	tr = must(t)(grants.Assign(&asked, in, now))
	is.Equal(tr.Event, grants.EventApproved)
	is.Equal(tr.Grant.Reason, "to file issues") // kept
	is.Equal(tr.Grant.Ticket, "T-1")
	is.Equal(tr.Grant.Granted.Duration, hour/2)
}

func TestAssignLeavesAnApprovedGrantAlone(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	g := stored(grants.StatusApproved, "live")
	tr := must(t)(grants.Assign(g, grants.AssignInput{Identity: id, By: bob, Terms: grants.Terms{MaxVends: 1}}, now))
	is.True(!tr.Changed())
	is.Equal(tr.Grant, *g) // seal and revision included
}

func TestRevokeClearsTheDenialReason(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	denied := must(t)(grants.Deny(pending(t, grants.Terms{}, 1), grants.DenyInput{By: ada, Reason: "no"}, now))
	tr := must(t)(grants.Revoke(denied.Grant, bob, now+1))
	is.Equal(tr.From, grants.StatusDenied)
	is.Equal(tr.Grant.DenialReason, "")
	is.Equal(tr.Grant.DecidedBy, "bob")
	is.Equal(grants.Access(&tr.Grant, now+1), grants.StatusRevoked)
	again := must(t)(grants.Revoke(tr.Grant, bob, now+2))
	is.Equal(again.Event, grants.EventRevoked) // each time
	is.Equal(again.Grant.Revision, tr.Grant.Revision+1)
}

// Cutting off works on a row that nothing else would touch.
func TestRevokeNeedsNoSoundRow(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	broken := grants.Grant{ID: "g1", Status: "unheard of", Approvals: -1}
	is.True(errors.Is(broken.Check(), grants.ErrInconsistent))
	tr := must(t)(grants.Revoke(broken, ada, now))
	is.Equal(tr.Grant.Status, grants.StatusRevoked)
}

func TestNarrow(t *testing.T) {
	t.Parallel()
	g := approved(t, grants.Terms{Duration: 8 * hour, Scopes: []string{"read", "write"}})
	t.Run("earlier end, first count, fewer scopes", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		terms := grants.Terms{Duration: 2 * hour, MaxVends: 3, Scopes: []string{"read"}}
		tr := must(t)(grants.Narrow(g, terms, bob, now+hour))
		is.Equal(tr.Event, grants.EventNarrowed)
		is.Equal(tr.Grant.Granted, terms)
		is.Equal(tr.Grant.ExpiresAt, g.ApprovedAt+2*hour) // from approval, not from now
		is.Equal(tr.Grant.ApprovedAt, g.ApprovedAt)
		is.Equal(tr.Grant.Asked, g.Asked)
		is.Equal(tr.Grant.DecidedBy, "bob")
	})
	t.Run("nothing new", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		for _, terms := range []grants.Terms{{}, {Duration: 8 * hour}, {Scopes: []string{"write", "read"}}} {
			tr := must(t)(grants.Narrow(g, terms, bob, now+hour))
			is.True(!tr.Changed())
			is.Equal(tr.Grant, g)
		}
	})
	t.Run("wider", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		_, err := grants.Narrow(g, grants.Terms{Duration: 9 * hour}, bob, now)
		is.Equal(widened(err), "duration")
		_, err = grants.Narrow(g, grants.Terms{Scopes: []string{"admin"}}, bob, now)
		is.Equal(widened(err), "scopes")
	})
	t.Run("nothing left", func(t *testing.T) {
		t.Parallel()
		is := is.New(t)
		_, err := grants.Narrow(g, grants.Terms{Duration: hour}, bob, now+hour)
		is.True(errors.Is(err, grants.ErrTerms))
		counted := stored(grants.StatusApproved, "live") // one of five used
		_, err = grants.Narrow(*counted, grants.Terms{MaxVends: 1}, bob, now)
		is.True(errors.Is(err, grants.ErrTerms))
		tr := must(t)(grants.Narrow(*counted, grants.Terms{MaxVends: 2}, bob, now))
		is.Equal(tr.Grant.VendsUsed, int64(1)) // the count goes on
	})
}

func TestInputIsChecked(t *testing.T) {
	t.Parallel()
	g, nobody := pending(t, grants.Terms{}, 1), grants.Decider{Kind: "human"}
	ok := approved(t, grants.Terms{})
	foreign := id
	foreign.Organization = "org2"
	for name, call := range map[string]func() (grants.Transition, error){
		"request without time":     func() (grants.Transition, error) { return grants.Request(nil, request(grants.Terms{}, 1), 0) },
		"request after year 9999":  func() (grants.Transition, error) { return grants.Request(nil, request(grants.Terms{}, 1), 1<<62) },
		"request without identity": func() (grants.Transition, error) { return grants.Request(nil, grants.RequestInput{}, now) },
		"request of another": func() (grants.Transition, error) {
			return grants.Request(stored(grants.StatusDenied, "unset"), grants.RequestInput{Identity: foreign}, now)
		},
		"request on another's pending": func() (grants.Transition, error) {
			return grants.Request(&g, grants.RequestInput{Identity: foreign}, now)
		},
		"request, negative approvals": func() (grants.Transition, error) { return grants.Request(nil, request(grants.Terms{}, -1), now) },
		"request, too many approvals": func() (grants.Transition, error) { return grants.Request(nil, request(grants.Terms{}, 101), now) },
		"approve by nobody":           func() (grants.Transition, error) { return grants.Approve(g, grants.ApproveInput{By: nobody}, now) },
		"approve, too many approvals": func() (grants.Transition, error) {
			return grants.Approve(g, grants.ApproveInput{By: ada, RequiredApprovals: 101}, now)
		},
		"deny by nobody":        func() (grants.Transition, error) { return grants.Deny(g, grants.DenyInput{By: nobody}, now) },
		"revoke by nobody":      func() (grants.Transition, error) { return grants.Revoke(g, nobody, now) },
		"revokeOpen by nobody":  func() (grants.Transition, error) { return grants.RevokeOpen(g, nobody, now) },
		"revoke without time":   func() (grants.Transition, error) { return grants.Revoke(g, ada, -1) },
		"narrow by nobody":      func() (grants.Transition, error) { return grants.Narrow(ok, grants.Terms{MaxVends: 1}, nobody, now) },
		"assign by nobody":      func() (grants.Transition, error) { return grants.Assign(nil, grants.AssignInput{Identity: id}, now) },
		"assign without target": func() (grants.Transition, error) { return grants.Assign(nil, grants.AssignInput{By: ada}, now) },
		"assign of another": func() (grants.Transition, error) {
			return grants.Assign(&ok, grants.AssignInput{Identity: foreign, By: ada}, now)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			tr, err := call()
			is.True(errors.Is(err, grants.ErrInput))
			is.Equal(tr, grants.Transition{})
		})
	}
}
