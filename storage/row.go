package storage

import (
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// The rows below name the deciding columns of each record: all that a decision
// or a person who decides relies on. Their order and names are part of the row
// seal and of the state hashes in the log and can't change. Left out are only
// seals themselves, counters that decide nothing and, but for grants, UpdatedAt.

func row(installation, organization, kind, id string, revision int64, c vault.Columns) vault.Row {
	return vault.Row{
		Installation: installation, Organization: organization,
		Kind: kind, Record: id, Revision: revision, Columns: c,
	}
}

// HeadRow is what the row seal of an organization's head covers. The signed
// checkpoint speaks for the tree; the seal binds the time, which decides when
// grants end.
func HeadRow(installation, organization string, h audit.Head) vault.Row {
	var c vault.Columns
	c.Int("epoch", h.Epoch)
	c.Bytes("edge", h.Edge)
	c.Bytes("signed", h.Signed)
	c.Int("time", h.Time)
	return row(installation, organization, "head", organization, h.Size, c)
}

// Row is what the row seal of o covers.
func (o Organization) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("name", o.Name)
	c.Bool("locked", o.Locked)
	c.Int("created_at", o.CreatedAt)
	return row(installation, o.ID, audit.KindOrganization, o.ID, o.Revision, c)
}

// Row is what the row seal of a covers.
func (a Agent) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("name", a.Name)
	c.String("description", a.Description)
	c.String("owner", a.Owner)
	c.String("created_by", a.CreatedBy)
	c.String("created_by_label", a.CreatedByLabel)
	c.String("status", string(a.Status))
	c.Int("created_at", a.CreatedAt)
	return row(installation, a.Organization, audit.KindAgent, a.ID, a.Revision, c)
}

// Row is what the row seal of k covers.
func (k Key) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("agent", k.Agent)
	c.Bytes("digest", k.Digest)
	c.String("status", string(k.Status))
	c.Int("expires_at", k.ExpiresAt)
	c.Strings("addresses", k.Addresses)
	c.Int("created_at", k.CreatedAt)
	return row(installation, k.Organization, audit.KindKey, k.ID, k.Revision, c)
}

// Row is what the row seal of t covers.
func (t Tool) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("config_key", t.ConfigKey)
	c.String("name", t.Name)
	c.String("description", t.Description)
	c.String("url", t.URL)
	c.String("auth_type", t.AuthType)
	c.String("mode", string(t.Mode))
	c.Int("required_approvals", t.RequiredApprovals)
	c.String("instructions", t.Instructions)
	c.Int("created_at", t.CreatedAt)
	return row(installation, t.Organization, audit.KindTool, t.ID, t.Revision, c)
}

// Row is what the row seal of c covers: with the sealed bytes, so that a value
// can't be put back without its row.
func (c Credential) Row(installation string) vault.Row {
	var cols vault.Columns
	cols.String("tool", c.Tool)
	cols.String("grant", c.Grant)
	cols.String("auth_type", c.AuthType)
	cols.String("status", string(c.Status))
	cols.Int("expires_at", c.ExpiresAt)
	cols.Int("rotated_at", c.RotatedAt)
	cols.Bytes("sealed", c.Sealed)
	cols.Int("sealed_revision", c.SealedRevision)
	cols.Int("created_at", c.CreatedAt)
	return row(installation, c.Organization, audit.KindCredential, c.ID, c.Revision, cols)
}

// Place is where the credential's value is sealed to.
func (c Credential) Place(installation string) vault.Place {
	return vault.Place{
		Installation: installation, Organization: c.Organization, Kind: audit.KindCredential,
		Record: c.ID, Field: "value", Revision: c.SealedRevision,
	}
}

// Row is what the row seal of k covers.
func (k DataKey) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("purpose", string(k.Purpose))
	c.String("state", string(k.State))
	c.String("provider", k.Provider)
	c.Bytes("wrapped", k.Wrapped)
	c.Int("created_at", k.CreatedAt)
	return row(installation, k.Organization, audit.KindDataKey, k.ID, k.Revision, c)
}

// Row is what the row seal of r covers.
func (r Record) Row(installation string) vault.Row {
	var c vault.Columns
	c.String("kind", r.Kind)
	for _, e := range r.Index {
		c.String("index_"+e.Name, e.Value)
	}
	c.Bytes("payload", r.Payload)
	return row(installation, r.Organization, r.Kind, r.ID, r.Revision, c)
}

func terms(c *vault.Columns, prefix string, t grants.Terms) {
	c.Int(prefix+"_duration", t.Duration)
	c.Int(prefix+"_max_vends", t.MaxVends)
	c.Strings(prefix+"_scopes", t.Scopes)
}

// GrantRow is what the row seal of g covers.
func GrantRow(installation string, g grants.Grant) vault.Row {
	var c vault.Columns
	c.Grow(960 + len(g.Reason) + len(g.DenialReason)) // lists read thousands
	c.String("agent", g.Agent)
	c.String("tool", g.Tool)
	c.Int("cycle", g.Cycle)
	c.String("status", string(g.Status))
	terms(&c, "asked", g.Asked)
	terms(&c, "granted", g.Granted)
	c.String("reason", g.Reason)
	c.String("denial_reason", g.DenialReason)
	c.String("ticket", g.Ticket)
	c.Int("requested_at", g.RequestedAt)
	c.Int("decided_at", g.DecidedAt)
	c.Int("approved_at", g.ApprovedAt)
	c.Int("expires_at", g.ExpiresAt)
	c.Int("vends_used", g.VendsUsed)
	c.String("decided_by", g.DecidedBy)
	c.String("decided_by_kind", g.DecidedByKind)
	c.String("decided_by_label", g.DecidedByLabel)
	c.Int("required_approvals", g.RequiredApprovals)
	c.Int("approvals", g.Approvals)
	c.Int("created_at", g.CreatedAt)
	c.Int("updated_at", g.UpdatedAt) // no change of a grant counts as earlier than its last
	return row(installation, g.Organization, audit.KindGrant, g.ID, g.Revision, c)
}

// ApprovalID is the id under which the log and the row seal know an approval:
// its grant, cycle and actor.
func ApprovalID(a grants.Approval) string {
	return approvalID(a.Grant, a.Cycle, a.ActorKind, a.Actor)
}

// ApprovalRow is what the row seal of a covers.
func ApprovalRow(installation string, a grants.Approval) vault.Row {
	var c vault.Columns
	c.String("grant", a.Grant)
	c.Int("cycle", a.Cycle)
	c.String("actor", a.Actor)
	c.String("actor_kind", a.ActorKind)
	c.String("actor_label", a.ActorLabel)
	c.String("verdict", string(a.Verdict))
	c.String("reason", a.Reason)
	c.Int("time", a.Time)
	terms(&c, "granted", a.Terms)
	c.Bool("owner_alone", a.OwnerAlone)
	return row(installation, a.Organization, audit.KindApproval, ApprovalID(a), a.Revision, c)
}
