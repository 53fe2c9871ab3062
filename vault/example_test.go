package vault_test

import (
	"errors"
	"fmt"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// A credential is sealed to one field of one revision of one record, and opens
// nowhere else.
func Example() {
	key, err := vault.NewDataKey(vault.PurposeSeal)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer key.Destroy()
	sealer, err := vault.NewSealer(key)
	if err != nil {
		fmt.Println(err)
		return
	}
	opener, err := vault.NewOpener(key)
	if err != nil {
		fmt.Println(err)
		return
	}

	place := vault.Place{
		Installation: "main", Organization: "acme",
		Kind: "credential", Record: "linear", Field: "value", Revision: 1,
	}
	credential := vault.NewSecret([]byte("lin_api_test_example"))
	sealed, err := sealer.Seal(place, credential)
	credential.Destroy()
	if err != nil {
		fmt.Println(err)
		return
	}

	opened, err := opener.Open(place, sealed)
	fmt.Println(opened, opened.Len(), err)
	opened.Destroy()

	place.Organization = "other"
	_, err = opener.Open(place, sealed)
	fmt.Println(errors.Is(err, vault.ErrOpen), errors.Is(err, vault.ErrIntegrity))
	// Output:
	// [redacted] 20 <nil>
	// true true
}
