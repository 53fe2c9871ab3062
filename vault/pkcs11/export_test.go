//go:build cgo

package pkcs11

import "github.com/miekg/pkcs11"

// Module is what a Provider uses of a PKCS#11 module.
type Module interface{ module }

// Code is the error of a module that answers with it.
func Code(n uint) error { return pkcs11.Error(n) }

// Over is New over a module that is given.
func Over(c Config, m Module) (*Provider, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return over(c, m), nil
}
