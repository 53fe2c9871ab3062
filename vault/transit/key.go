package transit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

// ref is a key in the service: the common one, or an organization's.
type ref struct {
	*client
	key   string
	names string // what the ids of its versions begin with
	makes bool   // it is made when it is needed
}

// common is the key that the configuration names.
func (c *client) common() ref { return ref{client: c, key: c.key, names: c.names} }

// own is the key of an organization alone.
func (c *client) own(organization string) ref {
	return c.suffixed(ownSuffix(organization))
}

func (c *client) suffixed(suffix string) ref {
	return ref{client: c, key: c.key + suffix, names: strings.TrimSuffix(c.names, ":") + suffix + ":", makes: true}
}

// ownSuffix follows the name of the common key in that of an organization's: its id,
// or a digest of an id that is too long or has other characters than the service
// takes. A digest is longer than any id that is taken as it is.
func ownSuffix(organization string) string {
	odd := func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }
	if organization == "" || len(organization) > maxSuffix || strings.ContainsFunc(organization, odd) {
		digest := sha256.Sum256([]byte(organization))
		return "-" + hex.EncodeToString(digest[:(maxSuffix+2)/2])
	}
	return "-" + organization
}

// maxSuffix is the length of a UUID.
const maxSuffix = 36

// of is the key that an id is of, when a data key of the organization is unwrapped:
// the organization's own, or else the common one.
func (c *client) of(id, organization string) ref {
	if own := c.own(organization); strings.HasPrefix(id, own.names) {
		return own
	}
	return c.common()
}

// name is the provider's id of one version of the key.
func (c ref) name(version int, made int64) string {
	return fmt.Sprintf("%sv%d:%d", c.names, version, made)
}

// parseName reads what name wrote for this key, and nothing else.
func (c ref) parseName(name string) (version int, made int64, ok bool) {
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
func (c ref) knownKey(ctx context.Context, version int) (key, error) {
	c.mu.Lock()
	k := c.known[c.key]
	c.mu.Unlock()
	if _, ok := k.versions[version]; ok || version == 0 && k.latest > 0 {
		return k, nil
	}
	return c.readKey(ctx)
}

// readKey asks the service for the key, and keeps what it says. A key that is not
// there is a vault.ErrUnknownKey.
func (c ref) readKey(ctx context.Context) (key, error) {
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

func (c ref) keepKey(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[c.key] = k
}

// unknown names the key needed and those held.
func (c ref) unknown(need string, k key) error {
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
