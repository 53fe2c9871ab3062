package main

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestDrills performs the drills of docs/key-management.md: each section is a script
// made of its blocks of commands, so that page and test can't differ.
func TestDrills(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/key-management.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := strings.Split(string(page), "\n## ")
	first, dir := "", t.TempDir()
	drills := 0
	for _, section := range sections {
		title, text, _ := strings.Cut(section, "\n")
		commands := drillScript(t, text)
		name, isDrill := strings.CutPrefix(title, "Drill: ")
		switch {
		case title == "Rehearsing":
			first = commands
		case isDrill:
			drills++
			file := filepath.Join(dir, strings.ReplaceAll(name, " ", "_")+".txtar")
			if err := os.WriteFile(file, []byte(first+commands), 0o600); err != nil {
				t.Fatal(err)
			}
		case commands != "":
			t.Errorf("commands outside a drill: %s", title)
		}
	}
	if first == "" || drills < 3 {
		t.Fatalf("%d drills", drills)
	}
	runScripts(t, dir, nil)
}

var (
	drillBlock  = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	drillExport = regexp.MustCompile(`^export ([A-Z_]+)=(.+)$`)
	drillServe  = regexp.MustCompile(`^agentkey serve ?(.*) > serve\.out 2> serve\.log &$`)
)

// drillScript makes the lines of a script of a page's. Everything is typed into a
// shell, but for what changes the shell itself or starts and stops the server; that
// listens on a free port, which is its address in place of the page's.
func drillScript(t *testing.T, text string) string {
	var script strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&script, format+"\n", args...) }
	for _, block := range drillBlock.FindAllStringSubmatch(text, -1) {
		for _, line := range strings.Split(strings.TrimSpace(block[1]), "\n") {
			command, want, _ := strings.Cut(line, "     # ")
			if export := drillExport.FindStringSubmatch(command); export != nil {
				if export[1] != "AGENTKEY_URL" {
					say("assign %s %s", export[1], quoted(export[2]))
				}
				continue
			}
			if served := drillServe.FindStringSubmatch(command); served != nil {
				say("serve %s", served[1])
				continue
			}
			printed, succeeds := strings.CutPrefix(want, "→ ")
			refusal, fails := strings.CutPrefix(want, "refused: ")
			switch {
			case command == "kill %1":
				say("shutdown")
			case want == "":
				say("exec sh -c %s", quoted(command))
			case succeeds:
				say("exec sh -c %s\nstdout %s", quoted(command), quoted(regexp.QuoteMeta(printed)))
			case fails:
				say("! exec sh -c %s\n", quoted(command+" 2>&1"))
				say("stdout %s", quoted(regexp.QuoteMeta(refusal)))
			default:
				t.Errorf("what the page wants of this is not known: %s", line)
			}
		}
	}
	return script.String()
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

// assign NAME VALUE sets a variable as a shell's export would.
func assign(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("sh", "-c", `printf %s "`+args[1]+`"`))
	ts.Setenv(args[0], ts.ReadFile("stdout"))
}

// sqlite3 is as much of sqlite3 as the page needs: a file and one statement.
func sqlite3() {
	db, err := sql.Open("sqlite", os.Args[1])
	if err == nil {
		_, err = db.Exec(os.Args[2])
		err = errors.Join(err, db.Close())
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
