package cli_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"
)

type examined struct {
	OK     bool
	Checks []struct{ Check, Status, Detail string }
}

func doctor(t *testing.T, env []string, args ...string) (examined, result) {
	t.Helper()
	r := run(t.Context(), env, "", append([]string{"doctor", "--json"}, args...)...)
	var e examined
	if err := json.Unmarshal([]byte(r.out), &e); err != nil {
		t.Fatalf("%v: %s%s", err, r.out, r.errors)
	}
	if e.OK != (r.status == 0) {
		t.Errorf("ok is %v, and the exit status %d", e.OK, r.status)
	}
	return e, r
}

func (e examined) has(check, status, detail string) bool {
	for _, c := range e.Checks {
		if c.Check == check && c.Status == status && strings.Contains(c.Detail, detail) {
			return true
		}
	}
	return false
}

// begin makes an installation as serve does, and ends the server at once.
func begin(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	env := []string{"XDG_STATE_HOME=" + filepath.Join(dir, "state"), "XDG_CONFIG_HOME=" + filepath.Join(dir, "config")}
	r := run(t.Context(), env, "", "orgs", "create", "Acme")
	if r.status != 0 {
		t.Fatal(r.errors)
	}
	return env
}

// TestDoctorMakesNothing: with wrong settings it would otherwise begin another
// installation beside the one that is meant.
func TestDoctorMakesNothing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	dir := t.TempDir()
	e, _ := doctor(t, []string{"XDG_STATE_HOME=" + dir, "XDG_CONFIG_HOME=" + dir})
	is.True(!e.OK)
	is.True(e.has("database", "failed", "there is none at"))
	entries, err := os.ReadDir(dir)
	is.NoErr(err)
	is.Equal(len(entries), 0)

	e, _ = doctor(t, nil) // neither HOME nor directories
	is.True(e.has("database", "failed", "HOME"))
}

// TestDoctorTellsWhatTheLogSays also where the clock of the machine was set
// wrong, and of every organization.
func TestDoctorTellsWhatTheLogSays(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	env := begin(t)
	e, r := doctor(t, env)
	is.Equal(r.errors, "")
	is.True(e.OK)
	is.True(e.has("log", "ok", "of 2 organizations"))
	is.True(e.has("anchors", "warning", "no head is kept elsewhere"))
	is.True(e.has("settings", "ok", ""))

	e, _ = doctor(t, append(env, "AGENTKEY_BOOTSTRAP_TOKEN=short"))
	is.True(e.has("settings", "failed", "at least 32 characters"))
	is.True(!e.has("settings", "ok", ""))
	is.True(e.has("log", "ok", "")) // as far as it could go
}

// TestDoctorEndsWhenItIsStopped and does not say that all was well.
func TestDoctorEndsWhenItIsStopped(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	env := begin(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	is.Equal(run(ctx, env, "", "doctor").status, 1)
}
