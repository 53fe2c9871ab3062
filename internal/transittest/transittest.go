// Package transittest is a server that does what the transit secrets engine and
// the logins of Vault and OpenBao are documented to do, as far as a key provider
// uses them: real AES-GCM with associated data, versions, rotation, namespaces,
// tokens that end and are renewed, AppRole, and their refusals. And it can be made
// to fail: sealed, slow, overloaded, or answering nonsense.
package transittest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Server is the service. It is safe for concurrent use; make one with New.
type Server struct {
	// Namespace is the one that has everything, empty for the root.
	Namespace string
	// Clock tells the time by which tokens end.
	Clock func() time.Time

	mu     sync.Mutex
	keys   map[string]*key
	tokens map[string]*token
	roles  map[string]role
	calls  map[string]int
	fault  func(http.ResponseWriter, *http.Request) bool
}

type key struct {
	kind     string
	derived  bool
	versions []version // the first is version 1
	deletion bool      // it is allowed
	least    int       // the least version that decrypts
	trimmed  int       // the least version that is left; 0: all
}

type version struct {
	aead cipher.AEAD
	made int64
}

type token struct {
	begun, ends time.Time // ends is zero for a token that doesn't
	life        time.Duration
	longest     time.Duration
	renewable   bool
	denied      map[string]bool // what its policy doesn't allow
}

type role struct {
	secret        string
	life, longest time.Duration
}

// New returns a Server without keys and tokens.
func New(clock func() time.Time) *Server {
	return &Server{Clock: clock, keys: map[string]*key{}, tokens: map[string]*token{}, roles: map[string]role{}, calls: map[string]int{}}
}

// AddKey makes a key of one version. mountAndName is such as transit/agentkey.
func (s *Server) AddKey(mountAndName, kind string, derived bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[mountAndName] = &key{kind: kind, derived: derived, least: 1, versions: []version{s.version()}}
}

// ImportKey makes a key of these versions, made at these times in Unix seconds, so
// that what another implementation encrypted can be decrypted.
func (s *Server) ImportKey(mountAndName string, raw [][]byte, made []int64) {
	k := &key{kind: "aes256-gcm96", least: 1}
	for i, b := range raw {
		v := newVersion(b)
		v.made = made[i]
		k.versions = append(k.versions, v)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[mountAndName] = k
}

// Holds says whether there is a key.
func (s *Server) Holds(mountAndName string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[mountAndName] != nil
}

// DeleteKey forgets a key.
func (s *Server) DeleteKey(mountAndName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, mountAndName)
}

// Rotate adds a version.
func (s *Server) Rotate(mountAndName string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[mountAndName]
	k.versions = append(k.versions, s.version())
}

// Least sets min_decryption_version.
func (s *Server) Least(mountAndName string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[mountAndName].least = n
}

// Trim sets min_available_version: what is older is gone for good.
func (s *Server) Trim(mountAndName string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[mountAndName].trimmed = n
}

func (s *Server) version() version {
	raw := make([]byte, 32)
	rand.Read(raw)
	v := newVersion(raw)
	v.made = s.Clock().Unix()
	return v
}

func newVersion(raw []byte) version {
	block, err := aes.NewCipher(raw)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return version{aead: aead}
}

// AddToken makes a token known. A life of 0 does not end.
func (s *Server) AddToken(text string, life, longest time.Duration, renewable bool, denied ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addToken(text, life, longest, renewable, denied)
}

func (s *Server) addToken(text string, life, longest time.Duration, renewable bool, denied []string) {
	t := &token{begun: s.Clock(), life: life, longest: longest, renewable: renewable, denied: map[string]bool{}}
	if life > 0 {
		t.ends = t.begun.Add(life)
	}
	for _, d := range denied {
		t.denied[d] = true
	}
	s.tokens[text] = t
}

// RevokeTokens forgets all tokens.
func (s *Server) RevokeTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// AddRole makes an AppRole known, mounted at approle.
func (s *Server) AddRole(id, secret string, life, longest time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[id] = role{secret, life, longest}
}

