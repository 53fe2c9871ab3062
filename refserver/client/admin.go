package client

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// Admin is a client with an administrator's token. What it sees and changes is
// the organization of that token, as far as the administrator's role allows.
type Admin struct{ c *connection }

// NewAdmin returns a client of the server at the URL, such as
// https://agentkey.example.com. It takes no ownership of token, which must live
// as long as the client. Errors: ErrServerURL, ErrPlainHTTP, ErrNoSecret.
func NewAdmin(server string, token *vault.Secret, o Options) (*Admin, error) {
	c, err := connect(server, token, o)
	if err != nil {
		return nil, err
	}
	return &Admin{c}, nil
}

// data is the envelope of every answer.
type data[T any] struct {
	Data T `json:"data"`
}

// pageSize is the largest page that the server gives.
const pageSize = "500"

func adminPath(segments ...string) []string { return append([]string{"api", "admin"}, segments...) }

func get[T any](ctx context.Context, a *Admin, segments ...string) (T, error) {
	var out data[T]
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath(segments...), again: true}, &out)
	return out.Data, err
}

// send makes a change; credential may be nil.
func send[T any](ctx context.Context, a *Admin, method string, body any, credential *vault.Secret, segments ...string) (T, error) {
	var out data[T]
	_, err := a.c.do(ctx, call{method: method, path: adminPath(segments...), body: body, secret: credential}, &out)
	return out.Data, err
}

// none is the answer of calls that answer nothing worth reading.
type none struct{}

// list walks all pages of a list, newest first, and stops at the first error.
func list[T any](ctx context.Context, a *Admin, q url.Values, segments ...string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		q := maps.Clone(q) // so that the sequence can be walked again
		if q == nil {
			q = url.Values{}
		}
		if !q.Has("limit") {
			q.Set("limit", pageSize)
		}
		for q != nil {
			var page data[[]T]
			next, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath(segments...), query: q, again: true}, &page)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, item := range page.Data {
				if !yield(item, nil) {
					return
				}
			}
			q = next
		}
	}
}

// query makes url.Values of pairs of name and value, without the empty ones.
func query(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

// Organization gives the token's organization.
func (a *Admin) Organization(ctx context.Context) (Organization, error) {
	return get[Organization](ctx, a, "organization")
}

// RenameOrganization gives it another name.
func (a *Admin) RenameOrganization(ctx context.Context, name string) (Organization, error) {
	return send[Organization](ctx, a, http.MethodPut, map[string]string{"name": name}, nil, "organization")
}

// Lock refuses every vend and every request of the organization until Unlock.
func (a *Admin) Lock(ctx context.Context, reason string) (Organization, error) {
	return send[Organization](ctx, a, http.MethodPost, reasonBody(reason), nil, "organization", "lock")
}

// Unlock ends a lockdown.
func (a *Admin) Unlock(ctx context.Context, reason string) (Organization, error) {
	return send[Organization](ctx, a, http.MethodPost, reasonBody(reason), nil, "organization", "unlock")
}

func reasonBody(reason string) any {
	return struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
}

// Administrators lists them, removed ones included.
func (a *Admin) Administrators(ctx context.Context) iter.Seq2[Administrator, error] {
	return list[Administrator](ctx, a, url.Values{}, "administrators")
}

// NewAdministrator describes an administrator to add.
type NewAdministrator struct {
	Label string `json:"label"`
	Kind  string `json:"kind,omitempty"` // human or service; empty: human
	Role  string `json:"role"`
}

// AddAdministrator adds one, without a token.
func (a *Admin) AddAdministrator(ctx context.Context, in NewAdministrator) (Administrator, error) {
	return send[Administrator](ctx, a, http.MethodPost, in, nil, "administrators")
}

// AdministratorChange changes what is not nil.
type AdministratorChange struct {
	Label *string `json:"label,omitempty"`
	Role  *string `json:"role,omitempty"`
}

// UpdateAdministrator changes one.
func (a *Admin) UpdateAdministrator(ctx context.Context, id string, in AdministratorChange) (Administrator, error) {
	return send[Administrator](ctx, a, http.MethodPut, in, nil, "administrators", id)
}

// RemoveAdministrator removes one for good; its tokens are dead at once.
func (a *Admin) RemoveAdministrator(ctx context.Context, id string) error {
	_, err := send[none](ctx, a, http.MethodDelete, nil, nil, "administrators", id)
	return err
}

// Tokens lists the tokens that the administrator may see.
func (a *Admin) Tokens(ctx context.Context) iter.Seq2[TokenRecord, error] {
	return list[TokenRecord](ctx, a, url.Values{}, "tokens")
}

// NewToken describes a token to make.
type NewToken struct {
	Administrator string  `json:"administrator,omitempty"` // empty: the caller's own
	Name          string  `json:"name,omitempty"`
	ExpiresIn     Seconds `json:"expiresIn,omitempty"` // 0: never
}

// CreateToken makes a token.
func (a *Admin) CreateToken(ctx context.Context, in NewToken) (IssuedToken, error) {
	out, err := send[struct {
		TokenRecord
		Secret string `json:"token"`
	}](ctx, a, http.MethodPost, in, nil, "tokens")
	if err == nil && out.Secret == "" {
		err = ErrAnswer
	}
	if err != nil {
		return IssuedToken{}, err
	}
	return IssuedToken{Token: out.TokenRecord, Secret: vault.NewSecret([]byte(out.Secret))}, nil
}

// RevokeToken ends a token at once.
func (a *Admin) RevokeToken(ctx context.Context, id string) error {
	_, err := send[none](ctx, a, http.MethodDelete, nil, nil, "tokens", id)
	return err
}

// EventQuery finds events; empty fields select all.
type EventQuery struct {
	Action   string
	Agent    string
	Tool     string
	Actor    string
	From, To time.Time
	Limit    int // of a page, 1 to 500; 0: 500
}

// Events lists the audit log, newest first.
func (a *Admin) Events(ctx context.Context, in EventQuery) iter.Seq2[Event, error] {
	q := query("action", in.Action, "agent_id", in.Agent, "tool_id", in.Tool, "actor", in.Actor,
		"from", timestamp(in.From), "to", timestamp(in.To))
	if in.Limit > 0 {
		q.Set("limit", strconv.Itoa(in.Limit))
	}
	return list[Event](ctx, a, q, "audit-log")
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func check[T any](ctx context.Context, a *Admin, what string) (T, error) {
	var out data[T]
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath("audit", what), again: true, slow: true}, &out)
	return out.Data, err
}

