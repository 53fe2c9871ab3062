package agentkey_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
)

// TestFirstTwice: of several that make the first organization with one and the
// same token, those that come later are told that there is one, however much
// later they come.
func TestFirstTwice(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	k := agentkeytest.New(t)
	create := func(first bool) error {
		_, err := k.CreateOrganization(t.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{
			Name: "Default", Owner: "owner", First: first, Token: agentkey.NewSecret([]byte("test_token_" + strings.Repeat("a", 32))),
		})
		return err
	}
	is.NoErr(create(true))
	is.True(errors.Is(create(true), agentkey.ErrNotFirst))
	is.True(errors.Is(create(false), agentkey.ErrTokenTaken))
}
