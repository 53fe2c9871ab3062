//go:build !unix

package localkey

import (
	"errors"
	"io/fs"
	"os"
)

func openNoWait(path string) (*os.File, error) { return os.Open(path) }

// checkAccess refuses: without owners and modes nothing says who may read a file.
func checkAccess(fs.FileInfo) error {
	return errors.New("this platform can't tell who may read it; give the key in the environment")
}
