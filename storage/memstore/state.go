package memstore

import (
	"encoding/binary"
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// organization is the top level of one organization's state. Maps to a string
// are unique indexes that lead to an id.
type organization struct {
	row *storage.Organization

	agents      tree[*storage.Agent]
	keys        tree[*storage.Key]
	keysOf      tree[string] // by agent and key
	tools       tree[*storage.Tool]
	toolFor     tree[string] // by configuration key
	credentials tree[*storage.Credential]
	credential  tree[string] // by tool and grant
	grants      tree[*grants.Grant]
	grantFor    tree[string]           // by agent and tool
	approvals   tree[*grants.Approval] // by grant, cycle and actor
	dataKeys    tree[*storage.DataKey]
	ends        tree[*storage.Due] // by time, kind and id
	records     tree[*storage.Record]
	index       tree[*storage.Record] // by kind, index, value and id
	windows     tree[*storage.Window]

	head        storage.Head
	lines       lines
	checkpoints []storage.Checkpoint // grows at the end, in place: see lines
}

// key joins parts to one key. Text holds no NUL, which sorts before every other
// byte, so that the order of keys is the order of the first part, then of the
// second, and so on.
func key(parts ...string) string {
	n := len(parts)
	for _, p := range parts {
		n += len(p)
	}
	b := make([]byte, 0, n)
	for i, p := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, p...)
	}
	return string(b)
}

// timeKey is a key part of eight bytes that sorts as the time does.
func timeKey(t int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(t)^1<<63))
}

// atEnd keeps the index of ends: was is what stood there, is what stands now.
func (o *organization) atEnd(was, is *storage.Due) {
	if was != nil {
		o.ends = o.ends.drop(endKey(was))
	}
	if is != nil {
		o.ends = o.ends.put(endKey(is), is)
	}
}

func endKey(d *storage.Due) string { return timeKey(d.At) + key(d.Kind, d.ID) }

func keyEnd(k *storage.Key) *storage.Due {
	if k == nil || k.Status != storage.KeyActive || k.ExpiresAt == 0 {
		return nil
	}
	return &storage.Due{Organization: k.Organization, Kind: audit.KindKey, ID: k.ID, Agent: k.Agent, At: k.ExpiresAt}
}

func credentialEnd(c *storage.Credential) *storage.Due {
	if c == nil || c.Status != storage.CredentialActive || c.ExpiresAt == 0 {
		return nil
	}
	return &storage.Due{
		Organization: c.Organization, Kind: audit.KindCredential, ID: c.ID,
		Tool: c.Tool, Grant: c.Grant, At: c.ExpiresAt,
	}
}

func grantEnd(g *grants.Grant) *storage.Due {
	if g == nil || g.Status != grants.StatusApproved || g.ExpiresAt == 0 {
		return nil
	}
	return &storage.Due{
		Organization: g.Organization, Kind: audit.KindGrant, ID: g.ID,
		Agent: g.Agent, Tool: g.Tool, At: g.ExpiresAt,
	}
}

// The copies below are taken of whatever comes in and whatever goes out: the
// store keeps no slice it was given and hands out none it keeps.

func copyOrganization(o storage.Organization) *storage.Organization {
	o.Seal = slices.Clone(o.Seal)
	return &o
}

func copyAgent(a storage.Agent) *storage.Agent {
	a.Seal = slices.Clone(a.Seal)
	return &a
}

func copyKey(k storage.Key) *storage.Key {
	k.Digest, k.Addresses, k.Seal = slices.Clone(k.Digest), slices.Clone(k.Addresses), slices.Clone(k.Seal)
	return &k
}

func copyTool(t storage.Tool) *storage.Tool {
	t.Seal = slices.Clone(t.Seal)
	return &t
}

func copyCredential(c storage.Credential) *storage.Credential {
	c.Sealed, c.Seal = slices.Clone(c.Sealed), slices.Clone(c.Seal)
	return &c
}

func copyGrant(g grants.Grant) *grants.Grant {
	g.Asked.Scopes, g.Granted.Scopes = slices.Clone(g.Asked.Scopes), slices.Clone(g.Granted.Scopes)
	g.Seal = slices.Clone(g.Seal)
	return &g
}

func copyApproval(a grants.Approval) *grants.Approval {
	a.Terms.Scopes, a.Seal = slices.Clone(a.Terms.Scopes), slices.Clone(a.Seal)
	return &a
}

func copyDataKey(k storage.DataKey) *storage.DataKey {
	k.Wrapped, k.Seal = slices.Clone(k.Wrapped), slices.Clone(k.Seal)
	return &k
}

func copyRecord(r storage.Record) *storage.Record {
	r.Index, r.Payload, r.Seal = slices.Clone(r.Index), slices.Clone(r.Payload), slices.Clone(r.Seal)
	return &r
}

func copyDelivery(d storage.Delivery) *storage.Delivery {
	d.Payload = slices.Clone(d.Payload)
	return &d
}

func copyWindow(w storage.Window) *storage.Window {
	w.Times = slices.Clone(w.Times)
	return &w
}

func copyHead(h audit.Head) audit.Head {
	h.Edge, h.Signed = slices.Clone(h.Edge), slices.Clone(h.Signed)
	return h
}

func copyLine(l audit.Line) audit.Line {
	l.Content, l.Personal = slices.Clone(l.Content), slices.Clone(l.Personal)
	return l
}
