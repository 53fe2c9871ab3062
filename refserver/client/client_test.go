package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

const token = "sk_admin_test_0123456789abcdefghijklmnop"

func secret(s string) *vault.Secret { return vault.NewSecret([]byte(s)) }

// waits counts what a client would have waited.
type waits []time.Duration

func (w *waits) wait(_ context.Context, d time.Duration) error {
	*w = append(*w, d)
	return nil
}

func admin(t *testing.T, h http.HandlerFunc, o client.Options) *client.Admin {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	a, err := client.NewAdmin(server.URL, secret(token), o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func agent(t *testing.T, h http.HandlerFunc) *client.Agent {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	a, err := client.NewAgent(server.URL, secret("sk_agent_test_key"), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func answer(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func TestServerURL(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]error{
		"http://127.0.0.1:8700":          nil,
		"http://localhost:8700":          nil,
		"http://[::1]:8700":              nil,
		"https://agentkey.example.com":   nil,
		"https://example.com/agentkey/":  nil,
		"http://agentkey.example.com":    client.ErrPlainHTTP,
		"http://localhost.example.com":   client.ErrPlainHTTP,
		"http://10.0.0.1":                client.ErrPlainHTTP,
		"":                               client.ErrServerURL,
		"127.0.0.1:8700":                 client.ErrServerURL,
		"ftp://127.0.0.1":                client.ErrServerURL,
		"https://user:pw@example.com":    client.ErrServerURL,
		"https://example.com/?q=1":       client.ErrServerURL,
		"https://example.com/#f":         client.ErrServerURL,
		"https://exa mple.com":           client.ErrServerURL,
		"https://example.com:port":       client.ErrServerURL,
		"http://[::1]:namedport/SECRETS": client.ErrServerURL,
	} {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			_, err := client.NewAdmin(server, secret(token), client.Options{})
			is.True(errors.Is(err, want))
			is.True(err == nil || server == "" || !strings.Contains(err.Error(), server)) // not repeated
		})
	}
	is := is.New(t)
	_, err := client.NewAdmin("http://10.0.0.1", secret(token), client.Options{PlainHTTP: true})
	is.NoErr(err)
}

func TestSecretThatCannotBeOne(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "two words", "line\nbreak", "café", strings.Repeat("x", 513)} {
		is := is.New(t)
		_, err := client.NewAdmin("https://example.com", secret(s), client.Options{})
		is.Equal(err, client.ErrNoSecret)
	}
	is := is.New(t)
	_, err := client.NewAgent("https://example.com", nil, client.Options{})
	is.Equal(err, client.ErrNoSecret)
}

func TestErrorCarriesWhatTheServerSays(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := admin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Request-Id", "req-1")
		answer(w, 400, `{"error":"name is too short","hint":"See the schema.","details":[{"field":"name","message":"too short"}]}`)
	}, client.Options{})
	_, err := a.RegisterAgent(t.Context(), client.NewAgentRecord{Name: "x"})
	var e *client.Error
	is.True(errors.As(err, &e))
	is.Equal(*e, client.Error{
		Status: 400, Message: "name is too short", Hint: "See the schema.", Request: "req-1",
		Details: []client.FieldError{{Field: "name", Message: "too short"}},
	})
	is.True(errors.Is(err, &client.Error{Status: 400}))
	is.True(!errors.Is(err, &client.Error{Status: 404}))
}

func TestReadsWaitAndRepeat(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 503} {
		is := is.New(t)
		var w waits
		calls := 0
		a := admin(t, func(rw http.ResponseWriter, _ *http.Request) {
			if calls++; calls < 3 {
				rw.Header().Set("Retry-After", "2")
				answer(rw, status, `{"error":"later"}`)
				return
			}
			answer(rw, 200, `{"data":{"id":"o","name":"Acme"}}`)
		}, client.Options{Wait: w.wait})
		o, err := a.Organization(t.Context())
		is.NoErr(err)
		is.Equal(o.Name, "Acme")
		is.Equal(w, waits{2 * time.Second, 2 * time.Second})
	}
}

func TestReadsDoNotWaitForEver(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int{"3600": 0, "6": 1, "": 10, "nonsense": 10} {
		is := is.New(t)
		var w waits
		a := admin(t, func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Retry-After", header)
			answer(rw, 429, `{"error":"later"}`)
		}, client.Options{Wait: w.wait})
		_, err := a.Organization(t.Context())
		is.True(errors.Is(err, &client.Error{Status: 429}))
		is.Equal(len(w), want) // waits within 10 seconds in all
	}
}

