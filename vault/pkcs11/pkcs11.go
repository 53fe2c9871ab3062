//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/internal/bound"
)

// A wrapped key, version 1:
//
//	offset  length
//	0       1       version, 0x01
//	1       1       algorithm, 0x01: CKM_AES_GCM, 12-byte nonce, 16-byte tag
//	2       12      nonce
//	14      64      ciphertext of the data key and the proof of its context
//	78      16      tag
//
// The additional data are, each after its length as four bytes, big endian: the
// label, version, algorithm, the id of the token's key, installation, organization,
// purpose and the id of the data key.
const (
	wrappedLabel   = "agentkey/wrapped-pkcs11/v1"
	wrappedVersion = 0x01
	algAESGCM      = 0x01
	headerSize     = 2
	nonceSize      = 12
	tagSize        = 16
	wrappedSize    = headerSize + nonceSize + bound.Size + tagSize
)

const (
	defaultTimeout  = 2 * time.Second
	defaultSessions = 4
	maxSessions     = 64
)

// ErrConfig says that a Config can't be used, or that its module can't be loaded.
// The error says which field and why.
var ErrConfig = errors.New("pkcs11: bad configuration")

// Config says which module, token and keys to use.
type Config struct {
	// Module is the path of the vendor's shared library. Required. It is code that
	// runs in this process, with all its rights.
	Module string

	// Token is the label of the token, and Serial its serial number. At least one is
	// required; where both are given, both must fit.
	Token, Serial string

	// Label is the CKA_LABEL of the keys. Required.
	Label string

	// ID is the CKA_ID of the key that wraps. Empty: the only key of that label.
	ID []byte

	// PIN gives the user's PIN at each login. The provider destroys what it is given.
	// Required. Errors must not hold the PIN.
	PIN func() (*vault.Secret, error)

	// Sessions bounds how many calls of the token run at once, and with that how
	// many threads a token that hangs can hold. Zero: 4. At most 64.
	Sessions int

	// Timeout bounds every call of the provider. What the token does not answer in
	// time is given up, though its thread ends only when the module returns. Zero: 2
	// seconds. At most a minute.
	Timeout time.Duration
}

// Provider is a vault.KeyProvider over keys in a token. It is safe for concurrent
// use and prints as "[redacted]". Make one with New.
type Provider struct {
	vault.Redacted
	// token is a closure so that no walker by reflection reaches what logs in.
	token func() *token
}

var _ vault.KeyProvider = (*Provider)(nil)

// New checks the configuration and loads the module. It does not look for the token:
// one that is not there shows at the first use, and may come later.
//
// The module stays loaded and initialized until the process ends, also after Close:
// others in the process may use it.
func New(c Config) (*Provider, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := pkcs11.New(c.Module)
	if m == nil {
		return nil, fmt.Errorf("%w: Module: it can't be loaded", ErrConfig)
	}
	return over(c, m), nil
}

