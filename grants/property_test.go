package grants_test

import (
	"slices"
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
	"pgregory.net/rapid"
)

// machine drives one grant through random calls and keeps its own, simpler
// account of what must be true.
type machine struct {
	now       int64
	grant     *grants.Grant
	approvals []grants.Approval
	owner     string
	others    bool
	// of the present cycle:
	vends int64
	ended bool // an end was found
	tight grants.Terms
}

func genTerms(t *rapid.T) grants.Terms {
	terms := grants.Terms{
		Duration: rapid.SampledFrom([]int64{0, 0, 1, 5, 20, 1000}).Draw(t, "duration"),
		MaxVends: rapid.SampledFrom([]int64{0, 0, 1, 2, 3}).Draw(t, "max vends"),
	}
	for _, s := range []string{"a", "b", "c"} {
		if rapid.Bool().Draw(t, s) {
			terms.Scopes = append(terms.Scopes, s)
		}
	}
	return terms
}

func genDecider(t *rapid.T) grants.Decider {
	return rapid.SampledFrom([]grants.Decider{ada, bob, cyd}).Draw(t, "by")
}

// apply checks a transition against the account and takes it over.
func (m *machine) apply(t *rapid.T, tr grants.Transition, err error) {
	if err != nil {
		if tr.Changed() {
			t.Fatalf("an error came with a change: %v", err)
		}
		return
	}
	if m.grant != nil && !tr.Changed() {
		if tr.Grant.Revision != m.grant.Revision || tr.Grant.Status != m.grant.Status {
			t.Fatal("a change without an event")
		}
		return
	}
	next := tr.Grant
	m.checkChange(t, tr)
	if tr.Approval != nil {
		m.approvals = slices.DeleteFunc(m.approvals, func(a grants.Approval) bool {
			return a.Cycle == tr.Approval.Cycle && a.Actor == tr.Approval.Actor
		})
		m.approvals = append(m.approvals, *tr.Approval)
	}
	if m.grant == nil || next.Cycle != m.grant.Cycle {
		m.vends, m.ended, m.tight = 0, false, next.Asked
	}
	if next.Status == grants.StatusApproved {
		m.checkApproved(t, next)
	}
	m.grant = &next
}

func (m *machine) checkChange(t *rapid.T, tr grants.Transition) {
	next := tr.Grant
	if err := next.Check(); err != nil {
		t.Fatalf("%s wrote a row that makes no sense: %v", tr.Event, err)
	}
	if m.grant == nil {
		if next.Revision != 1 || next.Cycle != 1 || tr.From != grants.StatusNone {
			t.Fatal("a first row that is not the first")
		}
		return
	}
	if next.Revision != m.grant.Revision+1 || next.UpdatedAt < m.grant.UpdatedAt || next.Cycle < m.grant.Cycle {
		t.Fatal("revision, time or cycle did not grow")
	}
	if tr.From != m.grant.Status || next.ID != m.grant.ID || next.CreatedAt != m.grant.CreatedAt {
		t.Fatal("the row forgot where it came from")
	}
}

// checkApproved holds the rules of whatever gives access.
func (m *machine) checkApproved(t *rapid.T, g grants.Grant) {
	if err := g.Granted.Narrows(m.tight); err != nil {
		t.Fatalf("terms were widened within a cycle: %v", err)
	}
	m.tight = g.Granted
	var approvers []string
	for _, a := range m.approvals {
		if a.Cycle == g.Cycle && a.Verdict == grants.VerdictApprove && !slices.Contains(approvers, a.Actor) {
			approvers = append(approvers, a.Actor)
		}
	}
	if int64(len(approvers)) < g.RequiredApprovals {
		t.Fatal("approved by fewer than required")
	}
	if len(approvers) == 1 && approvers[0] == m.owner && m.others {
		t.Fatal("approved by the owner alone")
	}
}

func (m *machine) request(t *rapid.T) {
	in := grants.RequestInput{Identity: id, Reason: "again", Asked: genTerms(t)}
	in.RequiredApprovals = rapid.Int64Range(0, 3).Draw(t, "required")
	tr, err := grants.Request(m.grant, in, m.now)
	m.apply(t, tr, err)
}

func (m *machine) approve(t *rapid.T) {
	in := grants.ApproveInput{By: genDecider(t), Owner: m.owner, OtherApprovers: m.others, Approvals: m.approvals}
	in.RequiredApprovals = rapid.Int64Range(0, 3).Draw(t, "required")
	if rapid.Bool().Draw(t, "narrow") {
		in.Terms = genTerms(t)
	}
	tr, err := grants.Approve(*m.grant, in, m.now)
	m.apply(t, tr, err)
}

func (m *machine) assign(t *rapid.T) {
	in := grants.AssignInput{Identity: id, By: genDecider(t), Owner: m.owner, OtherApprovers: m.others}
	in.Terms = genTerms(t)
	in.RequiredApprovals = rapid.Int64Range(0, 2).Draw(t, "required")
	tr, err := grants.Assign(m.grant, in, m.now)
	m.apply(t, tr, err)
}

