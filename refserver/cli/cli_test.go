package cli_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/matryer/is"
	_ "modernc.org/sqlite"
	"pgregory.net/rapid"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
	"github.com/agentkey-dev/agentkey-go/vault"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// result is what a run of the program came to.
type result struct {
	status      int
	out, errors string
}

func run(ctx context.Context, env []string, stdin string, args ...string) result {
	return runBy(cli.Main, ctx, env, stdin, args...)
}

type mainFunc func(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer, o cli.Options) int

func runBy(main mainFunc, ctx context.Context, env []string, stdin string, args ...string) result {
	var out, errs bytes.Buffer
	status := main(ctx, args, env, strings.NewReader(stdin), &out, &errs, cli.Options{Clock: func() time.Time { return noon }})
	return result{status, out.String(), errs.String()}
}

// program is the program for many runs of one test.
func program(t *testing.T) *cli.Program {
	t.Helper()
	p, err := cli.NewProgram()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// leaves gives every command with its flags.
func leaves(p *cli.Program) []*kong.Node { return p.Model().Leaves(false) }

func TestEveryFlagHasAVariableOfItsOwn(t *testing.T) {
	t.Parallel()
	flags := map[string]string{} // by variable
	n := 0
	for _, command := range leaves(program(t)) {
		for _, flag := range command.Flags {
			n++
			if len(flag.Envs) != 1 || !strings.HasPrefix(flag.Envs[0], "AGENTKEY_") || strings.ToUpper(flag.Envs[0]) != flag.Envs[0] {
				t.Errorf("%s --%s has the variables %v", command.FullPath(), flag.Name, flag.Envs)
				continue
			}
			if other, ok := flags[flag.Envs[0]]; ok && other != flag.Name {
				t.Errorf("%s stands for --%s and for --%s", flag.Envs[0], other, flag.Name)
			}
			flags[flag.Envs[0]] = flag.Name
			if flag.Help == "" {
				t.Errorf("%s --%s has no help", command.FullPath(), flag.Name)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d flags were looked at", n)
	}
}

// TestVariablesCount takes a flag of each kind of name and shows that its
// variable is read, that the flag wins, and that an empty one counts for nothing.
func TestVariablesCount(t *testing.T) {
	t.Parallel()
	env := func(pair string) []string {
		return []string{pair, "AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=http://127.0.0.1:1"}
	}
	for pair, want := range map[string]string{
		"AGENTKEY_LOG_LEVEL=loud":                        "--log-level must be one of",
		"AGENTKEY_LIMIT_CREDENTIAL=60":                   "set by AGENTKEY_LIMIT_CREDENTIAL",
		"AGENTKEY_TOOLS_CREATE_AUTH_TYPE=x1":             "--auth-type must be one of",
		"AGENTKEY_TOOLS_CREATE_CREDENTIAL_STDIN=perhaps": "set by AGENTKEY_TOOLS_CREATE_CREDENTIAL_STDIN",
	} {
		is := is.New(t)
		args := []string{"serve"}
		if strings.Contains(pair, "TOOLS") {
			args = []string{"tools", "create", "Linear"}
		}
		r := run(t.Context(), env(pair), "", args...)
		is.Equal(r.status, 2)
		is.True(strings.Contains(r.errors, want))
	}
	is := is.New(t)
	r := run(t.Context(), env("AGENTKEY_TOOLS_CREATE_AUTH_TYPE=x1"), "s", "tools", "create", "L", "--auth-type", "other", "--credential-stdin")
	is.Equal(r.status, 1) // as far as the server, which is not there
	r = run(t.Context(), env("AGENTKEY_TOOLS_CREATE_AUTH_TYPE="), "s", "tools", "create", "L", "--credential-stdin")
	is.Equal(r.status, 1)
}

// TestOnlyTheGivenEnvironmentCounts can't run beside others: it changes the
// process's own.
func TestOnlyTheGivenEnvironmentCounts(t *testing.T) {
	is := is.New(t)
	t.Setenv("AGENTKEY_JSON", "perhaps")
	t.Setenv("AGENTKEY_ADMIN_TOKEN", "sk_admin_test")
	r := run(t.Context(), nil, "", "agents", "list")
	is.Equal(r.status, 2)
	is.True(strings.Contains(r.errors, "no administrator's token"))
}

// TestMistypedVariablesAreTold: a limit that is not set because of a typing error
// would otherwise stay unnoticed.
func TestMistypedVariablesAreTold(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	r := run(ctx, []string{"AGENTKEY_LIMIT_CREDENTAIL=1/1m", "AGENTKEY_LIMIT_READ=off", "XDG_STATE_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, "", "serve")
	is.True(strings.Contains(r.errors, "AGENTKEY_LIMIT_CREDENTAIL"))
	is.True(!strings.Contains(r.errors, "AGENTKEY_LIMIT_READ"))
}

const given = "S3cret/given+by=mistake"

// TestNothingGivenIsRepeated puts a secret where it does not belong: after every
// command, in every flag of every command, as an argument and as a variable. No
// message may show it. Flags that name files and places of the program's own
// are left out: those are printed on purpose.
func TestNothingGivenIsRepeated(t *testing.T) {
	t.Parallel()
	p := program(t)
	seen := map[string]bool{}
	shown := map[string]bool{"database": true, "key-file": true, "out": true}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a server that would start after all ends at once
	dir := t.TempDir()
	env := []string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=http://127.0.0.1:1", "XDG_STATE_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}
	check := func(env []string, args ...string) {
		r := runBy(p.Main, ctx, env, "", args...)
		if r.status == 0 {
			t.Errorf("%q succeeded", args)
		}
		for _, part := range []string{given, "S3cret", "mistake"} {
			if strings.Contains(r.out+r.errors, part) {
				t.Errorf("%q shows what was given: %s%s", args, r.out, r.errors)
			}
		}
	}
	for _, command := range leaves(p) {
		path := strings.Fields(command.Path())
		if command.Name == "demo" || command.Name == "generate" {
			continue
		}
		var arguments []string
		for range command.Positional {
			arguments = append(arguments, "argument")
		}
		check(env, append(append([]string{}, path...), append(arguments, given)...)...)
		for _, flag := range command.Flags {
			if shown[flag.Name] || seen[flag.Envs[0]] {
				continue
			}
			seen[flag.Envs[0]] = true // flags that commands share are one
			words := append(append([]string{}, path...), arguments...)
			check(env, append(words, "--"+flag.Name+"="+given)...)
			check(env, append(words, "--"+flag.Name, given, given)...)
			check(append([]string{flag.Envs[0] + "=" + given}, env...), words...)
		}
	}
}

// TestUnknownWordsAreNotRepeated tries whatever may come as an argument.
func TestUnknownWordsAreNotRepeated(t *testing.T) {
	t.Parallel()
	p := program(t)
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[A-Za-z0-9_+/=,"'\\ %-]{0,6}[A-Z0-9_+/]{6}[A-Za-z0-9_+/=,"'\\ %-]{0,12}`).Draw(t, "secret")
		form := rapid.SampledFrom([]string{"%", "-%", "--%", "--x=%", "--json=%", "--server=%", "-x%"}).Draw(t, "form")
		r := runBy(p.Main, context.Background(), nil, "", "agents", "list", strings.ReplaceAll(form, "%", secret))
		if strings.Contains(r.errors+r.out, secret) {
			t.Fatalf("shown: %s", r.errors)
		}
	})
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "15m": 15 * time.Minute, "8h": 8 * time.Hour, "30d": 720 * time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "0d": 0,
		"": -1, "d": -1, "-1h": -1, "1.5s": -1, "8": -1, "1.5d": -1, "-1d": -1, "100000d": -1, "1e9h": -1, "9999999h": -1, "8h ": -1,
	} {
		is := is.New(t)
		got, err := cli.Span(text)
		if want < 0 {
			is.True(err != nil)
			continue
		}
		is.NoErr(err)
		is.Equal(got, want)
	}
}

func TestMoment(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"8h": "2026-11-23T20:00:00Z", "1d": "2026-11-24T12:00:00Z", "2027-01-31": "2027-01-31T00:00:00Z",
		"2027-01-31T12:30:00+02:00": "2027-01-31T10:30:00Z", "never": "",
		"0s": "!", "2027-02-30": "!", "tomorrow": "!", "": "!", "-8h": "!",
	} {
		is := is.New(t)
		got, err := cli.Moment(text, noon)
		switch want {
		case "!":
			is.True(err != nil)
		case "":
			is.NoErr(err)
			is.Equal(got, nil)
		default:
			is.NoErr(err)
			is.Equal(got.Format(time.RFC3339), want)
		}
	}
}

func TestTableFits(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	rows := [][]string{
		{"id-1", "short", "a reason that is far too long to fit"},
		{"id-2", "漢字の名前", "cafe\u0301"},
	}
	var wide, narrow bytes.Buffer
	is.NoErr(cli.Table(&wide, 0, []string{"ID", "NAME", "REASON"}, rows...))
	is.Equal(wide.String(), "ID    NAME        REASON\n"+
		"id-1  short       a reason that is far too long to fit\n"+
		"id-2  漢字の名前  cafe\u0301\n")
	is.NoErr(cli.Table(&narrow, 30, []string{"ID", "NAME", "REASON"}, rows...))
	is.Equal(narrow.String(), "ID    NAME        REASON\n"+
		"id-1  short       a reason th…\n"+
		"id-2  漢字の名前  cafe\u0301\n")
	var tight bytes.Buffer
	is.NoErr(cli.Table(&tight, 10, []string{"ID", "NAME", "REASON"}, rows...))
	is.True(strings.Contains(tight.String(), "id-1  short     a reaso…"))
}

// TestTextThatMustBeReadGoesOnBelow: what a check found is of no use when it is cut.
func TestTextThatMustBeReadGoesOnBelow(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	rows := [][]string{{"key", "ok", "sealed with local:0123456789abcdef01 and more"}, {"log", "failed", ""}}
	var narrow, wide bytes.Buffer
	is.NoErr(cli.WrappedTable(&narrow, 30, []string{"CHECK", "RESULT", "DETAIL"}, rows...))
	is.Equal(narrow.String(), "CHECK  RESULT  DETAIL\n"+
		"key    ok      sealed with\n"+
		"               local:0123456789abcdef01\n"+
		"               and more\n"+
		"log    failed\n")
	is.NoErr(cli.WrappedTable(&wide, 0, []string{"CHECK", "RESULT", "DETAIL"}, rows...))
	is.True(strings.Contains(wide.String(), "key    ok      sealed with local:0123456789abcdef01 and more\n"))
}

func TestTextOfOthersCannotDriveATerminal(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain ünïcode 漢字": "plain ünïcode 漢字",
		"a\x1b[2Jb":        "a\uFFFD[2Jb",
		"a\r\nb\tc":        "a\uFFFD b c",
		"a\u202eb\u2066":   "a\uFFFDb\uFFFD",
		"a\x00\u200b":      "a\uFFFD\uFFFD",
		"a\u009b31m":       "a\uFFFD31m",
	} {
		is := is.New(t)
		is.Equal(cli.Clean(text), want)
	}
}

// TestCredentialArrivesAsItIs shows what of a file or of standard input is the
// credential, and what is not taken for one.
func TestCredentialArrivesAsItIs(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	body := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		body = string(b)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		_, _ = io.WriteString(w, `{"data":{"id":"t","name":"L","configKey":"l"}}`)
	}))
	t.Cleanup(server.Close)
	env := []string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}
	long := strings.Repeat("x", 64<<10)
	for input, want := range map[string]string{
		"lin_api_test_1":               "lin_api_test_1",
		"lin_api_test_1\n":             "lin_api_test_1",
		"lin_api_test_1\r\n":           "lin_api_test_1",
		"-----BEGIN\nline\n-----END\n": `-----BEGIN\u000aline\u000a-----END`,
		"two\n\n":                      `two\u000a`,
		long + "\n":                    long,
		"":                             "credential is empty",
		" \n":                          "credential is empty",
		long + "x":                     "longer than 64 KiB",
		long + "xyz":                   "longer than 64 KiB",
		"\xff\xfe":                     "not valid UTF-8",
	} {
		is := is.New(t)
		file := filepath.Join(t.TempDir(), "credential")
		is.NoErr(os.WriteFile(file, []byte(input), 0o600))
		for _, flags := range [][]string{{"--credential-stdin"}, {"--credential-file", file}} {
			body = ""
			r := run(t.Context(), env, input, append([]string{"tools", "create", "L"}, flags...)...)
			if strings.Contains(want, " ") {
				is.Equal(r.status, 1)
				is.True(strings.Contains(r.errors, want))
				is.Equal(body, "")
				continue
			}
			is.Equal(r.status, 0)
			is.True(strings.Contains(body, `"credential":"`+want+`"}`))
			is.True(!strings.Contains(r.out+r.errors, "lin_api_test"))
		}
	}
}

