package transit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/vault"
)

const namePrefix = "transit:"

// key is what the service says of its key.
type key struct {
	latest   int
	versions map[int]int64 // when each version that decrypts was made, in Unix seconds
}

// name is the provider's id of one version of the key.
func (c *client) name(version int, made int64) string {
	return fmt.Sprintf("%sv%d:%d", c.names, version, made)
}

// parseName reads what name wrote for this key, and nothing else.
func (c *client) parseName(name string) (version int, made int64, ok bool) {
	rest, ok := strings.CutPrefix(name, c.names)
	if !ok {
		return 0, 0, false
	}
	number, seconds, _ := strings.Cut(strings.TrimPrefix(rest, "v"), ":")
	if version, ok = parseVersion(number); !ok {
		return 0, 0, false
	}
	made, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil || c.name(version, made) != name {
		return 0, 0, false
	}
	return version, made, true
}

func parseVersion(text string) (int, bool) {
	n, err := strconv.ParseInt(text, 10, 32)
	return int(n), err == nil && n > 0 && strconv.FormatInt(n, 10) == text
}

// knownKey is the key as it was last read, read again unless it has that version
// (0: any). What is kept can only be too old, and then a version is missing or the
// service refuses.
func (c *client) knownKey(ctx context.Context, version int) (key, error) {
	c.mu.Lock()
	k := c.known
	c.mu.Unlock()
	if _, ok := k.versions[version]; ok || version == 0 && k.latest > 0 {
		return k, nil
	}
	return c.readKey(ctx)
}

// readKey asks the service for the key, and keeps what it says. A key that is not
// there is a vault.ErrUnknownKey.
func (c *client) readKey(ctx context.Context) (key, error) {
	var answer struct {
		Data struct {
			Type        string          `json:"type"`
			Derived     bool            `json:"derived"`
			SoftDeleted bool            `json:"soft_deleted"`
			Latest      int             `json:"latest_version"`
			Keys        json.RawMessage `json:"keys"` // its form depends on the type
		} `json:"data"`
	}
	err := c.call(ctx, request{what: "read key", method: http.MethodGet, path: c.mount + "/keys/" + c.key}, &answer)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound || err == nil && answer.Data.SoftDeleted {
		c.keepKey(key{})
		return key{}, fmt.Errorf("%w: there is no %s", vault.ErrUnknownKey, strings.TrimSuffix(c.names, ":"))
	}
	if err != nil {
		return key{}, err
	}
	switch answer.Data.Type {
	case "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305":
	default:
		return key{}, fmt.Errorf("%w: transit: the key is of a type that binds no context or has fewer than 256 bits; make one of type aes256-gcm96", vault.ErrProvider)
	}
	if answer.Data.Derived {
		return key{}, fmt.Errorf("%w: transit: the key is derived; make one that is not", vault.ErrProvider)
	}
	k := key{latest: answer.Data.Latest, versions: make(map[int]int64)}
	var versions map[string]int64
	err = json.Unmarshal(answer.Data.Keys, &versions)
	for number, made := range versions {
		if v, ok := parseVersion(number); ok && made > 0 {
			k.versions[v] = made
		}
	}
	if _, ok := k.versions[k.latest]; !ok || err != nil {
		return key{}, fmt.Errorf("%w: transit: read key: not a key", vault.ErrUnavailable)
	}
	c.keepKey(k)
	return k, nil
}

func (c *client) keepKey(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = k
}

// unknown names the key needed and those held.
func (c *client) unknown(need string, k key) error {
	var held []string
	for _, v := range slices.Sorted(maps.Keys(k.versions)) {
		held = append(held, c.name(v, k.versions[v]))
	}
	return fmt.Errorf("%w: need %s, hold [%s]", vault.ErrUnknownKey, printable(need), strings.Join(held, " "))
}

// printable keeps what a database says is a key id from writing anything else into
// an error.
func printable(id string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if id == "" || len(id) > vault.MaxProviderKeyID || strings.ContainsFunc(id, odd) {
		return "a key without a proper id"
	}
	return id
}
