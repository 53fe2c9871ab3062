//go:build cgo

package pkcs11_test

import (
	"sync"

	p11 "github.com/miekg/pkcs11"

	"github.com/agentkey-dev/agentkey-go/vault/pkcs11"
)

// faulty is a module that fails as it is told.
type faulty struct {
	pkcs11.Module

	mu      sync.Mutex
	logins  int
	code    uint   // what searches and sessions are answered with
	refusal uint   // what decryption is answered with
	plain   []byte // what decryption gives, if other is set
	other   bool
	gate    chan struct{} // what decryption waits for
	waiting int
}

func (f *faulty) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faulty) answer(code uint)           { f.set(func() { f.code = code }) }
func (f *faulty) refuseDecryption(code uint) { f.set(func() { f.refusal = code }) }
func (f *faulty) decrypts(plain []byte)      { f.set(func() { f.plain, f.other = plain, true }) }
func (f *faulty) hang()                      { f.set(func() { f.gate = make(chan struct{}) }) }
func (f *faulty) release()                   { f.set(func() { close(f.gate); f.gate = nil }) }

func (f *faulty) hanging() (n int) {
	f.set(func() { n = f.waiting })
	return n
}

func (f *faulty) fails() (err error) {
	f.set(func() {
		if f.code != 0 {
			err = pkcs11.Code(f.code)
		}
	})
	return err
}

func (f *faulty) Login(s p11.SessionHandle, user uint, pin string) error {
	f.set(func() { f.logins++ })
	return f.Module.Login(s, user, pin)
}

func (f *faulty) GetSlotList(present bool) ([]uint, error) {
	if err := f.fails(); err != nil {
		return nil, err
	}
	return f.Module.GetSlotList(present)
}

func (f *faulty) FindObjectsInit(s p11.SessionHandle, a []*p11.Attribute) error {
	if err := f.fails(); err != nil {
		return err
	}
	return f.Module.FindObjectsInit(s, a)
}

func (f *faulty) Decrypt(s p11.SessionHandle, sealed []byte) ([]byte, error) {
	f.mu.Lock()
	gate, refusal, plain, other := f.gate, f.refusal, f.plain, f.other
	if gate != nil {
		f.waiting++
	}
	f.mu.Unlock()
	if gate != nil {
		<-gate
		f.set(func() { f.waiting-- })
	}
	got, err := f.Module.Decrypt(s, sealed)
	switch {
	case refusal != 0:
		return nil, pkcs11.Code(refusal)
	case other:
		return append([]byte(nil), plain...), nil
	}
	return got, err
}
