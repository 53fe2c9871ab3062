package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// byHand vends without a Manager: one transaction for each vend, with the same
// prepared statements, seals, signature, event and receipt. It is what coalescing is
// measured against, and is nobody's to use: it knows one answer only.
type byHand struct {
	t      *testing.T
	store  storage.Store
	rows   *vault.RowSealer
	opener *vault.Opener
	signer *audit.Signer

	installation, organization, agent, tool, grant, credential string
}

func newByHand(t *testing.T, store storage.Store) *byHand {
	h := &byHand{t: t, store: store}
	for _, id := range []*string{&h.installation, &h.organization, &h.agent, &h.tool, &h.grant, &h.credential} {
		*id = uuid.Must(uuid.NewV7()).String()
	}
	keys := make(map[vault.Purpose]*vault.DataKey)
	for _, p := range []vault.Purpose{vault.PurposeRow, vault.PurposeSeal, vault.PurposeSign} {
		key, err := vault.NewDataKey(p)
		if err != nil {
			t.Fatal(err)
		}
		keys[p] = key
	}
	seed, err := keys[vault.PurposeSign].SigningSeed()
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := vault.NewSealer(keys[vault.PurposeSeal])
	var errs [3]error
	h.rows, errs[0] = vault.NewRowSealer(keys[vault.PurposeRow])
	h.opener, errs[1] = vault.NewOpener(keys[vault.PurposeSeal])
	h.signer, errs[2] = audit.NewSigner(audit.SignerName(h.installation), seed.Bytes())
	if err := errors.Join(append(errs[:], err)...); err != nil {
		t.Fatal(err)
	}
	c := storage.Credential{
		Organization: h.organization, ID: h.credential, Tool: h.tool, Revision: 1, Status: storage.CredentialActive, AuthType: "api_key", SealedRevision: 1,
	}
	if c.Sealed, err = sealer.Seal(c.Place(h.installation), vault.NewSecret([]byte("lin_api_test_gates"))); err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context(), h.organization, func(ctx context.Context, tx storage.Tx) error { return h.furnish(ctx, tx, keys, c) }); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *byHand) seal(r vault.Row) []byte {
	seal, err := h.rows.Seal(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return seal
}

func (h *byHand) furnish(ctx context.Context, tx storage.Tx, keys map[vault.Purpose]*vault.DataKey, c storage.Credential) error {
	o := storage.Organization{ID: h.organization, Name: "By hand", Revision: 1}
	o.Seal = h.seal(o.Row(h.installation))
	a := storage.Agent{Organization: h.organization, ID: h.agent, Name: "bot", Status: storage.AgentActive, Revision: 1}
	a.Seal = h.seal(a.Row(h.installation))
	tool := storage.Tool{Organization: h.organization, ID: h.tool, ConfigKey: "linear", Name: "Linear", Mode: storage.Shared, RequiredApprovals: 1, Revision: 1}
	tool.Seal = h.seal(tool.Row(h.installation))
	g := grants.Grant{
		Organization: h.organization, ID: h.grant, Agent: h.agent, Tool: h.tool, Status: grants.StatusApproved, Cycle: 1, RequiredApprovals: 1, Approvals: 1, Revision: 1, ApprovedAt: 1,
	}
	g.Seal = h.seal(storage.GrantRow(h.installation, g))
	c.Seal = h.seal(c.Row(h.installation))
	var oks [7]bool
	var errs [7]error
	oks[0], errs[0] = tx.PutOrganization(ctx, o)
	oks[1], errs[1] = tx.PutAgent(ctx, a)
	oks[2], errs[2] = tx.PutTool(ctx, tool)
	oks[3], errs[3] = tx.PutGrant(ctx, g)
	oks[4], errs[4] = tx.PutCredential(ctx, c)
	i := 5
	for purpose, key := range keys {
		if purpose == vault.PurposeSign { // the installation's
			continue
		}
		k := storage.DataKey{
			Organization: h.organization, ID: key.ID(), Purpose: purpose, State: vault.KeyActive, Provider: "none", Wrapped: make([]byte, 78), Revision: 1,
		}
		k.Seal = h.seal(k.Row(h.installation))
		oks[i], errs[i] = tx.PutDataKey(ctx, k)
		i++
	}
	for _, ok := range oks {
		if !ok {
			errs[0] = errors.Join(errs[0], errors.New("a record was not put"))
		}
	}
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	_, err := h.record(ctx, tx)
	return err
}

// vend is one vend in one transaction.
func (h *byHand) vend(ctx context.Context) error {
	var secret *vault.Secret
	var x audit.Extension
	q := storage.BulkQuery{Agents: []string{h.agent}, Tools: []string{h.tool}, Pairs: []storage.Pair{{Agent: h.agent, Tool: h.tool}}, Credentials: true}
	err := storage.UpdateBulk(ctx, h.store, h.organization, q, func(ctx context.Context, tx storage.Tx) (err error) {
		b, err := storage.ReadBulk(ctx, tx, q)
		if err != nil {
			return err
		}
		if secret, err = h.decide(b); err != nil {
			return err
		}
		x, err = h.record(ctx, tx)
		return err
	})
	secret.Destroy()
	if err == nil {
		_ = x.Receipt(0)
	}
	return err
}

// decide checks every row's seal and opens the credential.
func (h *byHand) decide(b storage.Bulk) (*vault.Secret, error) {
	rows := []vault.Row{b.Organization.Row(h.installation), b.Agents[0].Row(h.installation), b.Tools[0].Row(h.installation), storage.GrantRow(h.installation, b.Grants[0]), b.Credentials[0].Row(h.installation)}
	seals := [][]byte{b.Organization.Seal, b.Agents[0].Seal, b.Tools[0].Seal, b.Grants[0].Seal, b.Credentials[0].Seal}
	for _, k := range b.DataKeys {
		rows, seals = append(rows, k.Row(h.installation)), append(seals, k.Seal)
	}
	for i, r := range rows {
		if err := h.rows.Verify(r, seals[i]); err != nil {
			return nil, err
		}
	}
	d := grants.Decide(&b.Grants[0], grants.Facts{Intact: true, AgentActive: true, ToolPresent: true, Credential: grants.CredentialFacts{Present: true}}, time.Now().UnixMicro())
	if !d.Allowed {
		return nil, errors.New("not allowed")
	}
	return h.opener.Open(b.Credentials[0].Place(h.installation), b.Credentials[0].Sealed)
}

// record appends the vend's event and signs the head.
func (h *byHand) record(ctx context.Context, tx storage.Tx) (audit.Extension, error) {
	head, err := tx.Head(ctx)
	if err != nil {
		return audit.Extension{}, err
	}
	tree, err := audit.ParseTree(head.Size, head.Edge)
	if err != nil {
		return audit.Extension{}, err
	}
	head.Epoch = 1
	personal := audit.Personal{Salt: audit.NewSalt(), ActorLabel: "bot", AgentLabel: "bot", ToolLabel: "Linear"}
	part, err := personal.Encode()
	if err != nil {
		return audit.Extension{}, err
	}
	x, err := audit.Extend(head.Head, tree, []audit.Event{{
		Organization: h.organization, Seq: head.Size, Time: max(time.Now().UnixMicro(), head.Time), Actor: audit.Actor{Kind: audit.ActorAgent, ID: h.agent, Auth: "trusted"},
		Action: audit.ActionCredentialVended, Outcome: audit.OutcomeOK, Target: audit.Ref{Kind: audit.KindTool, ID: h.tool}, Agent: h.agent, Tool: h.tool,
		Grant: audit.GrantRef{ID: h.grant, Revision: 1, Cycle: 1}, Credential: audit.CredentialRef{ID: h.credential, Revision: 1},
		Node: "test", Software: "agentkey/0.1.0", Salt: audit.NewSalt(), Personal: audit.HashPersonal(part),
	}}, h.signer)
	if err != nil {
		return audit.Extension{}, err
	}
	seal, err := h.rows.Seal(storage.HeadRow(h.installation, h.organization, x.Head))
	if err != nil {
		return audit.Extension{}, err
	}
	return x, tx.Append(ctx, storage.Append{
		Lines: []audit.Line{{Seq: head.Size, Content: x.Contents[0], Leaf: x.Leaves[0], Personal: part}}, Head: x.Head, Seal: seal, Keep: x.Head.Size%256 == 0,
	})
}
