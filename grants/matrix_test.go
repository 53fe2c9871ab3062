package grants_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/matryer/is"
)

// limits are the states of the bounds of a grant: none at all, bounds that
// still hold, a time that has passed, a count that is reached.
var limits = []string{"unset", "live", "ended", "spent"}

// matrix says what every operation does to every status. Cells are
// "status event" or an error. The bounds matter for approved grants only,
// which therefore have a row for each.
const matrix = `
                request           approve          deny            assign            assignTwo          revoke           revokeOpen       narrow          settle           decide               access
none            pending,requested -                -               approved,assigned !ApprovalsRequired -                -                -               -                no_grant             none
pending         !AlreadyPending   approved,approved denied,denied  approved,approved !ApprovalsRequired revoked,revoked  revoked,revoked  !NotApproved    pending,         pending              pending
partly          !AlreadyPending   approved,approved denied,denied  !ApprovalsRequired !ApprovalsRequired revoked,revoked revoked,revoked  !NotApproved    pending,         approvals_missing    pending
approved/unset  !AlreadyApproved  !NotPending      !NotPending     approved,         approved,          revoked,revoked  revoked,revoked  approved,narrowed approved,      vend                 approved
approved/live   !AlreadyApproved  !NotPending      !NotPending     approved,         approved,          revoked,revoked  revoked,revoked  approved,narrowed approved,      vend                 approved
approved/ended  !Unsettled        !NotPending      !NotPending     !Unsettled        !Unsettled         revoked,revoked  expired,expired  !Unsettled      expired,expired  expired:expired      expired
approved/spent  !Unsettled        !NotPending      !NotPending     !Unsettled        !Unsettled         revoked,revoked  used_up,used_up  !Unsettled      used_up,used_up  used_up:used_up      used_up
denied          pending,requested !NotPending      !NotPending     approved,assigned !ApprovalsRequired revoked,revoked  denied,          !NotApproved    denied,          denied               denied
revoked         pending,requested !NotPending      !NotPending     approved,assigned !ApprovalsRequired revoked,revoked  revoked,         !NotApproved    revoked,         revoked              revoked
expired         pending,requested !NotPending      !NotPending     approved,assigned !ApprovalsRequired revoked,revoked  expired,         !NotApproved    expired,         expired              expired
used_up         pending,requested !NotPending      !NotPending     approved,assigned !ApprovalsRequired revoked,revoked  used_up,         !NotApproved    used_up,         used_up              used_up
`

var sentinels = map[string]error{
	"!AlreadyPending":    grants.ErrAlreadyPending,
	"!AlreadyApproved":   grants.ErrAlreadyApproved,
	"!NotPending":        grants.ErrNotPending,
	"!NotApproved":       grants.ErrNotApproved,
	"!ApprovalsRequired": grants.ErrApprovalsRequired,
	"!Unsettled":         grants.ErrUnsettled,
}

// operations are every way to ask or change a grant; each returns a cell.
var operations = map[string]func(g *grants.Grant) string{
	"request": func(g *grants.Grant) string {
		return cell(grants.Request(g, request(grants.Terms{}, 1), now))
	},
	"approve": func(g *grants.Grant) string {
		return cell(grants.Approve(*g, grants.ApproveInput{By: bob, Approvals: rows(*g)}, now))
	},
	"deny": func(g *grants.Grant) string {
		return cell(grants.Deny(*g, grants.DenyInput{By: bob, Approvals: rows(*g)}, now))
	},
	"assign": func(g *grants.Grant) string {
		return cell(grants.Assign(g, grants.AssignInput{Identity: id, By: bob}, now))
	},
	"assignTwo": func(g *grants.Grant) string {
		return cell(grants.Assign(g, grants.AssignInput{Identity: id, By: bob, RequiredApprovals: 2}, now))
	},
	"revoke":     func(g *grants.Grant) string { return cell(grants.Revoke(*g, bob, now)) },
	"revokeOpen": func(g *grants.Grant) string { return cell(grants.RevokeOpen(*g, bob, now)) },
	"narrow": func(g *grants.Grant) string {
		return cell(grants.Narrow(*g, grants.Terms{MaxVends: 3}, bob, now))
	},
	"settle": func(g *grants.Grant) string { return cell(grants.Settle(*g, now), nil) },
	"access": func(g *grants.Grant) string { return string(grants.Access(g, now)) },
	"decide": func(g *grants.Grant) string {
		d := grants.Decide(g, open, now)
		if d.Allowed {
			return "vend"
		}
		if d.Next == nil {
			return string(d.Reason)
		}
		return string(d.Reason) + ":" + string(d.Next.Status)
	},
}

