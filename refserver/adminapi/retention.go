package adminapi

import (
	"context"
	"net/http"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type retentionItem struct {
	ContentDays     int64   `json:"contentDays"`
	PersonalDays    int64   `json:"personalDays"`
	UpdatedAt       *string `json:"updatedAt"`
	UpdatedBy       *string `json:"updatedBy"`
	Removed         int64   `json:"removed"`
	PersonalRemoved int64   `json:"personalRemoved"`
	RemovedBelow    int64   `json:"removedBelow"`
	RemovedAt       *string `json:"removedAt"`
}

func answerRetention(x *exchange.Exchange) func(agentkey.Retention, error) error {
	return func(r agentkey.Retention, err error) error {
		if err != nil {
			return err
		}
		return data(x, http.StatusOK, retentionItem{
			r.ContentDays, r.PersonalDays, exchange.OptionalTime(r.UpdatedAt), exchange.Optional(r.UpdatedBy),
			r.Removed, r.PersonalRemoved, r.RemovedBelow, exchange.OptionalTime(r.RemovedAt),
		})
	}
}

func (a *api) getRetention(x *exchange.Exchange, actor agentkey.Actor) error {
	return answerRetention(x)(a.manager.Retention(x.Ctx(), actor))
}

func (a *api) setRetention(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.RetentionPolicy
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Int("contentDays", &in.ContentDays)
		f.Int("personalDays", &in.PersonalDays)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	return answerRetention(x)(a.manager.SetRetention(x.Ctx(), actor, in))
}

// planRetention says what a policy would remove now. It reads the whole log.
func (a *api) planRetention(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	q.Only("contentDays", "personalDays")
	in := agentkey.RetentionPolicy{ContentDays: q.Number("contentDays"), PersonalDays: q.Number("personalDays")}
	if err := q.Err(); err != nil {
		return err
	}
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	p, err := a.manager.PlanRetention(ctx, actor, in)
	if err != nil {
		return err
	}
	out := struct {
		Content   int64   `json:"content"`
		Personal  int64   `json:"personal"`
		UpTo      *int64  `json:"upTo"`
		UpToTime  *string `json:"upToTime"`
		Deciding  int64   `json:"deciding"`
		Held      int64   `json:"held"`
		Unshipped int64   `json:"unshipped"`
	}{Content: p.Content, Personal: p.Personal, Deciding: p.Deciding, Held: p.Held, Unshipped: p.Unshipped}
	if p.UpTo >= 0 {
		out.UpTo, out.UpToTime = &p.UpTo, exchange.OptionalTime(p.UpToTime)
	}
	return data(x, http.StatusOK, out)
}

type holdItem struct {
	ID       string             `json:"id"`
	Scope    agentkey.HoldScope `json:"scope"`
	Of       *string            `json:"of"`
	Reason   string             `json:"reason"`
	PlacedAt string             `json:"placedAt"`
	PlacedBy string             `json:"placedBy"`
}

func holdOf(h agentkey.Hold) holdItem {
	return holdItem{h.Key, h.Scope, exchange.Optional(h.ID), h.Reason, exchange.Time(h.PlacedAt), h.PlacedBy}
}

func (a *api) listHolds(x *exchange.Exchange, actor agentkey.Actor) error {
	all, err := a.manager.Holds(x.Ctx(), actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, each(all, holdOf))
}

func (a *api) placeHold(x *exchange.Exchange, actor agentkey.Actor) error {
	var in agentkey.HoldInput
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Text("scope", (*string)(&in.Scope))
		f.Text("of", &in.ID)
		f.Text("reason", &in.Reason)
		f.Check(a.manager.CheckInput, &in)
	})
	if err != nil {
		return err
	}
	h, err := a.manager.PlaceHold(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	return data(x, http.StatusCreated, holdOf(h))
}

func (a *api) liftHold(x *exchange.Exchange, actor agentkey.Actor) error {
	var reason string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Text("reason", &reason) }); err != nil {
		return err
	}
	id, _ := x.PathID("id")
	if err := a.manager.LiftHold(x.Ctx(), actor, id, reason); err != nil {
		return err
	}
	return done(x)
}

func (a *api) planErasure(x *exchange.Exchange, actor agentkey.Actor) error {
	return a.erasure(x, actor, a.manager.PlanErasure)
}

func (a *api) erasePerson(x *exchange.Exchange, actor agentkey.Actor) error {
	return a.erasure(x, actor, a.manager.ErasePerson)
}

func (a *api) erasure(x *exchange.Exchange, actor agentkey.Actor, do func(context.Context, agentkey.Actor, string) (agentkey.Erasure, error)) error {
	var person string
	if err := x.Read(needed, func(f *exchange.Fields) { f.Text("person", &person) }); err != nil {
		return err
	}
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	e, err := do(ctx, actor, person)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		Person        string `json:"person"`
		Events        int64  `json:"events"`
		Agents        int64  `json:"agents"`
		Grants        int64  `json:"grants"`
		Approvals     int64  `json:"approvals"`
		Records       int64  `json:"records"`
		Held          int64  `json:"held"`
		Administrator bool   `json:"administrator"`
	}{e.Person, e.Events, e.Agents, e.Grants, e.Approvals, e.Records, e.Held, e.Administrator})
}

// tail gives the lines from a number on, as they are shipped. An empty answer
// says that there are no more yet.
func (a *api) tail(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	q.Only("from", "limit", "personal")
	in := agentkey.TailInput{From: q.Number("from"), Limit: q.Limit(), Personal: q.Flag("personal")}
	if err := q.Err(); err != nil {
		return err
	}
	page, err := a.manager.Tail(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	var body []byte
	for _, l := range page.Lines {
		text, err := l.Shipped(page.Origin)
		if err != nil {
			return err
		}
		body = append(append(body, text...), '\n')
	}
	return x.Bytes(http.StatusOK, "application/x-ndjson", body)
}

type sinkItem struct {
	Name      string  `json:"name"`
	Personal  bool    `json:"personal"`
	Shipped   int64   `json:"shipped"`
	Behind    int64   `json:"behind"`
	ShippedAt *string `json:"shippedAt"`
	Failures  int     `json:"failures"`
	FailingAt *string `json:"failingSince"`
	Failure   *string `json:"failure"`
}

func (a *api) shipping(x *exchange.Exchange, actor agentkey.Actor) error {
	all, err := a.manager.Shipping(x.Ctx(), actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, each(all, func(s agentkey.SinkStatus) sinkItem {
		return sinkItem{
			s.Name, s.Personal, s.Shipped, s.Behind, exchange.OptionalTime(s.ShippedAt),
			s.Failures, exchange.OptionalTime(s.FailingAt), exchange.Optional(s.Failure),
		}
	}))
}
