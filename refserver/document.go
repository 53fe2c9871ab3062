package refserver

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/refserver/openapi"
)

// document is the OpenAPI document as it is served.
type document struct {
	body []byte
	etag string
}

func newDocument() document {
	body := openapi.Document()
	sum := sha256.Sum256(body)
	return document{body, `"` + hex.EncodeToString(sum[:16]) + `"`}
}

// serve is GET /openapi.json. It may be kept, and is asked for again after an
// hour; what is the same is not sent again.
func (d document) serve(x *exchange.Exchange) error {
	h := x.Header()
	h.Set("ETag", d.etag)
	h.Set("Cache-Control", "public, max-age=3600")
	if d.held(x.Request.Header) {
		return x.Empty(http.StatusNotModified)
	}
	return x.Bytes(http.StatusOK, "application/json", d.body)
}

// held reports whether the client names this version in If-None-Match.
func (d document) held(h http.Header) bool {
	for part := range strings.SplitSeq(strings.Join(h.Values("If-None-Match"), ","), ",") {
		if tag := strings.TrimPrefix(strings.TrimSpace(part), "W/"); tag == d.etag || tag == "*" {
			return true
		}
	}
	return false
}
