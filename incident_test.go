package agentkey_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
)

func from(address string) agentkey.RequestContext {
	return agentkey.RequestContext{Address: netip.MustParseAddr(address)}
}

// summary is what a report says, in one line, and the kinds of its events.
func (s *leakStage) summary(r agentkey.IncidentReport) string {
	s.t.Helper()
	kinds := make(map[agentkey.IncidentKind]int)
	last := r.Checkpoint.Size
	for e, err := range r.Events(s.t.Context()) {
		s.is.NoErr(err)
		s.is.True(e.Seq < last) // newest first, each once, below the checkpoint
		last = e.Seq
		kinds[e.Kind]++
	}
	open := 0
	for _, err := range r.OpenGrants(s.t.Context()) {
		s.is.NoErr(err)
		open++
	}
	s.is.Equal(int64(kinds[agentkey.IncidentVend]), r.Vends)
	s.is.Equal(int64(kinds[agentkey.IncidentAdministration]), r.Acts)
	var credentials []string
	for _, c := range r.Credentials {
		credentials = append(credentials, fmt.Sprintf("%s %d×%d %s", c.ToolName, c.Vends, c.Agents, c.State))
	}
	return fmt.Sprintf("%d vends, %d refusals, %d failures, %d acts, %d open; %s", r.Vends, r.Refusals, r.Failures, r.Acts, open, strings.Join(credentials, ", "))
}

func (s *leakStage) incident(in agentkey.IncidentInput) agentkey.IncidentReport {
	s.t.Helper()
	if in.Since.IsZero() {
		in.Since = s.Clock.Now().Add(-time.Hour)
	}
	r, err := s.IncidentReport(s.t.Context(), s.Actor(agentkey.RoleAuditor), in)
	s.is.NoErr(err)
	return r
}

// TestIncident plays an incident, and asks for its report from every side.
func TestIncident(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	ctx := t.Context()
	s.Clock.Advance(2 * time.Hour)
	vend := func(address string) error {
		_, err := s.Vend(ctx, agentkey.Key(s.key).With(from(address)), s.linear.ID)
		return err
	}
	s.is.NoErr(vend("192.0.2.7"))
	s.Clock.Advance(time.Minute)
	s.is.NoErr(vend("198.51.100.9"))
	fresh := agentkey.NewSecret([]byte("lin_api_test_2"))
	_, err := s.UpdateTool(ctx, s.Owner, s.linear.ID, agentkey.UpdateToolInput{Credential: fresh})
	s.is.NoErr(err)
	s.is.NoErr(vend("198.51.100.9"))
	_, err = s.Vend(ctx, agentkey.Key(s.key).With(from("198.51.100.9")), s.Tool("Secret", "sec_api_test_1").ID)
	s.is.True(errors.Is(err, agentkey.ErrNoGrant))
	next, err := s.RotateKey(ctx, s.Owner, s.bot.Agent.ID, agentkey.RotateKeyInput{})
	s.is.NoErr(err)
	s.is.True(errors.Is(vend("198.51.100.9"), agentkey.ErrKeyRevoked))
	_, err = s.Vend(ctx, agentkey.Key("sk_agent_unknown").With(from("198.51.100.9")), s.linear.ID)
	s.is.True(errors.Is(err, agentkey.ErrUnknownKey))
	_, err = s.Vend(ctx, agentkey.Key(string(next.Secret.Bytes())).With(from("203.0.113.1")), s.linear.ID)
	s.is.NoErr(err)
	s.Clock.Advance(2 * time.Minute)
	s.is.NoErr(s.Sweep(ctx))

	byAgent := s.incident(agentkey.IncidentInput{Agent: s.bot.Agent.ID})
	s.is.Equal(s.summary(byAgent), "4 vends, 1 refusals, 1 failures, 1 acts, 2 open; Linear 2×1 current, Linear 2×1 replaced")
	s.is.Equal(s.summary(s.incident(agentkey.IncidentInput{Tool: s.linear.ID})), "4 vends, 0 refusals, 0 failures, 2 acts, 1 open; Linear 2×1 current, Linear 2×1 replaced")
	byKey := s.incident(agentkey.IncidentInput{Key: s.bot.Key.ID})
	s.is.Equal(s.summary(byKey), "3 vends, 1 refusals, 1 failures, 1 acts, 2 open; Linear 1×1 current, Linear 2×1 replaced")
	sum := sha256.Sum256([]byte(s.key))
	byDigest := s.incident(agentkey.IncidentInput{Digest: hex.EncodeToString(sum[:])})
	s.is.Equal(byDigest.Subject, byKey.Subject)
	s.is.Equal(s.summary(byDigest), s.summary(byKey))
	byAddress := s.incident(agentkey.IncidentInput{Address: "198.51.100.0/24"})
	s.is.Equal(s.summary(byAddress), "2 vends, 1 refusals, 1 failures, 0 acts, 2 open; Linear 1×1 current, Linear 1×1 replaced")
	s.is.Equal(byAddress.Strangers, int64(1))
	s.is.Equal(s.incident(agentkey.IncidentInput{Address: "192.0.2.8"}).Total, int64(0))

	// The span counts: the first vend was before this.
	late := s.incident(agentkey.IncidentInput{Agent: s.bot.Agent.ID, Since: s.Clock.Now().Add(-150 * time.Second)})
	s.is.Equal(late.Vends, int64(3))

	// Each event that the report rests on is proven by its checkpoint.
	v, err := audit.NewVerifiers(s.PublicKeys()...)
	s.is.NoErr(err)
	c, err := audit.OpenCheckpoint(byAgent.Checkpoint.Signed, v)
	s.is.NoErr(err)
	for e, err := range byAgent.Events(ctx) {
		s.is.NoErr(err)
		proof, err := s.InclusionProof(ctx, s.Owner, e.Seq, c.Size)
		s.is.NoErr(err)
		s.is.Equal(proof.Leaf, e.Leaf)
	}

	// What is deleted must still be rotated at the service.
	_, err = s.DeleteTool(ctx, s.Owner, s.linear.ID)
	s.is.NoErr(err)
	gone := s.incident(agentkey.IncidentInput{Tool: s.linear.ID})
	s.is.Equal(s.summary(gone), "4 vends, 0 refusals, 0 failures, 4 acts, 0 open; Linear 2×1 removed, Linear 2×1 removed")
	s.is.True(gone.Credentials[0].RotateUpstream())
}