// Fail puts fault before every request; it reports whether it has answered. nil
// ends it.
func (s *Server) Fail(fault func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Calls tells how often an operation was asked for: login, lookup, renew, keys,
// encrypt or decrypt.
func (s *Server) Calls(operation string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[operation]
}

// ServeHTTP answers the API.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	status, answer := s.answer(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

func refusal(text string) map[string]any { return map[string]any{"errors": []string{text}} }

func data(m map[string]any) map[string]any { return map[string]any{"data": m} }

func (s *Server) answer(r *http.Request) (int, any) {
	p, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	if !ok || r.Header.Get("X-Vault-Namespace") != s.Namespace || r.Header.Get("X-Vault-Request") != "true" {
		return http.StatusNotFound, refusal("no handler for route")
	}
	var given map[string]any
	if r.Method == http.MethodPost && json.NewDecoder(r.Body).Decode(&given) != nil {
		return http.StatusBadRequest, refusal("failed to parse JSON input")
	}
	body := make(map[string]string, len(given))
	for name, value := range given {
		body[name] = fmt.Sprint(value)
	}
	if p == "auth/approle/login" {
		return s.login(body)
	}
	t := s.tokens[r.Header.Get("X-Vault-Token")]
	operation := p
	switch {
	case p == "auth/token/lookup-self":
		operation = "lookup"
	case p == "auth/token/renew-self":
		operation = "renew"
	default:
		for _, o := range []string{"keys", "encrypt", "decrypt"} {
			if strings.Contains(p, "/"+o+"/") {
				operation = o
			}
		}
	}
	s.calls[operation]++
	if t == nil || t.denied[operation] || !t.ends.IsZero() && !s.Clock().Before(t.ends) {
		return http.StatusForbidden, refusal("permission denied: " + r.Header.Get("X-Vault-Token"))
	}
	name := strings.Replace(p, "/"+operation+"/", "/", 1)
	switch operation {
	case "lookup":
		return http.StatusOK, data(map[string]any{"ttl": s.left(t), "renewable": t.renewable})
	case "renew":
		return s.renew(t)
	case "keys":
		return s.manage(r.Method, name, body)
	case "encrypt":
		return s.encrypt(name, body)
	case "decrypt":
		return s.decrypt(name, body)
	}
	return http.StatusNotFound, refusal("no handler for route")
}

func (s *Server) left(t *token) int64 {
	if t.ends.IsZero() {
		return 0
	}
	return int64(t.ends.Sub(s.Clock()) / time.Second)
}

func (s *Server) login(body map[string]string) (int, any) {
	s.calls["login"]++
	r, ok := s.roles[body["role_id"]]
	if !ok || r.secret != body["secret_id"] {
		return http.StatusBadRequest, refusal("invalid role or secret ID " + body["secret_id"])
	}
	raw := make([]byte, 12)
	rand.Read(raw)
	text := "hvs.test." + hex.EncodeToString(raw)
	s.addToken(text, r.life, r.longest, true, nil)
	return http.StatusOK, lease(text, int64(r.life/time.Second), true)
}

func lease(text string, seconds int64, renewable bool) map[string]any {
	return map[string]any{"auth": map[string]any{"client_token": text, "lease_duration": seconds, "renewable": renewable}}
}

func (s *Server) renew(t *token) (int, any) {
	if !t.renewable {
		return http.StatusBadRequest, refusal("lease is not renewable")
	}
	t.ends = s.Clock().Add(t.life)
	if last := t.begun.Add(t.longest); t.longest > 0 && t.ends.After(last) {
		t.ends = last
	}
	return http.StatusOK, lease("", s.left(t), true)
}

// manage reads, makes, configures and deletes keys.
func (s *Server) manage(method, name string, body map[string]string) (int, any) {
	configured, config := strings.CutSuffix(name, "/config")
	k := s.keys[configured]
	switch {
	case method == http.MethodGet:
		return s.read(name)
	case method == http.MethodPost && config && k == nil:
		return http.StatusBadRequest, refusal("no existing key named " + configured + " could be found")
	case method == http.MethodPost && config:
		k.deletion = body["deletion_allowed"] == "true"
	case method == http.MethodPost && k == nil: // of one that is there, nothing is changed
		s.keys[name] = &key{kind: body["type"], least: 1, versions: []version{s.version()}}
	case method == http.MethodDelete && k == nil:
		return http.StatusBadRequest, refusal("could not delete key; not found")
	case method == http.MethodDelete && !k.deletion:
		return http.StatusBadRequest, refusal("deletion is not allowed for this key")
	case method == http.MethodDelete:
		delete(s.keys, name)
	}
	return http.StatusOK, data(nil)
}

func (s *Server) read(name string) (int, any) {
	k := s.keys[name]
	if k == nil {
		return http.StatusNotFound, map[string]any{"errors": []string{}}
	}
	versions := map[string]any{}
	for i, v := range k.versions {
		switch {
		case i+1 < k.least:
		case strings.HasPrefix(k.kind, "rsa"):
			versions[strconv.Itoa(i+1)] = map[string]any{"public_key": "PEM"}
		default:
			versions[strconv.Itoa(i+1)] = v.made
		}
	}
	return http.StatusOK, data(map[string]any{
		"type": k.kind, "derived": k.derived, "latest_version": len(k.versions), "min_decryption_version": k.least, "keys": versions,
		"min_available_version": k.trimmed,
	})
}

func (s *Server) encrypt(name string, body map[string]string) (int, any) {
	k := s.keys[name]
	if k == nil { // as the service does where the policy has create
		k = &key{kind: "aes256-gcm96", least: 1, versions: []version{s.version()}}
		s.keys[name] = k
	}
	plain, err := base64.StdEncoding.DecodeString(body["plaintext"])
	associated, err2 := base64.StdEncoding.DecodeString(body["associated_data"])
	if err != nil || err2 != nil {
		return http.StatusBadRequest, refusal("failed to base64-decode plaintext " + body["plaintext"])
	}
	n := len(k.versions)
	sealed := k.versions[n-1].aead.Seal(nil, nil, plain, associated)
	text := fmt.Sprintf("vault:v%d:%s", n, base64.StdEncoding.EncodeToString(sealed))
	return http.StatusOK, data(map[string]any{"ciphertext": text, "key_version": n})
}

func (s *Server) decrypt(name string, body map[string]string) (int, any) {
	k := s.keys[name]
	if k == nil {
		return http.StatusBadRequest, refusal("encryption key not found")
	}
	rest, ok := strings.CutPrefix(body["ciphertext"], "vault:v")
	number, encoded, found := strings.Cut(rest, ":")
	n, err := strconv.Atoi(number)
	switch {
	case !ok || !found || err != nil || n > len(k.versions) || n < 1:
		return http.StatusBadRequest, refusal("invalid ciphertext")
	case n < k.least:
		return http.StatusBadRequest, refusal("ciphertext or signature version is disallowed by policy (too old)")
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	associated, err2 := base64.StdEncoding.DecodeString(body["associated_data"])
	if err != nil || err2 != nil {
		return http.StatusBadRequest, refusal("invalid ciphertext: could not decode base64")
	}
	plain, err := k.versions[n-1].aead.Open(nil, nil, raw, associated)
	if err != nil {
		return http.StatusBadRequest, refusal("cipher: message authentication failed")
	}
	return http.StatusOK, data(map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}
