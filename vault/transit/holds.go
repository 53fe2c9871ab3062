package transit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// HoldsKey says whether the service still has the version of the key that an id
// names, also when min_decryption_version forbids it for now: only a version that
// was trimmed, and a key that was deleted, are gone. Of a key at another path, and
// of an engine that is not there, it can't say anything, and fails with
// vault.ErrUnavailable.
func (p *Provider) HoldsKey(ctx context.Context, id string) (bool, error) {
	c := p.client()
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	held, err := c.named(id).holds(ctx, id)
	return held, c.ended(ctx, err)
}

// named is the key that an id is of, whosever it is.
func (c *client) named(id string) ref {
	rest, ok := strings.CutPrefix(id, strings.TrimSuffix(c.names, ":"))
	suffix, _, _ := strings.Cut(rest, ":")
	if !ok || !strings.HasPrefix(suffix, "-") || !proper(c.key+suffix) || strings.Contains(suffix, "/") {
		return c.common()
	}
	return c.suffixed(suffix)
}

func (c ref) holds(ctx context.Context, id string) (bool, error) {
	version, made, ours := c.parseName(id)
	if !ours {
		return false, fmt.Errorf("%w: transit: %s is at another path", vault.ErrUnavailable, printable(id))
	}
	var answer struct {
		Data struct {
			Keys      map[string]int64 `json:"keys"`
			Latest    int              `json:"latest_version"`
			Available int              `json:"min_available_version"` // 0: nothing was trimmed
		} `json:"data"`
	}
	err := c.call(ctx, request{what: "read key", method: http.MethodGet, path: c.mount + "/keys/" + c.key}, &answer)
	var status *statusError
	if errors.As(err, &status) && status.nothing {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if answer.Data.Latest < 1 {
		return false, fmt.Errorf("%w: transit: read key: not a key", vault.ErrUnavailable)
	}
	if at, listed := answer.Data.Keys[fmt.Sprint(version)]; listed {
		return at == made, nil // else the key was made again
	}
	return version >= answer.Data.Available && version <= answer.Data.Latest, nil
}