// TestIncidentSaysWhatItCantTell shows that erased and removed parts are said.
func TestIncidentSaysWhatItCantTell(t *testing.T) {
	t.Parallel()
	s := newLeakStage(t)
	ctx := t.Context()
	for range 3 { // the last one is kept: access to know of rests on it
		_, err := s.Vend(ctx, agentkey.Key(s.key).With(from("192.0.2.7")), s.linear.ID)
		s.is.NoErr(err)
	}
	since := s.Clock.Now().Add(-time.Hour)
	_, err := s.SetRetention(ctx, s.Owner, agentkey.RetentionPolicy{ContentDays: 30, PersonalDays: 1})
	s.is.NoErr(err)
	s.Clock.Advance(48 * time.Hour)
	s.is.NoErr(s.Retain(ctx))
	r := s.incident(agentkey.IncidentInput{Address: "192.0.2.7", Since: since})
	s.is.Equal(r.Vends, int64(0))
	s.is.True(r.Erased > 0)
	s.is.True(!r.Incomplete)
	s.Clock.Advance(40 * 24 * time.Hour)
	s.is.NoErr(s.Retain(ctx))
	r = s.incident(agentkey.IncidentInput{Agent: s.bot.Agent.ID, Since: since})
	s.is.True(r.RemovedBelow > 0)
	s.is.True(r.Incomplete)
	r = s.incident(agentkey.IncidentInput{Agent: s.bot.Agent.ID})
	s.is.True(!r.Incomplete)
}

func TestIncidentInput(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newLeakStage(t)
	at := agentkeytest.Epoch
	for name, in := range map[string]agentkey.IncidentInput{
		"nothing":     {Since: at},
		"two":         {Agent: s.bot.Agent.ID, Tool: s.linear.ID, Since: at},
		"no since":    {Agent: s.bot.Agent.ID},
		"until first": {Agent: s.bot.Agent.ID, Since: at, Until: at.Add(-time.Second)},
		"address":     {Address: "192.0.2", Since: at},
		"digest":      {Digest: "00", Since: at},
		"future":      {Agent: s.bot.Agent.ID, Since: at.Add(1000 * time.Hour)},
	} {
		if _, err := s.IncidentReport(t.Context(), s.Owner, in); !errors.Is(err, agentkey.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, in := range []agentkey.IncidentInput{{Agent: "nobody", Since: at}, {Key: "nobody", Since: at}, {Digest: strings.Repeat("00", 32), Since: at}} {
		_, err := s.IncidentReport(t.Context(), s.Owner, in)
		is.True(errors.Is(err, agentkey.ErrNotFound))
	}
}