func (m *machine) vend(t *rapid.T) {
	facts := grants.Facts{
		Intact:             rapid.IntRange(0, 9).Draw(t, "intact") > 0,
		OrganizationLocked: rapid.IntRange(0, 9).Draw(t, "locked") == 0,
		AgentActive:        rapid.IntRange(0, 9).Draw(t, "active") > 0,
		ToolPresent:        rapid.IntRange(0, 9).Draw(t, "tool") > 0,
		Credential: grants.CredentialFacts{
			Present:   rapid.IntRange(0, 9).Draw(t, "present") > 0,
			ExpiresAt: rapid.SampledFrom([]int64{0, 0, m.now, m.now + 1}).Draw(t, "credential end"),
		},
	}
	d := grants.Decide(m.grant, facts, m.now)
	if d.Allowed != (d.Reason == grants.ReasonNone) {
		t.Fatal("allowed with a reason, or refused without one")
	}
	if d.Allowed {
		m.checkVend(t, facts)
		m.vends++
	}
	if d.Next == nil {
		return
	}
	m.ended = m.ended || d.Event != grants.EventNone
	if d.Next.Revision != m.grant.Revision+1 || d.Next.Check() != nil {
		t.Fatal("a decision wrote a row that does not follow")
	}
	m.grant = d.Next
}

// checkVend says by itself whether the vend may happen.
func (m *machine) checkVend(t *rapid.T, f grants.Facts) {
	switch {
	case !f.Intact, f.OrganizationLocked, !f.AgentActive, !f.ToolPresent, !f.Credential.Present:
		t.Fatal("allowed against the facts")
	case f.Credential.ExpiresAt == m.now:
		t.Fatal("allowed with an expired credential")
	case m.grant == nil, m.grant.Status != grants.StatusApproved:
		t.Fatal("allowed without an approved grant")
	case m.ended:
		t.Fatal("allowed after an end was found")
	}
	if d := m.grant.Granted.Duration; d > 0 && max(m.now, m.grant.UpdatedAt) >= m.grant.ApprovedAt+d {
		t.Fatal("allowed after the end")
	}
	if limit := m.grant.Granted.MaxVends; limit > 0 && m.grant.VendsUsed >= limit {
		t.Fatal("allowed beyond the count")
	}
	if limit := m.grant.Asked.MaxVends; limit > 0 && m.vends >= limit {
		t.Fatal("allowed more often than was asked")
	}
}

func TestGrantProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{
			now:    now,
			owner:  rapid.SampledFrom([]string{"", "ada"}).Draw(t, "owner"),
			others: rapid.Bool().Draw(t, "others"),
		}
		existing := func(f func(t *rapid.T)) func(*rapid.T) {
			return func(t *rapid.T) {
				if m.grant == nil {
					t.Skip("no grant yet")
				}
				f(t)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"request": m.request,
			"assign":  m.assign,
			"vend":    m.vend,
			"vend 2":  m.vend,
			"approve": existing(m.approve),
			"deny": existing(func(t *rapid.T) {
				tr, err := grants.Deny(*m.grant, grants.DenyInput{By: genDecider(t), Reason: "no", Approvals: m.approvals}, m.now)
				m.apply(t, tr, err)
			}),
			"revoke": existing(func(t *rapid.T) {
				tr, err := grants.Revoke(*m.grant, genDecider(t), m.now)
				m.apply(t, tr, err)
			}),
			"revoke open": existing(func(t *rapid.T) {
				tr, err := grants.RevokeOpen(*m.grant, genDecider(t), m.now)
				m.apply(t, tr, err)
				if m.grant.Status.Open() {
					t.Fatal("a grant was left open")
				}
			}),
			"narrow": existing(func(t *rapid.T) {
				tr, err := grants.Narrow(*m.grant, genTerms(t), genDecider(t), m.now)
				m.apply(t, tr, err)
			}),
			"settle": existing(func(t *rapid.T) {
				tr := grants.Settle(*m.grant, m.now)
				if tr.Changed() {
					m.ended = true
				}
				m.apply(t, tr, nil)
			}),
			// The clock mostly goes on, and sometimes back.
			"time": func(t *rapid.T) { m.now += rapid.Int64Range(-3, 15).Draw(t, "step") },
			"": func(t *rapid.T) {
				want := grants.StatusNone
				if m.grant != nil {
					want = grants.Settle(*m.grant, m.now).Grant.Status
				}
				if got := grants.Access(m.grant, m.now); got != want {
					t.Fatalf("access shows %s for %s", got, want)
				}
			},
		})
	})
}

// Whatever an approver gives is refused or lies within what was asked.
func TestApprovalNeverWidens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		asked, given := genTerms(rt), genTerms(rt)
		g := pending(t, asked, 1)
		tr, err := grants.Approve(g, grants.ApproveInput{By: ada, Terms: given}, now)
		if err != nil {
			return
		}
		if tr.Grant.Granted.Narrows(asked) != nil || tr.Grant.Granted.Narrows(given) != nil {
			rt.Fatal("granted more than asked or more than given")
		}
	})
}
