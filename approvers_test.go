package agentkey_test

import (
	"context"
	"errors"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
)

// A host with people of its own says who could approve; the administrators that
// the Manager keeps don't count then.
func TestHostSaysWhoIsTheSoleApprover(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	sole := false
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.SoleApprover = func(context.Context, agentkey.Actor) (bool, error) { return sole, nil }
	})
	own := agentkey.Actor{Organization: k.Organization.ID, Kind: "human", ID: "alice", Label: "Alice", Role: agentkey.RoleOwner, Auth: "sso"}
	issued, err := k.RegisterAgent(t.Context(), own, agentkey.RegisterAgentInput{Name: "bot"})
	is.NoErr(err)
	tool := k.Tool("Linear", "lin_api_test_sole")
	g, err := k.RequestAccess(t.Context(), agentkey.TrustedAgent(k.Organization.ID, issued.Agent.ID), agentkey.RequestInput{Tool: tool.ID, Reason: "to file issues"})
	is.NoErr(err)

	_, err = k.Approve(t.Context(), own, g.ID, agentkey.DecisionInput{})
	is.True(errors.Is(err, agentkey.ErrOwnerAlone))
	sole = true
	_, err = k.Approve(t.Context(), own, g.ID, agentkey.DecisionInput{})
	is.NoErr(err)
	page, err := k.Events(t.Context(), k.Owner, agentkey.EventsInput{Limit: 1})
	is.NoErr(err)
	is.Equal(page.Events[0].Details["owner_alone"], "true")
}

// What the host can't tell is no approval.
func TestUnknownApproversRefuse(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	away := errors.New("directory is away")
	k := agentkeytest.New(t, func(c *agentkey.Config) {
		c.SoleApprover = func(context.Context, agentkey.Actor) (bool, error) { return true, away }
	})
	agent, _ := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_sole")
	_, err := k.Assign(t.Context(), k.Owner, agentkey.AssignInput{Agent: agent.ID, Tool: tool.ID})
	is.True(errors.Is(err, away))
}
