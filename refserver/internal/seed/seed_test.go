package seed_test

import (
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/seed"
)

// TestSeededIsReal: what was made up passes every check that there is, and life
// goes on after it.
func TestSeededIsReal(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		assigned, perAgent      bool
		inbox, approved, opened int
	}{
		"asked for": {false, false, 30, 150, 140},
		"assigned":  {true, false, 0, 0, 200},
		"per agent": {true, true, 0, 0, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seeded(t, want.assigned, want.perAgent, want.inbox, want.approved, want.opened)
		})
	}
}

func seeded(t *testing.T, assigned, perAgent bool, waiting, decided, opened int) {
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	from := k.Clock.Now()
	k.Clock.Advance(24 * time.Hour)
	s, err := seed.Fill(ctx, seed.Config{
		Manager: k.Manager, Store: k.Config.Storage, Keys: k.Config.Keys, Actor: k.Owner, From: from, To: k.Clock.Now(), Assigned: assigned, PerAgent: perAgent,
	}, seed.Counts{Agents: 40, Tools: 10, Grants: 200, Events: 5000})
	is.NoErr(err)
	is.Equal(len(s.Agents), 40)
	is.Equal(len(s.Tools), 10)
	is.Equal(s.Events, int64(5000))
	verified, err := k.Verify(ctx, k.Owner)
	is.NoErr(err)
	is.True(verified.OK())
	agreed, err := k.Reconcile(ctx, k.Owner)
	is.NoErr(err)
	is.Equal(agreed.Findings, nil)
	inbox, err := k.Inbox(ctx, k.Owner, agentkey.InboxInput{Limit: 500})
	is.NoErr(err)
	is.Equal(len(inbox.Items), waiting)
	approved, err := k.Events(ctx, k.Owner, agentkey.EventsInput{Filter: audit.Filter{Action: audit.ActionGrantApproved}, Limit: 500})
	is.NoErr(err)
	is.Equal(len(approved.Events), decided)
	is.Equal(len(s.Open), opened)
	v, err := k.Vend(ctx, agentkey.TrustedAgent(k.Organization.ID, s.Busy), s.BusyTool)
	is.NoErr(err)
	v.Credential.Destroy()
	found, err := k.Diagnose(ctx, agentkey.Operator("test"), agentkey.DiagnoseInput{All: true})
	is.NoErr(err)
	is.Equal(found.Findings, nil)
}
