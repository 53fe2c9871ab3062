package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type checkpoint struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	Signed string `json:"checkpoint"`
}

// checkpoint is the newest signed head, for whoever keeps it elsewhere.
func (a *api) checkpoint(x *exchange.Exchange, actor agentkey.Actor) error {
	c, err := a.manager.LatestCheckpoint(x.Ctx(), actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, checkpoint{c.Origin, c.Size, c.Root.String(), string(c.Signed)})
}

// number reads a parameter that a proof can't do without.
func number(q *exchange.Query, name string) int64 {
	if !q.Has(name) {
		q.Refuse(name, "is required")
	}
	return q.Number(name)
}

// inclusion proves that an event stands in the log. What is proven of a log that
// has grown by much since the last proof is read first, which may take long.
func (a *api) inclusion(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	seq, size := number(q, "seq"), q.Number("size")
	if err := q.Err(); err != nil {
		return err
	}
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	proof, err := a.manager.InclusionProof(ctx, actor, seq, size)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, proof)
}

// consistency proves that the log only grew.
func (a *api) consistency(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	from, to := number(q, "from"), q.Number("to")
	if err := q.Err(); err != nil {
		return err
	}
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	proof, err := a.manager.ConsistencyProof(ctx, actor, from, to)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, proof)
}

// publicKeys are all keys that the log's signatures may be of, former ones too.
func (a *api) publicKeys(x *exchange.Exchange, _ agentkey.Actor) error {
	return data(x, http.StatusOK, struct {
		PublicKeys   []string `json:"publicKeys"`
		Installation string   `json:"installation"`
	}{a.manager.PublicKeys(), a.manager.Installation()})
}
