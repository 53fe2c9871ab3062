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
	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
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
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		dir := &shelf{kept: make(map[string][]byte)}
		o := unlimited()
		o.Store, o.Anchors, o.Config = dbtest.Clockless{Store: open(t)}, []agentkey.Anchor{dir}, refserver.Config{AnchorRevocations: time.Minute}
		f := servertest.New(t, o)
		agent, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool)
		_, auditor := f.Administrator(agentkey.RoleAuditor)
		said := func(method, path, token, body string) string {
			res := f.Do(method, "/api/admin"+path, token, body)
			return words(res.Status, res.Header.Get("AgentKey-Anchored"))
		}
		grant := "/agents/" + agent + "/tools/" + tool
		kept := said(http.MethodDelete, grant, f.Owner, "")
		for range 20 {
			if kept != "200 no" { // the database of a busy machine answers the anchor late
				break
			}
			kept = said(http.MethodDelete, grant, f.Owner, "")
		}
		is.Equal(kept, "200 yes")
		dir.away.Store(true)
		is.Equal(said(http.MethodDelete, "/tools/"+tool+"/credential", f.Owner, ""), "200 no") // it stands all the same
		is.Equal(f.Must(200, "GET", "/api/admin/tools/"+tool, f.Owner, "")["credentialPresent"], false)
		request := f.Must(201, "POST", "/api/tools/"+tool+"/request", key, `{"reason":"needed"}`)["request_id"].(string)
		token := f.Must(201, "POST", "/api/admin/tokens", f.Owner, `{"name":"spare"}`)["id"].(string)
		approver, _ := f.Administrator(agentkey.RoleApprover)
		for _, tt := range []struct{ method, path, token, body, want string }{
			{http.MethodDelete, grant, auditor, "", "403 "},               // refused, which is recorded
			{http.MethodDelete, "/agents/x/tools/y", f.Owner, "", "404 "}, // nothing to say of
			{http.MethodPut, "/agents/" + agent, f.Owner, `{"name":"bot 2"}`, "200 "},
			{http.MethodPost, "/organization/lock", f.Owner, "", "200 no"},
			{http.MethodPost, "/organization/unlock", f.Owner, "", "200 "},
			{http.MethodPost, "/requests/" + request + "/deny", f.Owner, `{}`, "200 no"},
			{http.MethodDelete, "/agents/" + agent, f.Owner, "", "200 no"},
			{http.MethodDelete, "/tokens/" + token, f.Owner, "", "200 no"},
			{http.MethodDelete, "/administrators/" + approver, f.Owner, "", "200 no"},
		} {
			is.Equal(said(tt.method, tt.path, tt.token, tt.body), tt.want)
		}
	})
}
