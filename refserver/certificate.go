package refserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// certificate is a certificate in files that are renewed while the server runs.
// Every handshake looks whether they changed, which costs little beside the
// handshake itself. A pair that can't be read, such as one of which only one file
// has been renewed so far, leaves the one before in use.
type certificate struct {
	cert, key string
	log       *slog.Logger

	mu       sync.Mutex
	current  *tls.Certificate
	read     [2]os.FileInfo // the files as they were when current was read
	reported bool           // that the files can't be read; said once until they can
}

// readCertificate reads the files for the first time.
func readCertificate(cert, key string, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, log: log}
	found, err := c.look()
	if err == nil {
		err = c.load(found)
	}
	if err != nil {
		return nil, fmt.Errorf("refserver: TLS certificate and key: %w", err)
	}
	return c, nil
}

// get is the GetCertificate of tls.Config. It never fails.
func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found, err := c.look()
	if err == nil && !c.changed(found) {
		return c.current, nil
	}
	if err == nil {
		err = c.load(found)
	}
	c.report(hello.Context(), err)
	return c.current, nil
}

func (c *certificate) look() (found [2]os.FileInfo, err error) {
	for i, name := range []string{c.cert, c.key} {
		if found[i], err = os.Stat(name); err != nil {
			return found, err
		}
	}
	return found, nil
}

func (c *certificate) changed(found [2]os.FileInfo) bool {
	for i, f := range found {
		was := c.read[i]
		if !os.SameFile(f, was) || f.Size() != was.Size() || !f.ModTime().Equal(was.ModTime()) {
			return true
		}
	}
	return false
}

func (c *certificate) load(found [2]os.FileInfo) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return err
	}
	c.current, c.read = &pair, found
	return nil
}

// report says what became of files that changed. The errors name the files and
// hold nothing of what is in them.
func (c *certificate) report(ctx context.Context, err error) {
	switch {
	case err == nil:
		c.log.InfoContext(ctx, "TLS certificate renewed")
	case !c.reported:
		c.log.WarnContext(ctx, "TLS certificate not renewed: the one before stays in use", "error", err)
	}
	c.reported = err != nil
}
