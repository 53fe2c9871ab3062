package contract_test

import (
	"context"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// TestUnreadableCredential is D26: a credential that is not what was written is no
// fault of the agent's, and none to be silent about.
func TestUnreadableCredential(t *testing.T) {
	t.Parallel()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		is := is.New(t)
		store := dbtest.Clockless{Store: open(t)}
		o := unlimited()
		o.Store = store
		f := servertest.New(t, o)
		_, key := f.Agent("bot")
		tool := f.Tool("Linear", "lin_api_test_x")
		f.Approved(key, tool)
		path := "/api/tools/" + tool + "/credentials"
		is.Equal(f.Do("GET", path, key, "").Status, 200)
		var damaged string
		is.NoErr(store.Update(context.Background(), f.Organization, func(ctx context.Context, tx storage.Tx) error {
			if _, err := tx.Head(ctx); err != nil {
				return err
			}
			found, err := tx.Credentials(ctx, []storage.CredentialRef{{Tool: tool}})
			if err != nil {
				return err
			}
			c := found[0]
			damaged = c.ID
			c.Sealed[len(c.Sealed)-1] ^= 1
			c.Revision++
			_, err = tx.PutCredential(ctx, c)
			return err
		}))
		res := f.Do("GET", path, key, "")
		is.Equal(res.Status, 503)
		is.True(res.Header.Get("Retry-After") != "" && res.Object(t)["hint"] != nil)
		rows := f.Do("GET", "/api/admin/audit-log?action=integrity.failed", f.Owner, "").Items(t)
		is.Equal(len(rows), 1)
		is.Equal(words(rows[0]["targetType"], rows[0]["targetId"]), words("credential", damaged))
	})
}
