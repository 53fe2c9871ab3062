package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// envAdminToken is the variable that holds the administrator's token. There is
// no flag for it.
const envAdminToken = "AGENTKEY_ADMIN_TOKEN"

// serverFlags say which server to talk to, and as whom.
type serverFlags struct {
	Server         string `env:"AGENTKEY_URL" placeholder:"URL" default:"http://127.0.0.1:8700" help:"URL of the server."`
	TokenFile      string `env:"AGENTKEY_TOKEN_FILE" placeholder:"FILE" help:"File with the administrator's token, unless AGENTKEY_ADMIN_TOKEN holds it."`
	AllowPlainHTTP bool   `name:"allow-plain-http" env:"AGENTKEY_ALLOW_PLAIN_HTTP" help:"Send the token over http to another machine, on a network that encrypts by other means."`
}

// readFlags is what commands that only read have in common.
type readFlags struct {
	serverFlags
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// connect makes the client. The token is not destroyed: the process ends soon.
func (f serverFlags) connect(s *session) (*client.Admin, error) {
	token, err := s.secretFrom(envAdminToken, f.TokenFile, "--token-file", "administrator's token")
	if err != nil {
		return nil, err
	}
	admin, err := client.NewAdmin(f.Server, token, client.Options{PlainHTTP: f.AllowPlainHTTP, UserAgent: "agentkey-cli", Anchored: s.anchored})
	return admin, connecting(err, "administrator's token")
}

// connecting tells of a client that can't be made what is wrong with the settings.
func connecting(err error, what string) error {
	switch {
	case errors.Is(err, client.ErrPlainHTTP):
		return usagef("the %s would travel over plain http to another machine; give AGENTKEY_URL with https, "+
			"or --allow-plain-http if something else encrypts", what)
	case errors.Is(err, client.ErrServerURL):
		return usagef("AGENTKEY_URL (or --server) must be http(s)://HOST[:PORT] and nothing more")
	case errors.Is(err, client.ErrNoSecret):
		return usagef("what was given as the %s can't be one", what)
	}
	return err
}

// anchored says what the server says of its anchors, beside a change that took
// access away.
func (s *session) anchored(_ context.Context, anchored bool) {
	said := "Every anchor has it."
	if !anchored {
		said = "It counts at once, but not every anchor has it yet: an older copy of the database would undo it unseen."
	}
	_, _ = fmt.Fprintln(s.stderr, said)
}

// maxToken bounds a file with a token or a key in bytes.
const maxToken = 4096

// secretFrom reads who calls from a variable or from the file that a flag names.
func (s *session) secretFrom(variable, path, flag, what string) (*vault.Secret, error) {
	fromEnv, ok := s.getenv(variable)
	switch {
	case ok && path != "":
		return nil, usagef("%s and %s are both given; keep one", variable, flag)
	case ok:
		return vault.NewSecret([]byte(strings.TrimSpace(fromEnv))), nil
	case path == "":
		return nil, usagef("no %s: set %s, or give %s", what, variable, flag)
	}
	name := strings.TrimPrefix(flag, "--")
	name = strings.ReplaceAll(name, "-", " ")
	file, err := openNamed(path, name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	secret, err := vault.SecretFromReader(file, maxToken)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, cause(err))
	}
	defer secret.Destroy()
	return vault.NewSecret([]byte(strings.TrimSpace(string(secret.Bytes())))), nil
}

var uuid = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// named is what a name or id stands for.
type named struct{ id, name string }

// findAgent takes an id or an exact name.
func findAgent(ctx context.Context, admin *client.Admin, ref string) (named, error) {
	return find(ref, "agent", "agents list", admin.Agents(ctx, ref), func(a client.AgentRecord) (named, bool) {
		return named{a.ID, a.Name}, a.Name == ref
	})
}

// findTool takes an id, an exact name or a configuration key.
func findTool(ctx context.Context, admin *client.Admin, ref string) (named, error) {
	return find(ref, "tool", "tools list", admin.Tools(ctx, ""), func(t client.ToolRecord) (named, bool) {
		return named{t.ID, t.Name}, t.Name == ref || t.Key == ref
	})
}

// findAdministrator takes an id or an exact label.
func findAdministrator(ctx context.Context, admin *client.Admin, ref string) (named, error) {
	return find(ref, "administrator", "admins list", admin.Administrators(ctx), func(a client.Administrator) (named, bool) {
		return named{a.ID, a.Label}, a.Label == ref && !a.Removed
	})
}

// find gives the one item that match takes. An id is taken as it is.
func find[T any](ref, kind, command string, items iter.Seq2[T, error], match func(T) (named, bool)) (named, error) {
	if uuid.MatchString(ref) {
		id := strings.ToLower(ref)
		return named{id, id}, nil
	}
	var found []named
	for item, err := range items {
		if err != nil {
			return named{}, err
		}
		if n, ok := match(item); ok {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 0:
		return named{}, fmt.Errorf("no %s has this name; `agentkey %s` shows all", kind, command)
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, n := range found {
		ids[i] = n.id
	}
	return named{}, fmt.Errorf("%d %ss have this name; give one of the ids %s", len(found), kind, strings.Join(ids, ", "))
}

// collect reads a whole list, never nil, so that JSON shows [] for nothing.
func collect[T any](items iter.Seq2[T, error]) ([]T, error) {
	all := []T{}
	for item, err := range items {
		if err != nil {
			return nil, err
		}
		all = append(all, item)
	}
	return all, nil
}

// show prints a list as a table or as JSON.
func show[T any](s *session, asJSON bool, items iter.Seq2[T, error], titles []string, row func(T) []string) error {
	all, err := collect(items)
	if err != nil {
		return err
	}
	if asJSON {
		return s.emit(all)
	}
	t := table{titles: titles}
	for _, item := range all {
		t.add(row(item)...)
	}
	return t.print(s)
}

// span is a length of time as an argument: 90s, 8h, 30d.
type span time.Duration

var errSpan = errors.New("must be a length of time in whole seconds, such as 90s, 15m, 8h or 30d")

const day = 24 * time.Hour

// UnmarshalText reads what time.ParseDuration reads, and whole days.
func (d *span) UnmarshalText(text []byte) error {
	if days, found := strings.CutSuffix(string(text), "d"); found && days != "" && len(days) <= 5 && strings.Trim(days, "0123456789") == "" {
		var n time.Duration
		for _, digit := range days {
			n = n*10 + time.Duration(digit-'0')
		}
		*d = span(n * day)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 || v%time.Second != 0 {
		return errSpan
	}
	*d = span(v)
	return nil
}

func (d span) seconds() client.Seconds { return client.Seconds(d) }

// moment is an end in time as an argument: a length of time from now, or a date.
type moment struct {
	after span
	at    time.Time
	never bool
	set   bool
}

var errMoment = errors.New("must be a length of time such as 90d, a date such as 2027-01-31, a time such as 2027-01-31T12:00:00Z, or never")

// UnmarshalText reads one of the three forms, or "never".
func (m *moment) UnmarshalText(text []byte) error {
	m.set = true
	if string(text) == "never" {
		m.never = true
		return nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, string(text)); err == nil {
			m.at = t.UTC()
			return nil
		}
	}
	if m.after.UnmarshalText(text) != nil || m.after == 0 {
		return errMoment
	}
	return nil
}

// resolve gives the time that is meant, or nil for none.
func (m moment) resolve(now time.Time) *time.Time {
	if !m.set || m.never {
		return nil
	}
	t := m.at
	if t.IsZero() {
		t = now.Add(time.Duration(m.after)).UTC().Truncate(time.Millisecond)
	}
	return &t
}
