package agentkey

import (
	"context"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// rowsPage is how many rows one page of a walk has.
const rowsPage = 500

// rowWalk goes through all rows of an organization that have a seal.
type rowWalk struct {
	organization string
	// page gives fn a consistent read, for one page.
	page func(ctx context.Context, fn func(ctx context.Context, tx storage.ReadTx, u *unit) error) error
	// check looks at a row.
	check func(u *unit, row vault.Row, seal []byte)
	// sealed looks at a sealed value and the row that holds it besides. Nil: nobody does.
	sealed func(u *unit, v sealedValue)
	// approval looks at an approval besides. Nil: nobody does.
	approval func(a grants.Approval)
}

// run looks at every row, page by page.
func (r rowWalk) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{r.singles, r.agents, r.tools, r.grants, r.records} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r rowWalk) singles(ctx context.Context) error {
	return r.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		o, ok, err := tx.Organization(ctx)
		if err != nil {
			return err
		}
		if ok {
			o.ID = r.organization
			r.check(u, o.Row(u.installation), o.Seal)
		}
		keys, err := tx.DataKeys(ctx)
		for _, k := range keys {
			k.Organization = r.organization
			r.check(u, k.Row(u.installation), k.Seal)
		}
		return err
	})
}

func (r rowWalk) agents(ctx context.Context) error {
	for q := (storage.AgentQuery{Limit: rowsPage}); ; {
		var found []storage.Agent
		err := r.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
			page, err := tx.Agents(ctx, q)
			if err != nil || len(page.Agents) == 0 {
				found = nil
				return err
			}
			found = page.Agents
			ids := make([]string, len(found))
			for i, a := range found {
				a.Organization = r.organization
				ids[i] = a.ID
				r.check(u, a.Row(u.installation), a.Seal)
			}
			keys, err := tx.Keys(ctx, storage.KeyQuery{Agents: ids})
			for _, k := range keys {
				k.Organization = r.organization
				r.check(u, k.Row(u.installation), k.Seal)
			}
			return err
		})
		if err != nil || len(found) < rowsPage {
			return err
		}
		q.After = found[len(found)-1].ID
	}
}

func (r rowWalk) tools(ctx context.Context) error {
	for q := (storage.ToolQuery{Limit: rowsPage}); ; {
		var found []storage.Tool
		err := r.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
			page, err := tx.Tools(ctx, q)
			if err != nil {
				return err
			}
			found = page.Tools
			refs := make([]storage.CredentialRef, len(found))
			for i, t := range found {
				t.Organization = r.organization
				refs[i] = storage.CredentialRef{Tool: t.ID}
				r.check(u, t.Row(u.installation), t.Seal)
			}
			return r.credentials(ctx, tx, u, refs)
		})
		if err != nil || len(found) < rowsPage {
			return err
		}
		q.After = found[len(found)-1].ID
	}
}

func (r rowWalk) credentials(ctx context.Context, tx storage.ReadTx, u *unit, refs []storage.CredentialRef) error {
	if len(refs) == 0 {
		return nil
	}
	found, err := tx.Credentials(ctx, refs)
	for _, c := range found {
		c.Organization = r.organization
		r.check(u, c.Row(u.installation), c.Seal)
		if r.sealed != nil {
			r.sealed(u, credentialValue(u.installation, c))
		}
	}
	return err
}

func (r rowWalk) grants(ctx context.Context) error {
	for q := (storage.GrantQuery{Limit: rowsPage}); ; {
		var found []grants.Grant
		err := r.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
			page, err := tx.Grants(ctx, q)
			if err != nil || len(page.Grants) == 0 {
				found = nil
				return err
			}
			found = page.Grants
			ids := make([]string, len(found))
			refs := make([]storage.CredentialRef, len(found))
			for i, g := range found {
				g.Organization = r.organization
				ids[i], refs[i] = g.ID, storage.CredentialRef{Tool: g.Tool, Grant: g.ID}
				r.check(u, storage.GrantRow(u.installation, g), g.Seal)
			}
			approvals, err := tx.Approvals(ctx, ids)
			if err != nil {
				return err
			}
			for _, a := range approvals {
				a.Organization = r.organization
				r.check(u, storage.ApprovalRow(u.installation, a), a.Seal)
				if r.approval != nil {
					r.approval(a)
				}
			}
			return r.credentials(ctx, tx, u, refs)
		})
		if err != nil || len(found) < rowsPage {
			return err
		}
		q.After = found[len(found)-1].ID
	}
}

func (r rowWalk) records(ctx context.Context) error {
	for _, kind := range recordKinds {
		for s := (storage.Scan{Kind: kind, Limit: rowsPage}); ; {
			var found []storage.Record
			err := r.page(ctx, func(ctx context.Context, tx storage.ReadTx, u *unit) (err error) {
				found, err = tx.ScanRecords(ctx, s)
				for _, rec := range found {
					rec.Organization = r.organization
					r.check(u, rec.Row(u.installation), rec.Seal)
					if kind == kindWebhook && r.sealed != nil {
						r.sealed(u, webhookValue(u.installation, rec))
					}
				}
				return err
			})
			if err != nil {
				return err
			}
			if len(found) < rowsPage {
				break
			}
			s.AfterID = found[len(found)-1].ID
		}
	}
	return nil
}
