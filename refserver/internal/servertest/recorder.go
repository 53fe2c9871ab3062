package servertest

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// Checked is h, with every exchange held against the server's OpenAPI document:
// one that the document does not have fails the test.
func Checked(t testing.TB, h http.Handler) http.Handler {
	t.Helper()
	d, err := LoadDocument()
	if err != nil {
		t.Fatalf("the OpenAPI document: %v", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := Exchange{Method: r.Method, URL: r.URL, Type: r.Header.Get("Content-Type")}
		var sent bytes.Buffer
		if r.Body != nil {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.TeeReader(r.Body, &sent), r.Body}
		}
		rec := &recorder{ResponseWriter: w}
		h.ServeHTTP(rec, r)
		if rec.status == 0 {
			return // the connection was cut
		}
		x.Request, x.Status, x.Header, x.Response = sent.Bytes(), rec.status, rec.header, rec.body.Bytes()
		if err := d.Check(x); err != nil {
			t.Errorf("openapi.json: %s %s, answered %d: %v", x.Method, x.URL.EscapedPath(), x.Status, err)
		}
	})
}

// recorder keeps what is written through it.
type recorder struct {
	http.ResponseWriter
	status int
	header http.Header
	body   bytes.Buffer
}

// WriteHeader keeps status and headers.
func (r *recorder) WriteHeader(status int) {
	r.status, r.header = status, r.Header().Clone()
	r.ResponseWriter.WriteHeader(status)
}

// Write keeps p.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	r.body.Write(p)
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
