package agentkey

import (
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// rowRef names a row.
type rowRef struct {
	kind, id string
	of       storage.CredentialRef // of a credential; of an approval, its grant
}

// sealedValue is a value that is sealed to its place, with what is known of the
// row that holds it: a credential, or a record of kindWebhook. Whatever is done
// with all that an organization has sealed is done with these.
type sealedValue struct {
	rowRef
	revision int64 // of the row
	seal     []byte
	place    vault.Place
	sealed   []byte
}

func credentialValue(installation string, c storage.Credential) sealedValue {
	return sealedValue{
		rowRef:   rowRef{audit.KindCredential, c.ID, storage.CredentialRef{Tool: c.Tool, Grant: c.Grant}},
		revision: c.Revision, seal: c.Seal, place: c.Place(installation), sealed: c.Sealed,
	}
}

// webhookValue is the value of a record of kindWebhook. One whose payload can't be
// read has none that is sealed in a known form.
func webhookValue(installation string, r storage.Record) sealedValue {
	p, _ := parsePayload[webhookPayload](r)
	return sealedValue{
		rowRef: rowRef{kind: r.Kind, id: r.ID}, revision: r.Revision, seal: r.Seal,
		place: webhookPlace(installation, r, p), sealed: p.Sealed,
	}
}

// value gives the value of a row as this unit has read it.
func (u *unit) value(ref rowRef) (sealedValue, bool) {
	if ref.kind == audit.KindCredential {
		c, ok := u.credentials[ref.of]
		return credentialValue(u.installation, c), ok && c.ID == ref.id
	}
	r, ok := u.records[recordRef{ref.kind, ref.id}]
	return webhookValue(u.installation, r), ok
}

// putValue writes a value that was sealed anew into the row that was read.
func (u *unit) putValue(e *entry, v sealedValue) error {
	if v.kind == audit.KindCredential {
		c := u.credentials[v.of]
		c.Revision, c.SealedRevision, c.Sealed = v.revision, v.place.Revision, v.sealed
		return u.putCredential(e, c, true)
	}
	r := u.records[recordRef{v.kind, v.id}]
	p, err := parsePayload[webhookPayload](r)
	if err != nil {
		return err
	}
	r.Revision, p.SealedRevision, p.Sealed = v.revision, v.place.Revision, v.sealed
	return u.putWebhook(e, r, p)
}

// justSealed notes in the event that a value was sealed, under a key that still seals.
func (u *unit) justSealed(e *entry, kind, id string, sealed []byte) error {
	if key, err := vault.SealedKeyID(sealed); err != nil || u.states[key] != vault.KeyActive {
		return errRetired
	}
	digest := vault.SealedDigest(sealed)
	e.Sealed = append(e.Sealed, audit.SealedRef{Kind: kind, ID: id, Digest: digest[:]})
	return nil
}
