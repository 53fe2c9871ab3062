package cli_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// words splits a line of an example as a shell would: at spaces, but for what
// stands within single quotes.
func words(line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
			continue
		}
		out = append(out, strings.Fields(part)...)
	}
	return out
}

// TestEveryCommandRuns: each has one of the forms that are looked for once its
// arguments are parsed.
func TestEveryCommandRuns(t *testing.T) {
	t.Parallel()
	forms := []string{
		"func(*cli.session) error", "func(context.Context, *cli.session) error", "func(context.Context, *cli.session, *cli.settings) error",
	}
	for _, command := range program(t).Model().Leaves(false) {
		run := command.Target.Addr().MethodByName("Run")
		if !run.IsValid() || !slices.Contains(forms, run.Type().String()) {
			t.Errorf("%s can't be run", command.Path())
		}
	}
}

// TestEveryCommandHasAnExampleThatParses, and that is of this command. No
// example is of a command that is not there.
func TestEveryCommandHasAnExampleThatParses(t *testing.T) {
	t.Parallel()
	examples := cli.ShownExamples()
	p := program(t)
	commands := leaves(p)
	if len(examples) != len(commands) {
		t.Errorf("%d commands have examples, of %d", len(examples), len(commands))
	}
	for _, command := range commands {
		path := strings.Join(strings.Fields(command.Path()), " ")
		shown := 0
		for line := range strings.Lines(examples[path]) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "# ") {
				continue
			}
			shown++
			args := words(line)
			if len(args) == 0 || args[0] != "agentkey" {
				t.Errorf("%s: %q is not a call of agentkey", path, line)
				continue
			}
			got, err := p.Parses(args[1:])
			if err != nil {
				t.Errorf("%s: %q: %v", path, line, err)
				continue
			}
			if got != path && !strings.HasPrefix(got, path+" ") {
				t.Errorf("%s: %q is an example of %s", path, line, got)
			}
		}
		if shown == 0 {
			t.Errorf("%s has no example", path)
		}
	}
}

// TestHelpShowsExamples as they are, in both ways of asking for help.
func TestHelpShowsExamples(t *testing.T) {
	t.Parallel()
	p := program(t)
	for _, command := range leaves(p) {
		is := is.New(t)
		path := strings.Fields(command.Path())
		r := runBy(p.Main, t.Context(), nil, "", append([]string{"help"}, path...)...)
		is.Equal(r.status, 0)
		is.Equal(r.errors, "")
		flag := runBy(p.Main, t.Context(), nil, "", append(path, "--help")...)
		is.Equal(flag.status, 0)
		is.Equal(flag.errors, "")
		is.Equal(flag.out, r.out)
		is.True(strings.Contains(r.out, "Usage: agentkey "))
		for line := range strings.Lines(cli.ShownExamples()[strings.Join(path, " ")]) {
			if !strings.Contains(r.out, "    "+strings.TrimSpace(line)+"\n") {
				t.Errorf("the help of %v does not show %q:\n%s", path, line, r.out)
			}
		}
	}
	is := is.New(t)
	r := run(t.Context(), nil, "", "help")
	is.Equal(r.status, 0)
	is.True(strings.Contains(r.out, "agents create"))
	is.True(strings.Contains(r.out, "exit status"))
	is.Equal(run(t.Context(), nil, "", "help", "agnets").status, 2)
}

// reads are the commands that change nothing, for programs to use as well. The
// export is for programs as it is.
var reads = map[string]bool{"list": true, "show": true, "keys": true, "verify": true, "reconcile": true, "doctor": true}

func TestEveryReadCanPrintJSON(t *testing.T) {
	t.Parallel()
	n := 0
	for _, command := range leaves(program(t)) {
		if !reads[command.Name] {
			continue
		}
		n++
		found := false
		for _, flag := range command.Flags {
			found = found || flag.Name == "json"
		}
		if !found {
			t.Errorf("%s has no --json", command.Path())
		}
	}
	if n < 12 {
		t.Errorf("only %d reads were looked at", n)
	}
}
