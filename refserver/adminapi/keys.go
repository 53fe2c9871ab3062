package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
	"github.com/agentkey-dev/agentkey-go/vault"
)

type dataKeyItem struct {
	ID        string         `json:"id"`
	Purpose   vault.Purpose  `json:"purpose"`
	State     vault.KeyState `json:"state"`
	Lifecycle string         `json:"lifecycle"`
	CreatedAt string         `json:"createdAt"`
	Provider  string         `json:"provider"`
	Rewrap    bool           `json:"rewrap"`
	Seals     int64          `json:"seals"`
	MaxSeals  int64          `json:"maxSeals"`
	Values    int64          `json:"values"`
	Rows      int64          `json:"rows"`
}

type rotationItem struct {
	RequestedAt string  `json:"requestedAt"`
	Done        int64   `json:"done"`
	Total       int64   `json:"total"`
	UpdatedAt   *string `json:"updatedAt"`
}

type keysItem struct {
	Provider    string           `json:"provider"`
	Keys        []dataKeyItem    `json:"keys"`
	Rewrap      int              `json:"rewrap"`
	Counted     bool             `json:"counted"`
	Reseal      int64            `json:"reseal"`
	Resealing   *rotationItem    `json:"resealing"`
	Destruction *destructionItem `json:"destruction"`
}

type outerKeyItem struct {
	ID    string `json:"id"`
	State string `json:"state"`
	InUse bool   `json:"inUse"`
}

type destructionItem struct {
	DestroyedAt string         `json:"destroyedAt"`
	Pending     bool           `json:"pending"`
	OuterKeys   []outerKeyItem `json:"outerKeys"`
}

func destructionOf(d agentkey.Destruction) *destructionItem {
	return &destructionItem{exchange.Time(d.DestroyedAt.UnixMicro()), d.Pending, each(d.Outer, func(k agentkey.OuterKey) outerKeyItem { return outerKeyItem(k) })}
}

// answerKeys answers the state of keys with a status.
func answerKeys(x *exchange.Exchange, status int, s agentkey.KeysStatus, err error) error {
	if err != nil {
		return err
	}
	out := keysItem{
		Provider: s.Provider, Rewrap: s.Rewrap, Counted: s.Counted, Reseal: s.Reseal,
		Keys: each(s.Keys, func(k agentkey.KeyInfo) dataKeyItem {
			return dataKeyItem{
				k.ID, k.Purpose, k.State, k.Lifecycle, exchange.Time(k.CreatedAt.UnixMicro()), k.Provider, k.Rewrap, k.Seals, k.MaxSeals, k.Values, k.Rows,
			}
		}),
	}
	if r := s.Resealing; r != nil {
		out.Resealing = &rotationItem{RequestedAt: exchange.Time(r.RequestedAt.UnixMicro()), Done: r.Done, Total: r.Total}
		if !r.UpdatedAt.IsZero() {
			at := exchange.Time(r.UpdatedAt.UnixMicro())
			out.Resealing.UpdatedAt = &at
		}
	}
	if d := s.Destruction; d != nil {
		out.Destruction = destructionOf(*d)
	}
	return data(x, status, out)
}

// getKeys shows the data keys. With count it reads all rows and values.
func (a *api) getKeys(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	q.Only("count")
	in := agentkey.KeysStatusInput{Count: q.Flag("count")}
	if err := q.Err(); err != nil {
		return err
	}
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	s, err := a.manager.KeysStatus(ctx, actor, in)
	return answerKeys(x, http.StatusOK, s, err)
}

func (a *api) rotateKeys(x *exchange.Exchange, actor agentkey.Actor) error {
	var purposes []string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Texts("purposes", &purposes) }); err != nil {
		return err
	}
	var in agentkey.RotateDataKeysInput
	for _, p := range purposes {
		in.Purposes = append(in.Purposes, vault.Purpose(p))
	}
	s, err := a.manager.RotateDataKeys(x.Ctx(), actor, in)
	return answerKeys(x, http.StatusOK, s, err)
}

// resealKeys asks for the re-sealing, which the server does after its answer.
func (a *api) resealKeys(x *exchange.Exchange, actor agentkey.Actor) error {
	s, err := a.manager.Reseal(x.Ctx(), actor)
	return answerKeys(x, http.StatusAccepted, s, err)
}

func (a *api) planDestruction(x *exchange.Exchange, actor agentkey.Actor) error {
	p, err := a.manager.PlanDestruction(x.Ctx(), actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		Organization string   `json:"organizationId"`
		Name         string   `json:"name"`
		DataKeys     []string `json:"dataKeys"`
		OuterKeys    []string `json:"outerKeys"`
		Confirmation string   `json:"confirmation"`
	}{p.Organization, p.Name, p.DataKeys, p.Outer, p.Confirmation})
}

func (a *api) destroyOrganization(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.DestroyOrganizationInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("name", &in.Name)
		f.Text("confirmation", &in.Confirmation)
		f.Text("reason", &in.Reason)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	d, err := a.manager.DestroyOrganization(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, destructionOf(d))
}
