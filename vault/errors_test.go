package vault_test

import (
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

func TestErrorFamilies(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for _, err := range []error{vault.ErrFormat, vault.ErrOpen, vault.ErrRowSeal, vault.ErrUnwrap, vault.ErrWrongKey} {
		is.True(isErr(err, vault.ErrIntegrity))
	}
	for _, err := range []error{
		vault.ErrUnknownKey, vault.ErrUnavailable, vault.ErrPlace, vault.ErrPurpose, vault.ErrKeyDestroyed,
		vault.ErrKeyLength, vault.ErrPlaintext, vault.ErrTooLong, vault.ErrProvider,
	} {
		is.True(!isErr(err, vault.ErrIntegrity)) // would be taken for tampering
	}
}
