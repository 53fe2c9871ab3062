package agentkey_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
)

// watch looks for secrets in whatever it is shown.
type watch struct {
	t       *testing.T
	mu      sync.Mutex
	secrets map[string]string // by name
}

func (w *watch) add(name, secret string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets[name] = secret
}

// bytes wants no secret in b, nor its usual encodings.
func (w *watch) bytes(where string, b []byte) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, secret := range w.secrets {
		for encoding, form := range map[string]string{
			"as it is": secret, "hexadecimal": hex.EncodeToString([]byte(secret)), "base64": base64.StdEncoding.EncodeToString([]byte(secret))[:len(secret)],
		} {
			if bytes.Contains(b, []byte(form)) || bytes.Contains(b, []byte(strings.ToUpper(form))) {
				w.t.Errorf("%s holds the %s (%s)", where, name, encoding)
			}
		}
	}
}

// value wants no secret in any way that a value prints or encodes.
func (w *watch) value(where string, v any) {
	w.t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		w.bytes(where+" "+verb, fmt.Appendf(nil, verb, v))
	}
	if encoded, err := json.Marshal(v); err == nil {
		w.bytes(where+" json", encoded)
	}
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("value", "value", v)
	slog.New(slog.NewTextHandler(&logged, nil)).Info("value", "value", v)
	w.bytes(where+" slog", logged.Bytes())
	if err, ok := v.(error); ok && err != nil {
		w.bytes(where+" error", []byte(err.Error()))
	}
}

// Notify implements agentkey.Notifier and fails, with a secret in its error.
func (w *watch) Notify(_ context.Context, n agentkey.Notification) error {
	w.value("notification", n)
	return fmt.Errorf("post to https://hooks.example.com/%s: %s", w.secrets["webhook"], w.secrets["webhook"])
}

// lockedBuffer is what a logger of many goroutines writes to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// The whole loop with secrets that can be told apart: none shows anywhere but in
// what the vend, the registration and the token's creation hand out.
func TestSecretsShowNowhere(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	w := &watch{t: t, secrets: map[string]string{"webhook": "hook_test_canary_000001"}}
	var logged lockedBuffer
	path := filepath.Join(t.TempDir(), "agentkey.db")
	store, err := bunstore.OpenSQLite(path)
	is.NoErr(err)
	defer store.Close()
	is.NoErr(store.Migrate(ctx))
	s := &stage{t: t, Kit: agentkeytest.New(t, func(c *agentkey.Config) {
		c.Storage, c.Notifier = store, w
		c.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}))
	})}
	s.loopWithSecrets(w)
	is.NoErr(s.Sweep(ctx))
	s.Clock.Advance(time.Hour)
	is.NoErr(s.Sweep(ctx))
	s.damaged(w, path)

	page, err := s.Events(ctx, s.Owner, agentkey.EventsInput{Limit: 500})
	is.NoErr(err)
	w.value("events", page)
	var export bytes.Buffer
	is.NoErr(s.Export(ctx, s.Owner, &export))
	w.bytes("export", export.Bytes())
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if content, err := os.ReadFile(path + suffix); err == nil {
			w.bytes("database"+suffix, content)
		}
	}
	is.NoErr(s.Close(ctx))
	is.True(logged.b.Len() > 0)
	w.bytes("log", logged.b.Bytes())
}

