package adminapi

import (
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type organizationItem struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Locked    bool   `json:"locked"`
	CreatedAt string `json:"createdAt"`
	UpdatedAt string `json:"updatedAt"`
}

func answerOrganization(x *exchange.Exchange) func(agentkey.Organization, error) error {
	return func(o agentkey.Organization, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, organizationItem{o.ID, o.Name, o.Locked, exchange.Time(o.CreatedAt), exchange.Time(o.UpdatedAt)})
	}
}

func (a *api) getOrganization(x *exchange.Exchange, actor agentkey.Actor) error {
	return answerOrganization(x)(a.manager.Organization(x.Ctx(), actor))
}

func (a *api) updateOrganization(x *exchange.Exchange, actor agentkey.Actor) error {
	var name string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Text("name", &name) }); err != nil {
		return err
	}
	return answerOrganization(x)(a.manager.UpdateOrganization(x.Ctx(), actor, name))
}

func (a *api) lock(x *exchange.Exchange, actor agentkey.Actor) error {
	var reason string
	if err := x.Read(optional, func(f *exchange.Fields) { f.Text("reason", &reason) }); err != nil {
		return err
	}
	return answerOrganization(x)(a.manager.Lock(x.Ctx(), actor, reason))
}

func (a *api) unlock(x *exchange.Exchange, actor agentkey.Actor) error {
	var reason string
	if err := x.Read(optional, func(f *exchange.Fields) { f.Text("reason", &reason) }); err != nil {
		return err
	}
	return answerOrganization(x)(a.manager.Unlock(x.Ctx(), actor, reason))
}

type administratorItem struct {
	ID        string        `json:"id"`
	Label     string        `json:"label"`
	Kind      string        `json:"kind"`
	Role      agentkey.Role `json:"role"`
	Removed   bool          `json:"removed"`
	CreatedAt string        `json:"createdAt"`
	UpdatedAt string        `json:"updatedAt"`
}

func administratorOf(p agentkey.Administrator) administratorItem {
	return administratorItem{p.ID, p.Label, p.Kind, p.Role, p.Removed, exchange.Time(p.CreatedAt), exchange.Time(p.UpdatedAt)}
}

func answerAdministrator(x *exchange.Exchange, status int) func(agentkey.Administrator, error) error {
	return func(p agentkey.Administrator, err error) error {
		if err != nil {
			return err
		}
		return data(x, status, administratorOf(p))
	}
}

func (a *api) listAdministrators(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := page(q)
	if err := q.Err(); err != nil {
		return err
	}
	all, err := a.manager.Administrators(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, all, in.Limit, func(p agentkey.Administrator) string { return p.ID })
	return data(x, http.StatusOK, each(all, administratorOf))
}

func (a *api) createAdministrator(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.AddAdministratorInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("label", &in.Label)
		f.Text("kind", &in.Kind)
		f.Text("role", (*string)(&in.Role))
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	return answerAdministrator(x, http.StatusCreated)(a.manager.AddAdministrator(x.Ctx(), actor, in))
}

func (a *api) updateAdministrator(x *exchange.Exchange, actor agentkey.Actor) error {
	var (
		in   agentkey.UpdateAdministratorInput
		role *string
	)
	err := x.Read(needed, func(f *exchange.Fields) {
		f.OptionalText("label", &in.Label)
		f.OptionalText("role", &role)
		in.Role = (*agentkey.Role)(role)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	id, _ := x.PathID("id")
	return answerAdministrator(x, http.StatusOK)(a.manager.UpdateAdministrator(x.Ctx(), actor, id, in))
}

func (a *api) removeAdministrator(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	if err := a.manager.RemoveAdministrator(x.Ctx(), actor, id); err != nil {
		return err
	}
	return done(x)
}

type tokenItem struct {
	ID            string  `json:"id"`
	Administrator string  `json:"administrator"`
	Name          string  `json:"name"`
	ExpiresAt     *string `json:"expiresAt"`
	Revoked       bool    `json:"revoked"`
	CreatedAt     string  `json:"createdAt"`
}

func tokenOf(t agentkey.Token) tokenItem {
	return tokenItem{t.ID, t.Administrator, t.Name, exchange.OptionalTime(t.ExpiresAt), t.Revoked, exchange.Time(t.CreatedAt)}
}

func (a *api) listTokens(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := page(q)
	if err := q.Err(); err != nil {
		return err
	}
	all, err := a.manager.Tokens(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	linkNext(x, all, in.Limit, func(t agentkey.Token) string { return t.ID })
	return data(x, http.StatusOK, each(all, tokenOf))
}

// createToken answers with the record and, this once, the token.
func (a *api) createToken(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.CreateTokenInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("administrator", &in.Administrator)
		f.Text("name", &in.Name)
		f.Seconds("expiresIn", &in.ExpiresIn)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	issued, err := a.manager.CreateToken(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	defer issued.Secret.Destroy()
	t := tokenOf(issued.Token)
	o := exchange.Enveloped()
	o.Field("id", t.ID)
	o.Field("administrator", t.Administrator)
	o.Field("name", t.Name)
	o.Field("expiresAt", t.ExpiresAt)
	o.Field("revoked", t.Revoked)
	o.Field("createdAt", t.CreatedAt)
	o.Secret("token", issued.Secret)
	return x.Secret(http.StatusCreated, o)
}

func (a *api) revokeToken(x *exchange.Exchange, actor agentkey.Actor) error {
	id, _ := x.PathID("id")
	if err := a.manager.RevokeToken(x.Ctx(), actor, id); err != nil {
		return err
	}
	return done(x)
}
