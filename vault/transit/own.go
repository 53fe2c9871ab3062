package transit

import (
	"context"
	"fmt"
	"net/http"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// OwnKey gives a Provider over the key that is the organization's alone; ok is false
// unless Config.OrganizationKeys is set. Its WrapKey makes the key, of type
// aes256-gcm96, if it is not there.
func (p *Provider) OwnKey(organization string) (own vault.KeyProvider, ok bool) {
	if !p.owned || organization == "" {
		return nil, false
	}
	return &Provider{client: p.client, own: organization}, true
}

// DestroyKey has the service forget the organization's own key with all its versions:
// it allows the deletion and deletes the key, which takes the capabilities update on
// keys/NAME/config and delete on keys/NAME. The service is asked afterwards whether it
// is gone. Backups of the service itself are another matter.
func (p *Provider) DestroyKey(ctx context.Context, organization, id string) (gone bool, err error) {
	c := p.client().own(organization)
	ctx, done, err := c.begin(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	gone, err = c.destroy(ctx, id)
	return gone, c.ended(ctx, err)
}

func (c ref) destroy(ctx context.Context, id string) (gone bool, err error) {
	if _, _, ours := c.parseName(id); !ours {
		return false, fmt.Errorf("%w: transit: %s is not the organization's own key", vault.ErrProvider, printable(id))
	}
	held, err := c.holds(ctx, id)
	if err != nil || !held {
		return err == nil, err
	}
	path := c.mount + "/keys/" + c.key
	err = c.call(ctx, request{what: "allow deletion", method: http.MethodPost, path: path + "/config", body: map[string]any{"deletion_allowed": true}}, nil)
	if err == nil {
		err = c.call(ctx, request{what: "delete key", method: http.MethodDelete, path: path}, nil)
	}
	if err != nil {
		return false, err
	}
	c.keepKey(key{})
	held, err = c.holds(ctx, id)
	return err == nil && !held, err
}

// make makes the key. One that another process has made meanwhile is left as it is.
func (c ref) make(ctx context.Context) error {
	err := c.call(ctx, request{what: "make key", method: http.MethodPost, path: c.mount + "/keys/" + c.key, body: map[string]any{"type": "aes256-gcm96"}}, nil)
	if err == nil {
		_, err = c.readKey(ctx)
	}
	return err
}
