package cli

import (
	"context"
	"fmt"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// maxListed bounds the findings of one log that are listed.
const maxListed = 20

// inspector is who verifies one organization's log: whoever may run the program
// on the database itself, as an auditor there and no more. In the reserved
// organization that is the operator.
func inspector(organization string) agentkey.Actor {
	a := operator()
	if organization != storage.System {
		a.Organization, a.Role = organization, agentkey.RoleAuditor
	}
	return a
}

// logs verifies every log and replays it against the records.
func (x *examination) logs(ctx context.Context, s *session, store storage.Store, m *agentkey.Manager) {
	shown := s.progress("reading the logs")
	defer shown.end()
	n := 0
	var events, records int64
	err := eachOrganization(ctx, store, func(id string) error {
		n++
		shown.set(plural(int64(n), "organization"))
		e, r := x.log(ctx, m, id)
		events, records = events+e, records+r
		return ctx.Err()
	})
	if err != nil {
		x.fail("log", "%v", err)
	}
	x.clear("log", "%s of %s are as they were signed, and %s agree with them", plural(events, "event"),
		plural(int64(n), "organization"), plural(records, "record"))
}

// log looks at one organization's.
func (x *examination) log(ctx context.Context, m *agentkey.Manager, organization string) (events, records int64) {
	actor := inspector(organization)
	report, err := m.Verify(ctx, actor)
	if err != nil {
		x.fail("log", "organization %s: %v", organization, err)
		return 0, 0
	}
	var found []string
	for _, f := range report.Findings {
		found = append(found, spanOf(f.From, f.To)+": "+f.Problem)
	}
	replayed, err := m.Reconcile(ctx, actor)
	if err != nil {
		x.fail("log", "organization %s: %v", organization, err)
	}
	for _, f := range replayed.Findings {
		found = append(found, fmt.Sprintf("%s %s: %s", f.Kind, f.ID, f.Problem))
	}
	for i, text := range found {
		if i == maxListed {
			x.fail("log", "organization %s: and %d more; see `agentkey audit verify` and `agentkey audit reconcile`", organization, len(found)-i)
			break
		}
		x.fail("log", "organization %s: %s", organization, text)
	}
	return report.Events, replayed.Records
}
