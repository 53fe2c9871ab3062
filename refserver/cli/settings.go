package cli

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// settings gives every flag an environment variable: the one in its tag, or
// AGENTKEY_, the command's path and the flag's name. They are read from the
// environment that was given to Main, then from the configuration file, and an
// error never repeats their value.
type settings struct {
	session *session
	known   map[string]bool
	used    []*kong.Flag // those that the environment or the file decided

	fileRead  bool
	fileError error
	fromFile  map[string]bool // the names that the file decided
}

// bind names the variables. What kong would look up itself, in the process's
// own environment and with values in its errors, is taken out of its hands.
func (s *settings) bind(k *kong.Kong) error {
	s.known = make(map[string]bool)
	return kong.Visit(k.Model, func(v kong.Visitable, next kong.Next) error {
		node, ok := v.(*kong.Node)
		if !ok {
			return next(nil)
		}
		for _, flag := range node.Flags {
			if flag.Name == "help" {
				continue
			}
			if len(flag.Envs) == 0 {
				flag.Envs = []string{variable(node, flag.Name)}
			}
			flag.Tag.Envs = nil
			s.known[flag.Envs[0]] = true
		}
		return next(nil)
	})
}

func variable(node *kong.Node, flag string) string {
	words := []string{flag}
	for ; node != nil && node.Type == kong.CommandNode; node = node.Parent {
		words = append([]string{node.Name}, words...)
	}
	return "AGENTKEY_" + strings.ToUpper(strings.ReplaceAll(strings.Join(words, "_"), "-", "_"))
}

// Validate has nothing to check.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve gives the value of a flag that is not among the arguments.
func (s *settings) Resolve(k *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if s.takeFile(k) != nil || len(flag.Envs) == 0 {
		return nil, nil // run asks for the error
	}
	value, ok := s.session.getenv(flag.Envs[0])
	if !ok {
		return nil, nil
	}
	s.used = append(s.used, flag)
	return value, nil
}

// formatHelp puts the variable's name behind a flag's help.
func formatHelp(v *kong.Value) string {
	if v.Flag == nil || len(v.Flag.Envs) == 0 {
		return v.Help
	}
	return strings.TrimSuffix(v.Help, ".") + " ($" + v.Flag.Envs[0] + ")."
}

// word is what may be repeated in a message: a mistyped command or flag, and
// nothing that could be a secret.
var word = regexp.MustCompile(`^(--?)?[a-z][a-z-]{0,20}$`)

// explain makes a usage error of the parser's, without any value that was given.
func (s *settings) explain(err error, args []string) error {
	text, _, _ := strings.Cut(err.Error(), " but got ") // what follows is a value, in some form
	var values []string
	for _, arg := range args {
		name, value, assigned := strings.Cut(arg, "=")
		if strings.HasPrefix(arg, "-") && assigned {
			values = append(values, value, name)
			continue
		}
		values = append(values, arg)
	}
	for _, flag := range s.used {
		value, _ := s.session.getenv(flag.Envs[0])
		values = append(values, value)
	}
	for _, value := range values {
		text = withhold(text, value)
	}
	return errors.New(text + s.sources(text))
}

// withhold replaces value in text, as it is and quoted, also element by element
// where the parser split it.
func withhold(text, value string) string {
	for _, part := range append(strings.Split(value, ","), value) {
		if part == "" || word.MatchString(part) {
			continue
		}
		text = strings.ReplaceAll(text, strconv.Quote(part), "something else")
		if len(part) > 3 { // shorter ones are no secret, and part of other words
			text = strings.ReplaceAll(text, part, "…")
		}
	}
	return text
}

// sources names the variables that set the flags in text.
func (s *settings) sources(text string) string {
	var names []string
	for _, flag := range s.used {
		if strings.Contains(text, "--"+flag.Name) {
			name := flag.Envs[0]
			if s.fromFile[name] {
				name += " in the configuration file"
			}
			names = append(names, name)
		}
	}
	if names == nil {
		return ""
	}
	return " (set by " + strings.Join(names, ", ") + ")"
}
