package sink

import "io/fs"

// Handle is what a File needs of an open file.
type Handle interface {
	Write(p []byte) (int, error)
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	Close() error
}

// Wrap puts something between a File and its open file.
func (s *File) Wrap(with func(Handle) Handle) { s.f = with(s.f) }
