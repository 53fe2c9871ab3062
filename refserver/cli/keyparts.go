package cli

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/agentkey-dev/agentkey-go/vault/localkey"
)

// errThere says that a file would have been overwritten.
var errThere = errors.New("the file is there already; a key is never overwritten")

type keysSplit struct {
	File  string   `arg:"" placeholder:"FILE" help:"The key file, with one key."`
	Parts []string `arg:"" placeholder:"PART" help:"New files for its parts, 2 to 9: all are needed to make the key again."`
}

// Run splits a key.
func (c *keysSplit) Run(s *session) error {
	if err := localkey.SplitFile(c.File, c.Parts...); errors.Is(err, fs.ErrExist) {
		return errThere
	} else if err != nil {
		return err
	}
	return s.say("%d parts written; give each to somebody else, and join them once before you rely on them", len(c.Parts))
}

type keysJoin struct {
	Parts []string `arg:"" placeholder:"PART" help:"The files of all parts, in any order."`
	Out   string   `required:"" placeholder:"FILE" help:"Write the key to this new file, readable by you only."`
}

// Run joins a key.
func (c *keysJoin) Run(s *session) error {
	if err := localkey.JoinFiles(c.Out, c.Parts...); errors.Is(err, fs.ErrExist) {
		return errThere
	} else if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("a part, or the directory of the key, is not there")
	} else if err != nil {
		return err
	}
	return s.say("key written to %s", c.Out)
}