// TestChangesAreNotRepeated also covers the vend, which counts.
func TestChangesAreNotRepeated(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	calls := 0
	busy := func(rw http.ResponseWriter, _ *http.Request) {
		calls++
		rw.Header().Set("Retry-After", "1")
		answer(rw, 503, `{"error":"later"}`)
	}
	a := admin(t, busy, client.Options{})
	_, err := a.Revoke(t.Context(), "a", "t")
	is.True(errors.Is(err, &client.Error{Status: 503}))
	_, err = a.AddTool(t.Context(), client.NewTool{}, nil)
	is.True(errors.Is(err, &client.Error{Status: 503}))
	_, err = agent(t, busy).Credential(t.Context(), "t")
	var e *client.Error
	is.True(errors.As(err, &e))
	is.Equal(e.RetryAfter, time.Second)
	is.Equal(calls, 3)
}

func TestPagesAreFollowedOnTheSameServer(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var seen []string
	a := admin(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.RequestURI())
		switch r.URL.Query().Get("cursor") {
		case "":
			w.Header().Set("Link", `<https://elsewhere.example.com/api/admin/agents?cursor=c1&limit=500&name=bot>; rel="next"`)
			answer(w, 200, `{"data":[{"id":"3"},{"id":"2"}]}`)
		default:
			answer(w, 200, `{"data":[{"id":"1"}]}`)
		}
	}, client.Options{})
	var ids []string
	for item, err := range a.Agents(t.Context(), "bot") {
		is.NoErr(err)
		ids = append(ids, item.ID)
	}
	is.Equal(ids, []string{"3", "2", "1"})
	is.Equal(seen, []string{"/api/admin/agents?limit=500&name=bot", "/api/admin/agents?cursor=c1&limit=500&name=bot"})
}

func TestListStopsAtTheFirstError(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := admin(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 403, `{"error":"no"}`) }, client.Options{})
	n := 0
	for _, err := range a.Tools(t.Context(), "") {
		is.True(errors.Is(err, &client.Error{Status: 403}))
		n++
	}
	is.Equal(n, 1)
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	stolen := false
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen = true }))
	t.Cleanup(thief.Close)
	a := admin(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusPermanentRedirect)
	}, client.Options{})
	_, err := a.Organization(t.Context())
	is.True(errors.Is(err, &client.Error{Status: 308}))
	is.True(!stolen)
}

func TestAnswersOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"html":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"not json":  func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "{") },
		"no answer": func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, "") },
		"too long": func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, `{"data":{"name":"`+strings.Repeat("x", 17<<20)+`"}}`)
		},
	} {
		is := is.New(t)
		_, err := admin(t, h, client.Options{}).Organization(t.Context())
		if !errors.Is(err, client.ErrAnswer) {
			t.Errorf("%s: %v", name, err)
		}
		_, err = agent(t, h).Credential(t.Context(), "t")
		is.True(errors.Is(err, client.ErrAnswer))
	}
}

func TestAnUnreachableServerIsNamedWithoutTheURL(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	server := httptest.NewServer(nil)
	server.Close()
	a, err := client.NewAdmin(server.URL+"/path-of-mine", secret(token), client.Options{})
	is.NoErr(err)
	_, err = a.Organization(t.Context())
	is.True(err != nil)
	is.True(!strings.Contains(err.Error(), "path-of-mine"))
	is.True(!strings.Contains(err.Error(), token))
}

func TestIdsCannotLeaveTheirPath(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"../tools", "..", ".", "a/b", "a?b=c", "a#b", "%2e%2e", "ü", "a b"} {
		is := is.New(t)
		var path, query string
		a := admin(t, func(w http.ResponseWriter, r *http.Request) {
			path, query = r.URL.EscapedPath(), r.URL.RawQuery
			answer(w, 404, `{"error":"no such agent"}`)
		}, client.Options{})
		err := a.SuspendAgent(t.Context(), id)
		is.True(errors.Is(err, &client.Error{Status: 404}))
		is.Equal(strings.Count(path, "/"), 4) // /api/admin/agents/ID
		is.True(strings.HasPrefix(path, "/api/admin/agents/"))
		is.Equal(query, "")
	}
}