func TestProvidersOfTheProgram(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	argument := ""
	provider := func(_ context.Context, a string, getenv func(string) (string, bool)) (vault.KeyProvider, error) {
		argument = a
		region, _ := getenv("REGION")
		return nil, &os.PathError{Op: "ask", Path: region, Err: os.ErrDeadlineExceeded}
	}
	var errs bytes.Buffer
	status := cli.Main(t.Context(), []string{"serve", "--key-provider", "awskms:arn:aws:kms:1"}, []string{"REGION=north", "XDG_STATE_HOME=" + dir},
		strings.NewReader(""), io.Discard, &errs, cli.Options{Providers: map[string]cli.Provider{"awskms": provider}})
	is.Equal(status, 1)
	is.Equal(argument, "arn:aws:kms:1")
	is.True(strings.Contains(errs.String(), "key provider awskms: ask north"))
	entries, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(entries), 0) // nothing was made
}

func TestAFileIsWholeOrNotThere(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "log.jsonl")
	is.NoErr(os.WriteFile(path, []byte("before"), 0o600))
	err := cli.WriteWhole(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return io.ErrUnexpectedEOF
	})
	is.Equal(err, io.ErrUnexpectedEOF)
	b, err := os.ReadFile(path)
	is.NoErr(err)
	is.Equal(string(b), "before")
	entries, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(entries), 1)
	is.NoErr(cli.WriteWhole(path, func(w io.Writer) error {
		_, err := io.WriteString(w, "whole")
		return err
	}))
	b, err = os.ReadFile(path)
	is.NoErr(err)
	is.Equal(string(b), "whole")
}

// TestRetryAfterIsTold where the program must not repeat by itself: a change.
func TestRetryAfterIsTold(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	calls := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "42")
		w.WriteHeader(429)
		_, _ = io.WriteString(w, `{"error":"rate limit exceeded","hint":"Wait as long as Retry-After says."}`)
	}))
	t.Cleanup(server.Close)
	env := []string{"AGENTKEY_ADMIN_TOKEN=sk_admin_test", "AGENTKEY_URL=" + server.URL}
	for _, args := range [][]string{{"agents", "create", "bot"}, {"agents", "list"}} { // a read does not wait that long
		r := run(t.Context(), env, "", args...)
		is.Equal(r.status, 1)
		is.Equal(r.errors, "agentkey: the server answered 429: rate limit exceeded\n  Try again in 42s.\n")
	}
	is.Equal(calls, 2)
}
