package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// IncidentQuery says what a report is about: exactly one of the first five, and a
// span of time.
type IncidentQuery struct {
	Agent, Tool, Key string    // ids
	Digest           string    // of an agent's key: its SHA-256, in hexadecimal
	IP               string    // an address, or a range
	Since, Until     time.Time // Until: zero is now
}

// IncidentCredential is a credential that left, and what became of it.
type IncidentCredential struct {
	Credential     string     `json:"credentialId"`
	Revision       int64      `json:"revision"`
	Tool           string     `json:"toolId"`
	ToolName       *string    `json:"toolName"`
	Vends          int64      `json:"vends"`
	Agents         int64      `json:"agents"`
	First          time.Time  `json:"firstVendAt"`
	FirstSeq       int64      `json:"firstVendSeq"`
	Last           time.Time  `json:"lastVendAt"`
	LastSeq        int64      `json:"lastVendSeq"`
	State          string     `json:"state"`
	ReplacedAt     *time.Time `json:"replacedAt"`
	RotateUpstream bool       `json:"rotateUpstream"`
}

// IncidentEvent is an event of a report.
type IncidentEvent struct {
	Kind    string  `json:"kind"` // vend, refusal, authentication, administration, other
	Address *string `json:"address"`
	Event
}

// Incident streams a report: a JSON object whose member data has the summary, and
// after it the lists openGrants and events. The caller closes it; that it ends as JSON
// does says that it is whole.
func (a *Admin) Incident(ctx context.Context, q IncidentQuery) (io.ReadCloser, error) {
	values := query("agent", q.Agent, "tool", q.Tool, "key", q.Key, "digest", q.Digest, "ip", q.IP)
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			values.Set(name, t.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
	}
	res, err := a.c.answer(ctx, call{method: http.MethodGet, path: adminPath("incident"), query: url.Values(values), again: true, slow: true})
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// ReportLeak reports a key or token of the organization that was found where it
// must not be: it is revoked, and the agent whose key it is is suspended. It answers
// agent_key, admin_token, or nothing for what the organization does not know.
func (a *Admin) ReportLeak(ctx context.Context, secret *vault.Secret, place string) (kind string, err error) {
	body := struct {
		URL string `json:"url,omitempty"`
	}{place}
	out, err := send[struct {
		Type string `json:"type"`
	}](ctx, a, http.MethodPost, body, secret, "incident", "leaked-key")
	return out.Type, err
}