func TestCredentialTravelsInTheBodyWhole(t *testing.T) {
	t.Parallel()
	for _, credential := range []string{
		"lin_api_test_1", `quo"te\back`, "line\r\nline\ttab\x00\x1f", "ünïcode 漢字 🔑 \u2028", "</script>", strings.Repeat(`"`, 1000),
	} {
		is := is.New(t)
		var got struct {
			Name       string `json:"name"`
			Credential string `json:"credential"`
		}
		var auth string
		a := admin(t, func(w http.ResponseWriter, r *http.Request) {
			auth = r.Header.Get("Authorization")
			body, err := io.ReadAll(r.Body)
			is.NoErr(err)
			is.Equal(int64(len(body)), r.ContentLength)
			is.NoErr(json.Unmarshal(body, &got))
			answer(w, 201, `{"data":{"id":"t"}}`)
		}, client.Options{})
		kept := secret(credential)
		_, err := a.AddTool(t.Context(), client.NewTool{Name: "Linear"}, kept)
		is.NoErr(err)
		is.Equal(got.Credential, credential)
		is.Equal(got.Name, "Linear")
		is.Equal(auth, "Bearer "+token)
		is.Equal(string(kept.Bytes()), credential) // the caller's is left alone
	}
	is := is.New(t)
	a := admin(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 201, `{"data":{}}`) }, client.Options{})
	_, err := a.AddTool(t.Context(), client.NewTool{}, secret("\xff\xfe"))
	is.Equal(err, client.ErrText)
}

func TestVendedCredential(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`"lin_api_test_1"`:           "lin_api_test_1",
		`"a\"b\u00e9\n"`:             "a\"bé\n",
		`{"access_token":"x","n":1}`: `{"access_token":"x","n":1}`,
		`[1, 2]`:                     `[1, 2]`,
		`""`:                         "",
	} {
		is := is.New(t)
		a := agent(t, func(w http.ResponseWriter, r *http.Request) {
			is.Equal(r.URL.Path, "/api/tools/tool-1/credentials")
			is.Equal(r.Header.Get("Authorization"), "Bearer sk_agent_test_key")
			answer(w, 200, `{"tool_id":"tool-1","tool_name":"Linear","auth_type":"api_key","credential":`+body+`,"instructions":"use it"}`)
		})
		c, err := a.Credential(t.Context(), "tool-1")
		is.NoErr(err)
		is.Equal(string(c.Secret.Bytes()), want)
		is.Equal(c.ToolName, "Linear")
		if want != "" {
			is.True(!strings.Contains(fmt.Sprintf("%v %+v %#v", c, c, *c), want)) // it does not print
		}
	}
	for _, body := range []string{`{"tool_id":"t"}`, `{"tool_id":"t","credential":null}`} {
		is := is.New(t)
		_, err := agent(t, func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, body) }).Credential(t.Context(), "t")
		is.Equal(err, client.ErrAnswer)
	}
}

func TestRequestBodies(t *testing.T) {
	t.Parallel()
	minute := client.Seconds(time.Minute + 900*time.Millisecond)
	end := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	never := (*time.Time)(nil)
	at := &end
	name := "n"
	for want, call := range map[string]func(context.Context, *client.Admin) error{
		`POST agents {"name":"bot","keyExpiresIn":60,"addresses":["10.0.0.0/8"]}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.RegisterAgent(ctx, client.NewAgentRecord{Name: "bot", KeyExpiresIn: minute, Addresses: []string{"10.0.0.0/8"}})
			return err
		},
		`POST requests/r/approve {"expiresIn":60,"maxVends":3}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.Approve(ctx, "r", client.Decision{ExpiresIn: minute, MaxVends: 3}, nil)
			return err
		},
		`POST requests/r/deny {}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.Deny(ctx, "r", "")
			return err
		},
		`POST agents/a/tools {"toolId":"t"}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.Assign(ctx, "a", "t", client.Decision{}, nil)
			return err
		},
		`PUT tools/t {"credentialExpiresAt":null}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.UpdateTool(ctx, "t", client.ToolChange{CredentialExpiresAt: &never}, nil)
			return err
		},
		`PUT tools/t {"credentialExpiresAt":"2027-01-31T00:00:00Z","credential":"lin_api_test_2"}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.UpdateTool(ctx, "t", client.ToolChange{CredentialExpiresAt: &at}, secret("lin_api_test_2"))
			return err
		},
		`PUT tools/t {"credential":"lin_api_test_3"}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.UpdateTool(ctx, "t", client.ToolChange{}, secret("lin_api_test_3"))
			return err
		},
		`PUT administrators/x {"label":"n"}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.UpdateAdministrator(ctx, "x", client.AdministratorChange{Label: &name})
			return err
		},
		`POST notifications {"slackWebhook":"https://hooks.slack.com/services/hook_test"}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.SetWebhook(ctx, "slack", secret("https://hooks.slack.com/services/hook_test"))
			return err
		},
		`POST notifications {"clearDiscord":true}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.ClearWebhooks(ctx, client.WebhooksToClear{Discord: true})
			return err
		},
		`POST onboarding/dismiss {}`: func(ctx context.Context, a *client.Admin) error {
			_, err := a.DismissOnboarding(ctx)
			return err
		},
		`POST agents/a/reactivate {}`: func(ctx context.Context, a *client.Admin) error { return a.ReactivateAgent(ctx, "a") },
		`DELETE agents/a/tools/t `: func(ctx context.Context, a *client.Admin) error {
			_, err := a.Revoke(ctx, "a", "t")
			return err
		},
	} {
		is := is.New(t)
		got := ""
		a := admin(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			got = r.Method + " " + strings.TrimPrefix(r.URL.Path, "/api/admin/") + " " + string(body)
			answer(w, 200, `{"data":{"agent_id":"a","api_key":"sk_agent_test"}}`)
		}, client.Options{})
		is.NoErr(call(t.Context(), a))
		is.Equal(got, want)
	}
}

func TestIssuedSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := admin(t, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 201, `{"data":{"id":"1","token":"sk_admin_test_new","agent_id":"a","api_key":"sk_agent_test_new"}}`)
	}, client.Options{})
	issued, err := a.CreateToken(t.Context(), client.NewToken{})
	is.NoErr(err)
	is.Equal(string(issued.Secret.Bytes()), "sk_admin_test_new")
	key, err := a.RotateKey(t.Context(), "a", client.NewKey{})
	is.NoErr(err)
	is.Equal(string(key.Secret.Bytes()), "sk_agent_test_new")
	printed := fmt.Sprintf("%+v %#v %+v %#v %+v %#v", issued, issued, key, key, a, a)
	is.True(!strings.Contains(printed, "_test"))
}

func TestExportStreamsAndSaysWhenItIsCut(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var out strings.Builder
	whole := admin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "one\ntwo\n") }, client.Options{})
	is.NoErr(whole.Export(t.Context(), &out))
	is.Equal(out.String(), "one\ntwo\n")
	cutOff := admin(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}, client.Options{})
	is.True(cutOff.Export(t.Context(), io.Discard) != nil)
}

func TestAgentCalls(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	a := agent(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.Path {
		case "GET /api/tools":
			answer(w, 200, `{"tools":[{"id":"t","name":"Linear","your_access":"approved","vends_left":2}]}`)
		case "GET /api/me":
			answer(w, 200, `{"agent_id":"a","agent_name":"bot","created_at":"2026-11-23T06:40:14.128Z","tools_denied":[{"name":"X","reason":null}]}`)
		case "POST /api/tools/t/request":
			body, _ := io.ReadAll(r.Body)
			is.Equal(string(body), `{"reason":"triage","duration":3600}`)
			answer(w, 201, `{"request_id":"r","status":"pending"}`)
		default:
			answer(w, 404, `{}`)
		}
	})
	tools, err := a.Tools(t.Context())
	is.NoErr(err)
	is.Equal(*tools[0].VendsLeft, int64(2))
	me, err := a.Me(t.Context())
	is.NoErr(err)
	is.Equal(me.Name, "bot")
	r, err := a.RequestAccess(t.Context(), "t", client.AccessRequest{Reason: "triage", Duration: client.Seconds(time.Hour)})
	is.NoErr(err)
	is.Equal(r.ID, "r")
}

// TestAnchored: who asks is told what the server says of its anchors.
func TestAnchored(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	var told []bool
	a := admin(t, func(w http.ResponseWriter, r *http.Request) {
		switch tool := strings.TrimPrefix(r.URL.Path, "/api/admin/agents/bot/tools/"); tool {
		case "refused":
			w.Header().Set("AgentKey-Anchored", "yes")
			answer(w, 403, `{"error":"not allowed"}`)
		case "unanchored":
			answer(w, 200, `{"data":{"ok":true}}`)
		default:
			w.Header().Set("AgentKey-Anchored", tool)
			answer(w, 200, `{"data":{"ok":true}}`)
		}
	}, client.Options{Anchored: func(ctx context.Context, anchored bool) {
		is.Equal(ctx, t.Context())
		told = append(told, anchored)
	}})
	for _, tool := range []string{"yes", "no", "unanchored"} {
		_, err := a.Revoke(t.Context(), "bot", tool)
		is.NoErr(err)
	}
	_, err := a.Revoke(t.Context(), "bot", "refused")
	is.True(err != nil)
	is.Equal(told, []bool{true, false})
}
