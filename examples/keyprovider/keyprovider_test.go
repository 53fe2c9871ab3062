package keyprovider_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/examples/keyprovider"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/vaulttest"
)

const token = "key-service-token-for-tests"

// service is a key service with one key.
func service(t *testing.T, name string) *httptest.Server {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bound, err := base64.StdEncoding.DecodeString(r.Header.Get("Agentkey-Context"))
		body, readErr := io.ReadAll(r.Body)
		answer := []byte(name)
		switch {
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.WriteHeader(http.StatusUnauthorized)
			return
		case err != nil || readErr != nil:
			w.WriteHeader(http.StatusBadRequest)
			return
		case r.URL.Path == "/current":
		case r.Header.Get("Agentkey-Key") != name:
			w.WriteHeader(http.StatusNotFound)
			return
		case r.URL.Path == "/wrap":
			answer = aead.Seal(nil, nil, body, bound)
		default:
			if answer, err = aead.Open(nil, nil, body, bound); err != nil {
				w.WriteHeader(http.StatusUnprocessableEntity)
				return
			}
		}
		_, _ = w.Write(answer)
	}))
	t.Cleanup(s.Close)
	return s
}

func provider(s *httptest.Server) *keyprovider.Provider {
	return keyprovider.New(s.URL, vault.NewSecret([]byte(token)))
}

func TestProvider(t *testing.T) {
	t.Parallel()
	vaulttest.TestProvider(t,
		func(t *testing.T) vault.KeyProvider { return provider(service(t, "service:1")) },
		vaulttest.WithOther(func(t *testing.T) vault.KeyProvider { return provider(service(t, "service:2")) }),
		vaulttest.WithOutage(func(t *testing.T) (vault.KeyProvider, func()) {
			s := service(t, "service:1")
			return provider(s), s.Close
		}),
		vaulttest.WithSecrets([]byte(token)),
	)
}

// TestVend vends a credential whose data keys the service wrapped.
func TestVend(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t, func(c *agentkey.Config) { c.Keys = provider(service(t, "service:1")) })
	agent, caller := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_keyprovider")
	k.Allow(agent, tool)
	vended, err := k.Vend(t.Context(), caller, tool.ID)
	is.NoErr(err)
	is.True(strings.HasPrefix(string(vended.Credential.Bytes()), "lin_api_test_"))
	vended.Credential.Destroy()
}