func over(c Config, m module) *Provider {
	if c.Sessions == 0 {
		c.Sessions = defaultSessions
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	t := &token{config: c, module: m, calls: make(chan struct{}, c.Sessions)}
	return &Provider{token: func() *token { return t }}
}

func (c Config) check() error {
	switch {
	case c.Module == "":
		return fmt.Errorf("%w: Module: required", ErrConfig)
	case c.Token == "" && c.Serial == "":
		return fmt.Errorf("%w: Token or Serial: one is required", ErrConfig)
	case c.Label == "":
		return fmt.Errorf("%w: Label: required", ErrConfig)
	case len(c.ID) > maxID:
		return fmt.Errorf("%w: ID: at most %d bytes", ErrConfig, maxID)
	case c.PIN == nil:
		return fmt.Errorf("%w: PIN: required", ErrConfig)
	case c.Sessions < 0 || c.Sessions > maxSessions:
		return fmt.Errorf("%w: Sessions: at most %d", ErrConfig, maxSessions)
	case c.Timeout < 0 || c.Timeout > time.Minute:
		return fmt.Errorf("%w: Timeout: at most a minute", ErrConfig)
	}
	return nil
}

// Close ends the sessions that are not in use. The Provider can still be used
// afterwards.
func (p *Provider) Close() error {
	p.token().drop()
	return nil
}

// CurrentKey looks for the key that wraps. Besides the errors of vault.KeyProvider it
// fails with vault.ErrProvider if that key could leave the token, or is too short.
func (p *Provider) CurrentKey(ctx context.Context) (string, error) {
	a, err := p.token().do(ctx, func(s session) (answer, error) {
		k, err := s.current()
		return answer{name: k.name()}, err
	})
	return a.name, err
}

// WrapKey has key, 32 bytes, encrypted in the token.
func (p *Provider) WrapKey(ctx context.Context, key []byte, c vault.Context) (vault.Wrapped, error) {
	if err := ctx.Err(); err != nil {
		return vault.Wrapped{}, err
	}
	plain, err := bound.Append(make([]byte, 0, bound.Size), key, c)
	if err != nil {
		return vault.Wrapped{}, err
	}
	a, err := p.token().do(ctx, func(s session) (answer, error) {
		k, err := s.current()
		if err != nil {
			return answer{}, err
		}
		blob, err := s.encrypt(k, plain, associated(k.name(), c))
		return answer{k.name(), blob}, err
	}, plain)
	if err != nil {
		return vault.Wrapped{}, err
	}
	return vault.Wrapped{Provider: a.name, Blob: a.bytes}, nil
}

// UnwrapKey has w decrypted in the token, by the key that w names.
func (p *Provider) UnwrapKey(ctx context.Context, w vault.Wrapped, c vault.Context) ([]byte, error) {
	blob := bytes.Clone(w.Blob) // the token may still read it when this has returned
	a, err := p.token().do(ctx, func(s session) (answer, error) {
		k, err := s.named(w.Provider)
		if err != nil {
			return answer{}, err
		}
		if len(blob) != wrappedSize || blob[0] != wrappedVersion || blob[1] != algAESGCM {
			return answer{}, fmt.Errorf("%w: %w", vault.ErrUnwrap, vault.ErrFormat)
		}
		plain, err := s.decrypt(k, blob, associated(w.Provider, c))
		if err != nil {
			return answer{}, err
		}
		opened, err := bound.Open(plain, c)
		return answer{bytes: opened}, err
	})
	return a.bytes, err
}

// HoldsKey says whether the token has the key of that name under the label. Copies
// that the vendor's tools made are not seen. What is no name of a key in a token
// fails with vault.ErrUnavailable.
func (p *Provider) HoldsKey(ctx context.Context, id string) (bool, error) {
	if !strings.HasPrefix(id, namePrefix) {
		return false, fmt.Errorf("%w: pkcs11: %s is no key of a token", vault.ErrUnavailable, printable(id))
	}
	a, err := p.token().do(ctx, func(s session) (answer, error) {
		keys, err := s.keys()
		for _, k := range keys {
			if k.name() == id {
				return answer{name: id}, err
			}
		}
		return answer{}, err
	})
	return a.name == id, err
}

func (s session) encrypt(k key, plain, associated []byte) ([]byte, error) {
	nonce := make([]byte, nonceSize)
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("pkcs11: nonce: %w", err)
	}
	params := pkcs11.NewGCMParams(nonce, associated, 8*tagSize)
	defer params.Free()
	if err := s.module.EncryptInit(s.handle, gcm(params), k.handle); err != nil {
		return nil, err
	}
	sealed, err := s.module.Encrypt(s.handle, plain)
	if err != nil {
		return nil, err
	}
	if used := params.IV(); used != nil { // some tokens take a nonce of their own
		nonce = used
	}
	blob := append([]byte{wrappedVersion, algAESGCM}, nonce...)
	blob = append(blob, sealed...)
	if len(nonce) != nonceSize || len(blob) != wrappedSize {
		return nil, fmt.Errorf("%w: pkcs11: the token's AES-GCM has another form", vault.ErrProvider)
	}
	return blob, nil
}

func (s session) decrypt(k key, blob, associated []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(blob[headerSize:headerSize+nonceSize], associated, 8*tagSize)
	defer params.Free()
	if err := s.module.DecryptInit(s.handle, gcm(params), k.handle); err != nil {
		return nil, err
	}
	plain, err := s.module.Decrypt(s.handle, blob[headerSize+nonceSize:])
	if err != nil && s.refuted(err, k) {
		return nil, vault.ErrUnwrap
	}
	return plain, err
}

// refuted reports whether an error of decryption says that the ciphertext is not of
// this key and context. Tokens differ in how they say so, and some say no more than
// that something went wrong: then it is the ciphertext if the key works otherwise.
func (s session) refuted(err error, k key) bool {
	switch code(err) {
	case pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_SIGNATURE_INVALID, ckrAEADDecryptFailed:
		return true
	case pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED, pkcs11.CKR_DATA_INVALID:
	default:
		return false
	}
	blob, err := s.encrypt(k, make([]byte, bound.Size), nil)
	if err != nil {
		return false
	}
	params := pkcs11.NewGCMParams(blob[headerSize:headerSize+nonceSize], nil, 8*tagSize)
	defer params.Free()
	if s.module.DecryptInit(s.handle, gcm(params), k.handle) != nil {
		return false
	}
	_, err = s.module.Decrypt(s.handle, blob[headerSize+nonceSize:])
	return err == nil
}

func gcm(params *pkcs11.GCMParams) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}
}

// associated binds a wrapped key to its header, the token's key and the context.
func associated(name string, c vault.Context) []byte {
	var b []byte
	for _, part := range []string{wrappedLabel, "\x01", "\x01", name} { // version and algorithm
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return c.AppendEncoded(b)
}
