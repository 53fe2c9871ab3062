//go:build !unix

package files

import "os"

// Writable says whether there is such a directory: nothing here tells who may write
// to it.
func Writable(dir string) error {
	_, err := os.Stat(dir)
	return err
}
