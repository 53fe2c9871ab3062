package refserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/refserver"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

func found(key string) string {
	return `[{"token":"` + key + `","type":"agentkey","url":"https://git.example.com/x","source":"content"},{"token":"sk_agent_unknown"}]`
}

func TestLeakedKeysOverHTTP(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	off := newShelf(t, servertest.Options{})
	is.Equal(off.Do("POST", "/leaked-keys", "", found(off.key)).Status, http.StatusNotFound)
	is.Equal(off.Do("GET", "/api/me", off.key, "").Status, http.StatusOK)

	s := newShelf(t, servertest.Options{Config: refserver.Config{LeakReports: true}})
	for _, body := range []string{`{}`, `[]`, `[1]`, `[{"token":1}]`, `[{}]`, `nonsense`, `[` + strings.Repeat(`{"token":"x"},`, 100) + `{"token":"x"}]`} {
		is.Equal(s.Do("POST", "/leaked-keys", "", body).Status, http.StatusBadRequest)
	}
	is.Equal(s.Do("GET", "/api/me", s.key, "").Status, http.StatusOK)
	answer := s.Do("POST", "/leaked-keys", "", found(s.key))
	is.Equal(answer.Status, http.StatusOK)
	is.True(strings.Contains(string(answer.Body), `"token_type":"agent_key","label":"true_positive"`))
	is.True(strings.Contains(string(answer.Body), `"token_type":"unknown","label":"false_positive"`))
	is.True(!strings.Contains(string(answer.Body), "sk_agent_"))
	is.Equal(s.Do("GET", "/api/me", s.key, "").Status, http.StatusUnauthorized)
	is.True(!strings.Contains(s.Log.String(), s.key))
}

func TestSignedLeakReports(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	is.NoErr(err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	is.NoErr(err)
	path := filepath.Join(t.TempDir(), "scanner.pem")
	is.NoErr(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	s := newShelf(t, servertest.Options{Config: refserver.Config{LeakReports: true, LeakSigners: []string{path}}})
	send := func(body, signature string) int {
		r := httptest.NewRequest("POST", "/leaked-keys", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Github-Public-Key-Signature", signature)
		w := httptest.NewRecorder()
		s.Handler.ServeHTTP(w, r)
		return w.Code
	}
	body := found(s.key)
	sum := sha256.Sum256([]byte(body))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	is.NoErr(err)
	signature := base64.StdEncoding.EncodeToString(sig)
	for _, bad := range []string{"", "x", base64.StdEncoding.EncodeToString(sig[1:])} {
		is.Equal(send(body, bad), http.StatusUnauthorized)
	}
	is.Equal(send(body+" ", signature), http.StatusUnauthorized) // another body
	is.Equal(s.Do("GET", "/api/me", s.key, "").Status, http.StatusOK)
	is.Equal(send(body, signature), http.StatusOK)
	is.Equal(s.Do("GET", "/api/me", s.key, "").Status, http.StatusUnauthorized)
}
