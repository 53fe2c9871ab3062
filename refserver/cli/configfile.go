package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"
)

// The configuration file holds settings as lines of NAME=VALUE, by the names that
// they have in the environment. A flag counts before the environment, and that
// before the file.
const (
	envConfig     = "AGENTKEY_CONFIG"
	configName    = "agentkey.conf" // in the configuration directory, unless a setting names another
	maxConfigFile = 1 << 20
)

// variableName is what may be repeated of a line that is wrong. A secret that was
// put in the place of a name does not look so.
var variableName = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// secretVariable says whether a variable that is no flag holds a secret.
func secretVariable(name string) bool {
	switch name {
	case envAnchorWebhook, envEncryptionKey, envBootstrapToken, envAdminToken, envTransitToken, envTransitSecretID, envMetricsToken,
		envServeSinks + envSinkURL, envServeSinks + envSinkToken, envTailSink + envSinkURL, envTailSink + envSinkToken:
		return true
	}
	return false
}

// holdsSecret says whether others must not read the setting: the URL of a Postgres
// may hold its password.
func holdsSecret(name, value string) bool {
	return secretVariable(name) || name == "AGENTKEY_DATABASE" && strings.HasPrefix(value, "postgres")
}

// takeFile reads the configuration file into the environment of the session, once.
// What the environment says already stays.
func (s *settings) takeFile(k *kong.Context) error {
	if s.fileRead {
		return s.fileError
	}
	s.fileRead = true
	path, named := s.session.configPath(k)
	if path == "" {
		return nil
	}
	lines, err := readConfigFile(path, s.known)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		s.fileError = &usageError{"the configuration file: " + err.Error()}
		return s.fileError
	}
	s.fromFile = make(map[string]bool)
	for _, l := range lines {
		if _, ok := s.session.getenv(l.name); !ok && l.value != "" {
			s.session.env[l.name] = l.value
			s.fromFile[l.name] = true
		}
	}
	return nil
}

// configPath is the file that --config or the environment names, or where one may be.
func (s *session) configPath(k *kong.Context) (path string, named bool) {
	for _, trace := range k.Path {
		if trace.Flag != nil && trace.Flag.Name == "config" {
			path, _ = k.FlagValue(trace.Flag).(string)
			return path, path != ""
		}
	}
	if path, ok := s.getenv(envConfig); ok {
		return path, true
	}
	dir, err := s.configDirectory()
	if err != nil {
		return "", false // it needs no place where none is known
	}
	return filepath.Join(dir, configName), false
}

// setting is a line of the configuration file.
type setting struct{ name, value string }

// readConfigFile reads the file and checks who else could. Its errors hold names
// of settings and numbers of lines, never a value.
func readConfigFile(path string, known map[string]bool) ([]setting, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(text) > maxConfigFile {
		return nil, errors.New("it is longer than 1 MB")
	}
	all, err := parseConfig(text, known)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, cause(err)
	}
	return all, checkConfigMode(info.Mode(), all)
}

// checkConfigMode refuses a file that others can change, and one that they can
// read where it holds a secret.
func checkConfigMode(mode fs.FileMode, all []setting) error {
	if !filesHaveModes {
		return nil
	}
	if mode.Perm()&0o022 != 0 {
		return fmt.Errorf("others can change it (mode %04o); chmod 600", mode.Perm())
	}
	for _, l := range all {
		if holdsSecret(l.name, l.value) && mode.Perm()&0o077 != 0 {
			return fmt.Errorf("it holds a secret, %s, and others can read it (mode %04o); chmod 600", l.name, mode.Perm())
		}
	}
	return nil
}

// parseConfig reads lines of NAME=VALUE. Empty lines and those that begin with #
// say nothing.
func parseConfig(text []byte, known map[string]bool) ([]setting, error) {
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return nil, errors.New("it is not text in UTF-8")
	}
	var all []setting
	seen := make(map[string]bool)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, assigned := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		switch {
		case !assigned || !variableName.MatchString(name):
			return nil, fmt.Errorf("line %d: must be NAME=VALUE, with the name of a setting's environment variable", n)
		case name == envConfig || !known[name] && !secretVariable(name):
			return nil, fmt.Errorf("line %d: %s is no setting of agentkey", n, name)
		case seen[name]:
			return nil, fmt.Errorf("line %d: %s is set twice", n, name)
		case len(value) > 1 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0]:
			return nil, fmt.Errorf("line %d: %s: write the value without quotes", n, name)
		}
		seen[name] = true
		all = append(all, setting{name, value})
	}
	return all, nil
}