// loopWithSecrets calls what takes and gives secrets, and what refuses them.
func (s *stage) loopWithSecrets(w *watch) {
	s.t.Helper()
	ctx := s.t.Context()
	secret := func(name string) *agentkey.Secret {
		text := name + "_test_canary_0000000000000000001"
		w.add(name, text)
		return agentkey.NewSecret([]byte(text))
	}
	see := func(what string, v any, err error) {
		s.t.Helper()
		w.value(what, v)
		w.value(what, err)
	}
	org, err := s.CreateOrganization(ctx, agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: "more", Owner: "o", Token: secret("preset")})
	see("CreateOrganization", org, err)
	owner, err := s.Authenticate(ctx, org.Token.Secret, agentkey.RequestContext{})
	see("Authenticate", owner, err)
	token, err := s.CreateToken(ctx, owner, agentkey.CreateTokenInput{})
	w.add("token", string(token.Secret.Bytes()))
	see("CreateToken", token, err)
	bot, err := s.RegisterAgent(ctx, s.Owner, agentkey.RegisterAgentInput{Name: "bot"})
	w.add("key", string(bot.Secret.Bytes()))
	see("RegisterAgent", bot, err)
	next, err := s.RotateKey(ctx, s.Owner, bot.Agent.ID, agentkey.RotateKeyInput{Grace: time.Minute})
	w.add("next key", string(next.Secret.Bytes()))
	see("RotateKey", next, err)
	caller := agentkey.Key(string(next.Secret.Bytes()))
	w.value("caller", caller)
	in := agentkey.AddToolInput{Name: "Linear", AuthType: "api_key", Mode: "shared", Credential: secret("shared")}
	w.value("AddToolInput", in)
	tool, err := s.AddTool(ctx, s.Owner, in)
	see("AddTool", tool, err)
	tool, err = s.UpdateTool(ctx, s.Owner, tool.ID, agentkey.UpdateToolInput{Credential: secret("replaced")})
	see("UpdateTool", tool, err)
	personal, err := s.AddTool(ctx, s.Owner, agentkey.AddToolInput{Name: "GitHub", AuthType: "api_key", Mode: "per_agent"})
	see("AddTool", personal, err)
	for _, id := range []string{tool.ID, personal.ID} {
		g, err := s.RequestAccess(ctx, caller, agentkey.RequestInput{Tool: id, Reason: "to test"})
		see("RequestAccess", g, err)
		decision := agentkey.DecisionInput{Credential: secret("personal " + id)}
		w.value("DecisionInput", decision)
		g, err = s.Approve(ctx, s.Owner, g.ID, decision)
		see("Approve", g, err)
		v, err := s.Vend(ctx, caller, id)
		see("Vend", v, err)
		if v == nil || v.Credential.Len() == 0 {
			s.t.Error("nothing was vended")
		}
		profile, err := s.Profile(ctx, caller)
		see("Profile", profile, err)
	}
	hook := agentkey.UpdateNotificationSettingsInput{Slack: agentkey.NewSecret([]byte("https://hooks.slack.com/services/hook_test_canary_000001"))}
	w.value("UpdateNotificationSettingsInput", hook)
	settings, err := s.UpdateNotificationSettings(ctx, s.Owner, hook)
	see("UpdateNotificationSettings", settings, err)
	s.refusedSecrets(see, secret, personal.ID)
	r, err := s.Revoke(ctx, s.Owner, bot.Agent.ID, tool.ID)
	see("Revoke", r, err)
}

// refusedSecrets calls with secrets that are not accepted.
func (s *stage) refusedSecrets(see func(string, any, error), secret func(string) *agentkey.Secret, tool string) {
	ctx := s.t.Context()
	wrong := secret("sk_agent_wrong")
	v, err := s.Vend(ctx, agentkey.Key(string(wrong.Bytes())), tool)
	see("Vend by a wrong key", v, err)
	a, err := s.Authenticate(ctx, secret("sk_admin_wrong"), agentkey.RequestContext{})
	see("Authenticate by a wrong token", a, err)
	in := agentkey.AddToolInput{Name: "x", AuthType: "api_key", Mode: "per_agent", Credential: secret("unwanted")}
	t, err := s.AddTool(ctx, s.Owner, in)
	see("AddTool with too much", t, err)
	n, err := s.UpdateNotificationSettings(ctx, s.Owner, agentkey.UpdateNotificationSettingsInput{Discord: secret("https://discord.example/")})
	see("UpdateNotificationSettings with another host", n, err)
	t, err = s.UpdateTool(ctx, s.Owner, tool, agentkey.UpdateToolInput{Credential: secret("unwanted here")})
	see("UpdateTool with too much", t, err)
	short := secret("short")
	o, err := s.CreateOrganization(ctx, agentkey.Operator("t"), agentkey.CreateOrganizationInput{Name: "", Owner: "", Token: short})
	see("CreateOrganization without a name", o, err)
}

