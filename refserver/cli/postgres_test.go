package cli_test

import (
	"strings"
	"testing"

	"github.com/matryer/is"
)

// TestPostgresElsewhereIsChecked: only this machine is trusted without a
// certificate, in whatever way a URL names the host.
func TestPostgresElsewhereIsChecked(t *testing.T) {
	t.Parallel()
	const keyNeeded, notChecked, unreadable = "needs the encryption key", "add sslmode=verify-full", "must be sqlite:PATH or postgres://"
	for url, want := range map[string]string{
		"postgres://u:hunter2@127.0.0.1/db":                          keyNeeded,
		"postgres://u:hunter2@127.0.0.1:5432/db?sslmode=disable":     keyNeeded,
		"postgresql://u:hunter2@[::1]:5432/db":                       keyNeeded,
		"postgres://localhost/db":                                    keyNeeded,
		"postgres:///db?host=/var/run/postgresql":                    keyNeeded,
		"postgres://u:hunter2@db.example.com/db?sslmode=verify-full": keyNeeded,
		"postgres:///db?host=db.example.com&sslmode=verify-full":     keyNeeded,
		"postgres://u:hunter2@db.example.com/db":                     notChecked,
		"postgres://u:hunter2@db.example.com/db?sslmode=require":     notChecked,
		"postgres://u:hunter2@db.example.com/db?sslmode=verify-ca":   notChecked,
		"postgres://u:hunter2@db.example.com?sslmode=prefer":         notChecked,
		"postgres://10.0.0.1/db":                                     notChecked,
		"postgres://127.0.0.1,db.example.com/db":                     notChecked,
		"postgres://127.0.0.1/db?host=db.example.com":                notChecked,
		"postgres:///db?host=/var/run/postgresql,db.example.com":     notChecked,
		"postgres:///db?host=/tmp&host=db.example.com":               notChecked,
		"postgres:///db": notChecked, // whatever PGHOST says
		"postgres://db.example.com/db?sslmode=verify-full&sslmode=disable": notChecked,
		"postgres://db.example.com/db?sslmode=verify-full&ssl=true":        notChecked,
		"postgres://db.example.com/db?x=1;sslmode=verify-full":             unreadable,
		"postgres://127.0.0.1/db#?host=db.example.com":                     unreadable,
		"postgres://127.0.0.1?user=u@db.example.com/db":                    unreadable,
		"postgres://u:hunter2@db.example.com:5432,x@127.0.0.1/db":          unreadable,
		"postgres://u:hunter2%zz@127.0.0.1/db":                             unreadable,
	} {
		for name, env := range map[string][]string{"serve": nil, "orgs": {"orgs", "create", "Acme"}} {
			is := is.New(t)
			args := env
			if name == "serve" {
				args = []string{"serve"}
			}
			r := run(t.Context(), []string{"AGENTKEY_DATABASE=" + url}, "", args...)
			is.Equal(r.status, 2) // nothing was tried
			if !strings.Contains(r.errors, want) {
				t.Errorf("%s %s: %s", name, url, r.errors)
			}
			is.True(!strings.Contains(r.errors, "hunter2"))
			is.True(!strings.Contains(r.errors, "example.com"))
			if want == notChecked {
				r = run(t.Context(), []string{"AGENTKEY_DATABASE=" + url, "AGENTKEY_INSECURE_DATABASE=true"}, "", args...)
				is.True(strings.Contains(r.errors, keyNeeded))
			}
		}
	}
}

// TestSettingsOfPostgresAreForPostgres wants no setting to be passed over in
// silence.
func TestSettingsOfPostgresAreForPostgres(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--schema", "agents"},
		{"--insecure-database"},
		{"--database", "sqlite:x.db", "--schema", "agents"},
		{"--database", "postgres://127.0.0.1/db", "--schema", "Agents"},
		{"--database", "postgres://127.0.0.1/db", "--schema", `a"; drop`},
	} {
		is := is.New(t)
		r := run(t.Context(), []string{"XDG_STATE_HOME=" + t.TempDir()}, "", append([]string{"serve"}, args...)...)
		is.Equal(r.status, 2)
		is.True(strings.Contains(r.errors, "--schema"))
		is.True(!strings.Contains(r.errors, "drop"))
	}
}