func cell(t grants.Transition, err error) string {
	for name, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			return name
		}
	}
	if err != nil {
		return "!" + err.Error()
	}
	return string(t.Grant.Status) + "," + string(t.Event)
}

// rows are the approval rows that fit g.
func rows(g grants.Grant) []grants.Approval {
	var out []grants.Approval
	for i := range g.Approvals {
		out = append(out, grants.Approval{
			Organization: g.Organization, Grant: g.ID, Cycle: g.Cycle, Revision: 1,
			Actor: fmt.Sprint("earlier", i), Verdict: grants.VerdictApprove, Time: g.UpdatedAt,
		})
	}
	return out
}

// stored returns a coherent row of the status with bounds in the given state,
// last changed a day before now.
func stored(status grants.Status, limit string) *grants.Grant {
	const day = 24 * hour
	g := &grants.Grant{
		ID: "g1", Organization: "org", Agent: "bot", Tool: "linear", Cycle: 2, Status: status,
		RequestedAt: now - 2*day, CreatedAt: now - 3*day, UpdatedAt: now - day, Revision: 5,
		RequiredApprovals: 1, Seal: []byte("seal"),
	}
	terms := map[string]grants.Terms{
		"unset": {},
		"live":  {Duration: 2 * day, MaxVends: 5, Scopes: []string{"read", "write"}},
		"ended": {Duration: day, MaxVends: 5, Scopes: []string{"read", "write"}},
		"spent": {Duration: 2 * day, MaxVends: 1, Scopes: []string{"read", "write"}},
	}[limit]
	g.Asked = terms
	if status == grants.StatusPending || status == grants.StatusDenied {
		return g
	}
	g.Granted, g.Approvals = terms, 1
	g.ApprovedAt, g.DecidedAt = now-day, now-day
	if terms.Duration > 0 {
		g.ExpiresAt = g.ApprovedAt + terms.Duration
	}
	if terms.MaxVends > 0 {
		g.VendsUsed = 1
	}
	return g
}

// Every status, with every state of its bounds, is put to every operation.
// What the matrix does not name fails.
func TestMatrix(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	want, columns := parseMatrix(t)
	is.Equal(len(columns), len(operations)) // every operation has its column
	seen := map[string]bool{}
	for row, g := range states() {
		for _, op := range columns {
			key := strings.SplitN(row, "/", 2)[0]
			if _, ok := want[row]; ok {
				key = row
			}
			expected, ok := want[key][op]
			if !ok {
				t.Fatalf("the matrix has no cell for %s × %s", row, op)
			}
			seen[key] = true
			if expected == "-" {
				is.True(g == nil) // only a grant that does not exist can't be passed
				continue
			}
			before := snapshot(g)
			got := operations[op](g)
			if got != expected {
				t.Errorf("%s × %s: got %q, want %q", row, op, got, expected)
			}
			is.True(reflect.DeepEqual(g, before)) // the argument stays as it was
		}
	}
	is.Equal(len(seen), len(want)) // every row of the matrix was reached
}

func states() map[string]*grants.Grant {
	out := map[string]*grants.Grant{"none": nil}
	for _, status := range grants.Statuses() {
		for _, limit := range limits {
			out[string(status)+"/"+limit] = stored(status, limit)
		}
	}
	for _, limit := range limits {
		g := stored(grants.StatusPending, limit)
		g.RequiredApprovals, g.Approvals, g.Granted = 2, 1, g.Asked
		out["partly/"+limit] = g
	}
	return out
}

func snapshot(g *grants.Grant) *grants.Grant {
	if g == nil {
		return nil
	}
	c := *g
	c.Asked.Scopes = slices.Clone(g.Asked.Scopes)
	c.Granted.Scopes = slices.Clone(g.Granted.Scopes)
	c.Seal = slices.Clone(g.Seal)
	return &c
}

func parseMatrix(t *testing.T) (want map[string]map[string]string, columns []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(matrix), "\n")
	columns = strings.Fields(lines[0])
	want = map[string]map[string]string{}
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		if len(cells) != len(columns)+1 {
			t.Fatalf("the row %s has %d cells", cells[0], len(cells)-1)
		}
		want[cells[0]] = map[string]string{}
		for i, c := range cells[1:] {
			want[cells[0]][columns[i]] = c
		}
	}
	return want, columns
}
