package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver"
)

// scene is a real server with one tool and one agent.
type scene struct {
	*agentkeytest.Kit
	agent   agent
	id      string // the agent's
	tool    agentkey.Tool
	out     *bytes.Buffer
	credits int // how often the credential was asked for
}

// play sets the scene. decide is called once, as a person who sees the agent's
// first look at a pending request would be.
func play(t *testing.T, decide func(s *scene, request string) error) *scene {
	t.Helper()
	s := &scene{Kit: agentkeytest.New(t), out: new(bytes.Buffer)}
	issued, err := s.RegisterAgent(t.Context(), s.Owner, agentkey.RegisterAgentInput{Name: "bot"})
	if err != nil {
		t.Fatal(err)
	}
	s.id, s.tool = issued.Agent.ID, s.Tool("Linear", "lin_api_test_agent")
	server, err := refserver.New(s.Manager, refserver.Config{Clock: s.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/credentials") {
			s.credits++
		}
		server.Handler().ServeHTTP(w, r)
		pending, err := s.Inbox(context.Background(), s.Owner, agentkey.InboxInput{})
		if err != nil || len(pending.Items) == 0 || r.Method != http.MethodGet {
			return
		}
		once.Do(func() { // the agent has seen that it is pending
			if err := decide(s, pending.Items[0].ID); err != nil {
				t.Error(err)
			}
		})
	}))
	t.Cleanup(hs.Close)
	s.agent = agent{url: hs.URL, key: string(issued.Secret.Bytes()), poll: time.Millisecond, out: s.out}
	return s
}

func approve(s *scene, request string) error {
	_, err := s.Approve(context.Background(), s.Owner, request, agentkey.DecisionInput{})
	return err
}

func deny(s *scene, request string) error {
	_, err := s.Deny(context.Background(), s.Owner, request, "not this quarter")
	return err
}

func TestAgentIsApproved(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := play(t, approve)
	s.agent.receipt = filepath.Join(t.TempDir(), "receipt.json")
	is.NoErr(s.agent.work(t.Context(), "Linear"))
	text, err := os.ReadFile(s.agent.receipt)
	is.NoErr(err)
	receipt, err := audit.ParseReceipt(text)
	is.NoErr(err)
	verifiers, err := audit.NewVerifiers(s.PublicKeys()...)
	is.NoErr(err)
	_, err = receipt.Verify(verifiers)
	is.NoErr(err)
	is.True(!bytes.Contains(text, []byte("lin_api_test_agent")))
	is.Equal(s.out.String(), "Linear: none\nLinear: pending\nLinear: approved\nLinear: working with the credential\n")
	is.Equal(s.credits, 1)
}

func TestAgentIsDenied(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := play(t, deny)
	err := s.agent.work(t.Context(), "Linear")
	is.True(err != nil)
	is.Equal(err.Error(), "denied: not this quarter")
	is.Equal(s.out.String(), "Linear: none\nLinear: pending\nLinear: denied\n")
	is.Equal(s.credits, 0)
}

// TestAgentIsCutOff: the credential that is fetched after a revocation is refused
// with a hint.
func TestAgentIsCutOff(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := play(t, approve)
	is.NoErr(s.agent.work(t.Context(), "Linear"))
	_, err := s.Revoke(t.Context(), s.Owner, s.id, s.tool.ID)
	is.NoErr(err)
	err = s.agent.call(t.Context(), http.MethodGet, "/api/tools/"+s.tool.ID+"/credentials", nil, nil)
	is.True(err != nil)
	is.True(strings.HasPrefix(err.Error(), "403 Forbidden: "))
	is.True(strings.Contains(err.Error(), "revoked"))
}

func TestAgentFindsNoTool(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := play(t, approve)
	err := s.agent.work(t.Context(), "Nothing")
	is.True(err != nil)
	is.Equal(err.Error(), "there is no tool Nothing in the catalog")
}

// TestAgentEndsWhenToldTo: also while it waits for a decision.
func TestAgentEndsWhenToldTo(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	s := play(t, func(*scene, string) error { cancel(); return nil })
	is.True(s.agent.work(ctx, "Linear") != nil)
	is.Equal(s.credits, 0)
}
