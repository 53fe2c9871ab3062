package contract_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// shelf is an anchor in memory, which can be out of reach.
type shelf struct {
	away atomic.Bool
	mu   sync.Mutex
	kept map[string][]byte
}

func (*shelf) Name() string { return "shelf" }

func (s *shelf) Keep(ctx context.Context, h *agentkey.AnchorHead) error {
	if s.away.Load() {
		return errors.New("no route")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := h.Follows(ctx, s.kept[h.Log()]); err != nil {
		return err
	}
	s.kept[h.Log()] = h.Signed
	return nil
}

// TestAnchored: what takes access away says whether the anchors have it, where the
// server waits for them; nothing else does, and no refusal.
func TestAnchored(t *testing.T) {
	t.Parallel()
	dir := &shelf{kept: make(map[string][]byte)}
	o := unlimited()
	o.Config, o.Anchors = refserver.Config{AnchorRevocations: time.Minute}, []agentkey.Anchor{dir}
	each(t, o, func(t *testing.T, f *servertest.Fixture) {
		is := is.New(t)
		agent, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool)
		_, auditor := f.Administrator(agentkey.RoleAuditor)
		said := func(method, path, token, body string) string {
			res := f.Do(method, "/api/admin"+path, token, body)
			return words(res.Status, res.Header.Get("AgentKey-Anchored"))
		}
		grant := "/agents/" + agent + "/tools/" + tool
		is.Equal(said(http.MethodDelete, grant, f.Owner, ""), "200 yes")
		dir.away.Store(true)
		is.Equal(said(http.MethodDelete, "/tools/"+tool+"/credential", f.Owner, ""), "200 no") // it stands all the same
		is.Equal(f.Must(200, "GET", "/api/admin/tools/"+tool, f.Owner, "")["credentialPresent"], false)
		dir.away.Store(false)
		is.Equal(said(http.MethodDelete, grant, auditor, ""), "403 ")               // refused, which is recorded
		is.Equal(said(http.MethodDelete, "/agents/x/tools/y", f.Owner, ""), "404 ") // nothing to say of
		is.Equal(said(http.MethodPut, "/agents/"+agent, f.Owner, `{"name":"bot 2"}`), "200 ")
		for _, path := range []string{"/organization/lock", "/organization/unlock"} {
			want := map[bool]string{true: "200 yes", false: "200 "}[path == "/organization/lock"]
			is.Equal(said(http.MethodPost, path, f.Owner, ""), want)
		}
		request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
		is.Equal(said(http.MethodPost, "/requests/"+request+"/deny", f.Owner, `{}`), "200 yes")
		is.Equal(said(http.MethodDelete, "/agents/"+agent, f.Owner, ""), "200 yes")
		token := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"spare"}`)["id"].(string)
		is.Equal(said(http.MethodDelete, "/tokens/"+token, f.Owner, ""), "200 yes")
		approver, _ := f.Administrator(agentkey.RoleApprover)
		is.Equal(said(http.MethodDelete, "/administrators/"+approver, f.Owner, ""), "200 yes")
	})
}