// damaged makes a credential unreadable, so that the failure is logged too.
func (s *stage) damaged(w *watch, path string) {
	s.t.Helper()
	raw := openRaw(s.t, path)
	execRaw(s.t, raw, "UPDATE agentkey_credentials SET sealed = CAST("+lastByte("sealed")+" AS BLOB)")
	found, err := s.Agents(s.t.Context(), s.Owner, agentkey.ListInput{})
	noErr(s.t, err)
	tools, err := s.Tools(s.t.Context(), s.Owner, agentkey.ListInput{})
	w.value("Tools", tools)
	w.value("Tools", err)
	for _, g := range found[0].Granted.Items {
		v, err := s.Vend(s.t.Context(), agentkey.TrustedAgent(s.Kit.Organization.ID, found[0].ID), g.Tool)
		w.value("Vend of a damaged one", v)
		w.value("Vend of a damaged one", err)
	}
}

// Every type that a method of Manager takes or gives, filled with secrets wherever
// it can hold one, prints and encodes none.
func TestTypesPrintNoSecret(t *testing.T) {
	t.Parallel()
	const canary = "type_test_canary_0000001"
	w := &watch{t: t, secrets: map[string]string{"canary": canary}}
	seen := map[reflect.Type]bool{}
	manager := reflect.TypeFor[*agentkey.Manager]()
	types := []reflect.Type{reflect.TypeFor[agentkey.Notification](), reflect.TypeFor[agentkey.Secret]()}
	for i := range manager.NumMethod() {
		method := manager.Method(i).Type
		for j := 1; j < method.NumIn(); j++ {
			types = append(types, method.In(j))
		}
		for j := range method.NumOut() {
			types = append(types, method.Out(j))
		}
	}
	secrets := 0
	for _, typ := range types {
		if seen[typ] || typ.Kind() == reflect.Interface {
			continue
		}
		seen[typ] = true
		v := filled(typ, canary, &secrets)
		w.value(typ.String(), v.Interface())
		if typ.Kind() == reflect.Struct {
			p := reflect.New(typ)
			p.Elem().Set(v)
			w.value("*"+typ.String(), p.Interface())
		}
	}
	if len(seen) < 40 || secrets < 8 {
		t.Errorf("only %d types with %d secrets were looked at", len(seen), secrets)
	}
}

// filled is a value of a type with the canary wherever a secret can be.
func filled(typ reflect.Type, canary string, secrets *int) reflect.Value {
	v := reflect.New(typ).Elem()
	switch {
	case typ == reflect.TypeFor[*agentkey.Secret]():
		*secrets++
		v.Set(reflect.ValueOf(agentkey.NewSecret([]byte(canary))))
	case typ == reflect.TypeFor[agentkey.Secret]():
		*secrets++
		v.Set(reflect.ValueOf(agentkey.NewSecret([]byte(canary))).Elem())
	case typ == reflect.TypeFor[agentkey.Caller]():
		*secrets++
		v.Set(reflect.ValueOf(agentkey.Key(canary)))
	case typ.Kind() == reflect.Pointer:
		if typ.Elem() != reflect.TypeFor[time.Location]() {
			p := reflect.New(typ.Elem())
			p.Elem().Set(filled(typ.Elem(), canary, secrets))
			v.Set(p)
		}
	case typ.Kind() == reflect.Slice:
		v.Set(reflect.Append(v, filled(typ.Elem(), canary, secrets)))
	case typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]():
		for i := range typ.NumField() {
			if f := v.Field(i); f.CanSet() {
				f.Set(filled(typ.Field(i).Type, canary, secrets))
			}
		}
	}
	return v
}

var _ agentkey.Notifier = (*watch)(nil)

// What can be erased is apart: names, labels, addresses and free text stand in
// the personal part only, never in the event proper.
func TestEventsHoldNothingPersonal(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	s := newStage(t)
	for op, calls := range drivers {
		if slices.Contains(ofInstallation, op) || op == agentkey.OpDeleteTool || op == agentkey.OpDestroyOrganization {
			continue
		}
		for _, call := range calls {
			_ = call(s, s.boss())
		}
	}
	page, err := s.Events(t.Context(), s.Owner, agentkey.EventsInput{Limit: 500})
	is.NoErr(err)
	is.True(len(page.Events) > 25)
	actions := map[audit.Action]bool{}
	for _, e := range page.Events {
		content, err := e.Event.Encode()
		is.NoErr(err)
		actions[e.Action] = true
		for _, personal := range []string{"example.com", "Linear", "GitHub", "bot", "to test", "why", "renamed", "Pages", "cost me", "not true"} {
			if bytes.Contains(content, []byte(personal)) {
				t.Errorf("%s holds %q", e.Action, personal)
			}
		}
	}
	is.True(len(actions) > 15)
}