// Verify has the server check every hash and signature of the log.
func (a *Admin) Verify(ctx context.Context) (Verification, error) {
	return check[Verification](ctx, a, "verify")
}

// Reconcile has the server replay the log against the records.
func (a *Admin) Reconcile(ctx context.Context) (Reconciliation, error) {
	return check[Reconciliation](ctx, a, "reconcile")
}

// Export writes the whole log to w: one JSON value a line, with the exact bytes
// that are signed. When it fails, what was written is not a whole export.
func (a *Admin) Export(ctx context.Context, w io.Writer) error {
	res, err := a.c.answer(ctx, call{method: http.MethodGet, path: adminPath("audit", "export"), again: true, slow: true})
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if _, err := io.Copy(w, res.Body); err != nil {
		return transportError(err)
	}
	return nil
}

// PublicKeys gives all keys that verify the log's signatures, former ones too.
func (a *Admin) PublicKeys(ctx context.Context) ([]string, error) {
	out, err := get[struct {
		Keys []string `json:"publicKeys"`
	}](ctx, a, "audit", "keys")
	return out.Keys, err
}

// Checkpoint gives the log's newest signed head, a signed note.
func (a *Admin) Checkpoint(ctx context.Context) (string, error) {
	out, err := get[struct {
		Signed string `json:"checkpoint"`
	}](ctx, a, "audit", "checkpoint")
	if err == nil && out.Signed == "" {
		err = ErrAnswer
	}
	return out.Signed, err
}

// InclusionProof proves that an event is in the log at a size, 0 for the latest.
// audit.ParseReceipt reads what it answers.
func (a *Admin) InclusionProof(ctx context.Context, seq, size int64) (json.RawMessage, error) {
	return a.proof(ctx, "inclusion", url.Values{"seq": {strconv.FormatInt(seq, 10)}}, "size", size)
}

// ConsistencyProof proves that the log at the size to, 0 for the latest, begins
// with what it was at the size from. audit.ParseConsistency reads what it answers.
func (a *Admin) ConsistencyProof(ctx context.Context, from, to int64) (json.RawMessage, error) {
	return a.proof(ctx, "consistency", url.Values{"from": {strconv.FormatInt(from, 10)}}, "to", to)
}

func (a *Admin) proof(ctx context.Context, what string, q url.Values, limit string, size int64) (json.RawMessage, error) {
	if size != 0 {
		q.Set(limit, strconv.FormatInt(size, 10))
	}
	var out data[json.RawMessage]
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath("audit", "proof", what), query: q, again: true, slow: true}, &out)
	return out.Data, err
}

// PublicKey gives the key that verifies the log's signatures.
func (a *Admin) PublicKey(ctx context.Context) (string, error) {
	out, err := get[struct {
		Key string `json:"publicKey"`
	}](ctx, a, "audit", "public-key")
	return out.Key, err
}
