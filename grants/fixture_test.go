package grants_test

import (
	"testing"

	"github.com/agentkey-dev/agentkey-go/grants"
)

const (
	second int64 = 1_000_000
	hour         = 3600 * second
	now          = 1_795_000_000 * second
)

var (
	ada  = grants.Decider{ID: "ada", Kind: "human", Label: "ada@example.test"}
	bob  = grants.Decider{ID: "bob", Kind: "human", Label: "bob@example.test"}
	cyd  = grants.Decider{ID: "cyd", Kind: "human", Label: "cyd@example.test"}
	open = grants.Facts{Intact: true, AgentActive: true, ToolPresent: true, Credential: grants.CredentialFacts{Present: true}}
	id   = grants.Identity{ID: "g1", Organization: "org", Agent: "bot", Tool: "linear"}
)

// must returns the transition of a step that a test takes for granted.
func must(t testing.TB) func(grants.Transition, error) grants.Transition {
	return func(tr grants.Transition, err error) grants.Transition {
		t.Helper()
		if err != nil {
			t.Fatalf("a step of the set-up failed: %v", err)
		}
		return tr
	}
}

// request is what the agent asks in most tests.
func request(terms grants.Terms, required int64) grants.RequestInput {
	return grants.RequestInput{Identity: id, Reason: "to file issues", Ticket: "T-1", Asked: terms, RequiredApprovals: required}
}

// pending returns a fresh request.
func pending(t testing.TB, terms grants.Terms, required int64) grants.Grant {
	t.Helper()
	return must(t)(grants.Request(nil, request(terms, required), now)).Grant
}

// approved returns a request that ada approved at once.
func approved(t testing.TB, terms grants.Terms) grants.Grant {
	t.Helper()
	return must(t)(grants.Approve(pending(t, terms, 1), grants.ApproveInput{By: ada}, now)).Grant
}
