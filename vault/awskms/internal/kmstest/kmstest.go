// Package kmstest is a server that does what KMS is documented to do, as far as a
// key provider uses it: it checks the signature of each request (Signature Version
// 4), encrypts by AES-GCM with the encryption context as associated data, and refuses
// by the names of KMS's errors. And it can be made to fail.
package kmstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// The one who may use the keys.
const (
	AccessKey = "AKIATESTTESTTESTTEST"
	SecretKey = "secret-access-key-of-the-tests"
)

// Server is KMS in one region. It is safe for concurrent use; make one with New.
type Server struct {
	region string
	clock  func() time.Time

	mu       sync.Mutex
	keys     map[string]cipher.AEAD // by ARN
	disabled map[string]bool
	fault    func(http.ResponseWriter, *http.Request, string) bool
	calls    int
	contexts []map[string]string
}

// New returns a Server without keys.
func New(region string, clock func() time.Time) *Server {
	return &Server{region: region, clock: clock, keys: map[string]cipher.AEAD{}, disabled: map[string]bool{}}
}

// AddKey makes a key of that ARN.
func (s *Server) AddKey(arn string) {
	raw := make([]byte, 32)
	rand.Read(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn] = aead
}

// Disable disables a key.
func (s *Server) Disable(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disabled[arn] = true
}

// DeleteKey forgets a key, as KMS does when it was scheduled and the time is over.
func (s *Server) DeleteKey(arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, arn)
}

// Fail puts fault before every request, with the operation asked for; it reports
// whether it has answered. nil ends it.
func (s *Server) Fail(fault func(w http.ResponseWriter, r *http.Request, operation string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// Calls tells how many requests came.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// Contexts are the encryption contexts of all requests.
func (s *Server) Contexts() []map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.contexts)
}

// Refuse answers with an error as KMS does.
func Refuse(w http.ResponseWriter, status int, name, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": name, "message": message})
}

type request struct {
	KeyID             string `json:"KeyId"`
	Plaintext         []byte
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

// ServeHTTP answers Encrypt, Decrypt and DescribeKey.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	s.mu.Lock()
	s.calls++
	fault := s.fault
	s.mu.Unlock()
	if fault != nil && fault(w, r, operation) {
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	if problem := s.signature(r, body); problem != "" {
		Refuse(w, http.StatusForbidden, "InvalidSignatureException", problem)
		return
	}
	var in request
	if json.Unmarshal(body, &in) != nil || r.Method != http.MethodPost || r.URL.Path != "/" {
		Refuse(w, http.StatusBadRequest, "SerializationException", "")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.contexts = append(s.contexts, in.EncryptionContext)
	key := s.keys[in.KeyID]
	switch {
	case key == nil:
		Refuse(w, http.StatusBadRequest, "NotFoundException", "Key '"+in.KeyID+"' does not exist")
	case operation == "DescribeKey":
		s.answer(w, map[string]any{"KeyMetadata": map[string]any{"Arn": in.KeyID, "KeyId": in.KeyID, "Enabled": !s.disabled[in.KeyID]}})
	case s.disabled[in.KeyID]:
		Refuse(w, http.StatusBadRequest, "DisabledException", in.KeyID+" is disabled.")
	case operation == "Encrypt":
		mark := sha256.Sum256([]byte(in.KeyID))
		s.answer(w, map[string]any{
			"KeyId": in.KeyID, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
			"CiphertextBlob": key.Seal(mark[:16], nil, in.Plaintext, canonical(in.EncryptionContext)),
		})
	case operation == "Decrypt":
		s.decrypt(w, key, in)
	default:
		Refuse(w, http.StatusBadRequest, "UnknownOperationException", "")
	}
}

func (s *Server) decrypt(w http.ResponseWriter, key cipher.AEAD, in request) {
	mark := sha256.Sum256([]byte(in.KeyID))
	if !bytes.HasPrefix(in.CiphertextBlob, mark[:16]) {
		for arn := range s.keys {
			other := sha256.Sum256([]byte(arn))
			if bytes.HasPrefix(in.CiphertextBlob, other[:16]) {
				Refuse(w, http.StatusBadRequest, "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
				return
			}
		}
		Refuse(w, http.StatusBadRequest, "InvalidCiphertextException", "")
		return
	}
	plain, err := key.Open(nil, nil, in.CiphertextBlob[16:], canonical(in.EncryptionContext))
	if err != nil {
		Refuse(w, http.StatusBadRequest, "InvalidCiphertextException", "")
		return
	}
	s.answer(w, map[string]any{"KeyId": in.KeyID, "Plaintext": plain, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
}

func (s *Server) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(v)
}

func canonical(c map[string]string) []byte {
	b, err := json.Marshal(c) // sorted by name
	if err != nil {
		panic(err)
	}
	return b
}

// signature says what is wrong with the request's, if anything.
func (s *Server) signature(r *http.Request, body []byte) string {
	fields := map[string]string{}
	rest, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	stamp := r.Header.Get("X-Amz-Date")
	at, err := time.Parse("20060102T150405Z", stamp)
	if !ok || err != nil || at.Sub(s.clock()).Abs() > 5*time.Minute {
		return "no signature, or not of now"
	}
	scope := stamp[:8] + "/" + s.region + "/kms/aws4_request"
	if fields["Credential"] != AccessKey+"/"+scope {
		return "wrong credential or scope"
	}
	names := strings.Split(fields["SignedHeaders"], ";")
	for _, name := range []string{"host", "x-amz-date", "x-amz-target"} {
		if !slices.Contains(names, name) {
			return name + " is not signed"
		}
	}
	digest := sha256.Sum256(body)
	text := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n" + headers(r, names) + "\n" + fields["SignedHeaders"] + "\n" + hex.EncodeToString(digest[:])
	hashed := sha256.Sum256([]byte(text))
	key := []byte("AWS4" + SecretKey)
	for _, part := range []string{stamp[:8], s.region, "kms", "aws4_request"} {
		key = sign(key, part)
	}
	want := sign(key, "AWS4-HMAC-SHA256\n"+stamp+"\n"+scope+"\n"+hex.EncodeToString(hashed[:]))
	if !hmac.Equal([]byte(hex.EncodeToString(want)), []byte(fields["Signature"])) {
		return "the signature does not match"
	}
	return ""
}

func headers(r *http.Request, names []string) string {
	var b strings.Builder
	values := maps.Clone(r.Header)
	values["Host"] = []string{r.Host}
	values["Content-Length"] = []string{fmt.Sprint(r.ContentLength)}
	for _, name := range names {
		fmt.Fprintf(&b, "%s:%s\n", name, strings.Join(strings.Fields(strings.Join(values[http.CanonicalHeaderKey(name)], ",")), " "))
	}
	return b.String()
}

func sign(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}
