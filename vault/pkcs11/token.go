//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// module is what is used of a PKCS#11 module.
type module interface {
	Initialize(...pkcs11.InitializeOption) error
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	EncryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Encrypt(s pkcs11.SessionHandle, plain []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(s pkcs11.SessionHandle, sealed []byte) ([]byte, error)
}

// ckrAEADDecryptFailed is of PKCS#11 3.0, which the binding does not name.
const ckrAEADDecryptFailed = 0x35

// token opens sessions, keeps those that are idle, and bounds the calls.
type token struct {
	config Config
	module module
	calls  chan struct{} // holds a value for each call under way

	mu      sync.Mutex
	idle    []pkcs11.SessionHandle
	refused *vault.Secret // the PIN that the token did not take
}

// session is a session that is logged in, for one call.
type session struct {
	*token
	handle pkcs11.SessionHandle
}

var (
	errSlow = fmt.Errorf("%w: pkcs11: no answer in time", vault.ErrUnavailable)
	errBusy = fmt.Errorf("%w: pkcs11: all sessions are in use", vault.ErrUnavailable)
)

// answer is what a call gives: the name of a key, or bytes, or both.
type answer struct {
	name  string
	bytes []byte
}

// do runs fn with a session and gives what it gives, or an error once the time is
// over. A module can't be interrupted: the call then goes on by itself, in the place
// that it holds among the calls, and what it gives is zeroed. So are secrets, once
// nobody reads them any more.
func (t *token) do(ctx context.Context, fn func(session) (answer, error), secrets ...[]byte) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, t.config.Timeout, errSlow)
	defer cancel()
	zero := func() {
		for _, s := range secrets {
			clear(s)
		}
	}
	if err := t.enter(ctx); err != nil {
		zero()
		return answer{}, err
	}
	type result struct {
		answer
		err error
	}
	results := make(chan result)
	go func() {
		defer func() { <-t.calls }()
		defer zero()
		a, err := t.withSession(fn)
		select {
		case results <- result{a, err}:
		case <-ctx.Done():
			clear(a.bytes)
		}
	}()
	select {
	case r := <-results:
		if r.err != nil {
			clear(r.bytes)
			return answer{}, plainError(r.err)
		}
		return r.answer, nil
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// enter waits until one call more may run.
func (t *token) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t.calls <- struct{}{}:
		return nil
	case <-ctx.Done():
	}
	if cause := context.Cause(ctx); !errors.Is(cause, errSlow) {
		return cause
	}
	return errBusy
}

// withSession runs fn, and again with a new session if the one it had turns out to
// have ended, as all do when a token was removed.
func (t *token) withSession(fn func(session) (answer, error)) (answer, error) {
	for again := true; ; again = false {
		handle, fresh, err := t.open()
		if err != nil {
			return answer{}, err
		}
		a, err := fn(session{t, handle})
		if !ended(err) {
			t.keep(handle)
			return a, err
		}
		_ = t.module.CloseSession(handle)
		t.drop()
		if fresh || !again {
			return answer{}, err
		}
	}
}

// open gives an idle session, or a new one that is logged in.
func (t *token) open() (handle pkcs11.SessionHandle, fresh bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.idle); n > 0 {
		handle, t.idle = t.idle[n-1], t.idle[:n-1]
		return handle, false, nil
	}
	if err := t.module.Initialize(); err != nil && code(err) != pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED {
		return 0, false, err
	}
	slot, err := t.slot()
	if err != nil {
		return 0, false, err
	}
	handle, err = t.module.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return 0, false, err
	}
	if err := t.login(handle); err != nil {
		_ = t.module.CloseSession(handle)
		return 0, false, err
	}
	return handle, true, nil
}

// slot looks for the token among those that are present.
func (t *token) slot() (uint, error) {
	slots, err := t.module.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		info, err := t.module.GetTokenInfo(slot)
		if err != nil {
			continue // another's, which may just have been removed
		}
		label := t.config.Token == "" || strings.TrimRight(info.Label, " \x00") == t.config.Token
		serial := t.config.Serial == "" || strings.TrimRight(info.SerialNumber, " \x00") == t.config.Serial
		if label && serial {
			return slot, nil
		}
	}
	return 0, fmt.Errorf("%w: pkcs11: the token is not there", vault.ErrUnavailable)
}

// login logs in. A PIN that the token refused is not tried again: a few more times,
// and the token is locked.
func (t *token) login(handle pkcs11.SessionHandle) error {
	pin, err := t.config.PIN()
	if err != nil {
		return fmt.Errorf("%w: pkcs11: PIN: %w", vault.ErrUnavailable, err)
	}
	if pin.Len() == 0 || pin.Equal(t.refused) {
		pin.Destroy()
		return fmt.Errorf("%w: pkcs11: the PIN is empty, or the token has refused it; it is not tried again", vault.ErrUnavailable)
	}
	err = t.module.Login(handle, pkcs11.CKU_USER, string(pin.Bytes()))
	switch code(err) {
	case pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE:
		t.refused.Destroy()
		t.refused = pin
		return err
	case pkcs11.CKR_USER_ALREADY_LOGGED_IN:
		err = nil
	}
	pin.Destroy()
	return err
}

// keep puts a session back.
func (t *token) keep(handle pkcs11.SessionHandle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.idle = append(t.idle, handle)
}

// drop closes the idle sessions.
func (t *token) drop() {
	t.mu.Lock()
	idle := t.idle
	t.idle = nil
	t.mu.Unlock()
	for _, handle := range idle {
		_ = t.module.CloseSession(handle)
	}
}

// code is what a module answered; 0 is CKR_OK.
func code(err error) uint {
	var e pkcs11.Error
	errors.As(err, &e)
	return uint(e)
}

// ended reports whether a session can't be used any more.
func ended(err error) bool {
	switch code(err) {
	case pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED,
		pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED,
		pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_OPERATION_ACTIVE:
		return true
	}
	return false
}

// plainError says what a module answered by the standard's name alone. All of them
// may pass: a token is put back, a right is given.
func plainError(err error) error {
	var e pkcs11.Error
	if !errors.As(err, &e) || errors.Is(err, vault.ErrUnavailable) {
		return err
	}
	name := strings.TrimSpace(e.Error())
	return fmt.Errorf("%w: %s", vault.ErrUnavailable, name)
}
