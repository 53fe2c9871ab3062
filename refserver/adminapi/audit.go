package adminapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// auditTime bounds how long reading a whole log may take.
const auditTime = 15 * time.Minute

type eventItem struct {
	ID           string         `json:"id"`
	Organization string         `json:"organizationId"`
	ActorType    string         `json:"actorType"`
	ActorID      *string        `json:"actorId"`
	ActorLabel   *string        `json:"actorLabel"`
	Action       audit.Action   `json:"action"`
	TargetType   *string        `json:"targetType"`
	TargetID     *string        `json:"targetId"`
	Metadata     map[string]any `json:"metadata"`
	CreatedAt    string         `json:"createdAt"`
	Seq          int64          `json:"seq"`
	Outcome      audit.Outcome  `json:"outcome"`
	Reason       *string        `json:"reason"`
	Agent        *string        `json:"agentId"`
	Tool         *string        `json:"toolId"`
	Grant        *string        `json:"grantId"`
	Request      *string        `json:"requestId"`
	Count        *int64         `json:"count"` // of aggregates
	Leaf         string         `json:"leafHash"`
	Removed      bool           `json:"personalRemoved"` // labels and texts were, by retention or an erasure
}

func eventOf(e agentkey.LoggedEvent) eventItem {
	item := eventItem{
		ID: strconv.FormatInt(e.Seq, 10), Organization: e.Organization,
		ActorType: e.Actor.Kind, ActorID: exchange.Optional(e.Actor.ID), ActorLabel: exchange.Optional(e.Personal.ActorLabel),
		Action: e.Action, TargetType: exchange.Optional(targetType(e.Target.Kind)), TargetID: exchange.Optional(e.Target.ID),
		Metadata: metadata(e), CreatedAt: exchange.Time(e.Time), Seq: e.Seq, Outcome: e.Outcome, Reason: exchange.Optional(e.Reason),
		Agent: exchange.Optional(e.Agent), Tool: exchange.Optional(e.Tool), Grant: exchange.Optional(e.Grant.ID),
		Request: exchange.Optional(e.Request), Leaf: e.Leaf.String(), Removed: e.PersonalRemoved,
	}
	if e.Count > 0 {
		item.Count = &e.Count
	}
	return item
}

func (a *api) listEvents(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	in := agentkey.EventsInput{
		Filter: audit.Filter{
			Agent: q.ID("agent_id"), Tool: q.ID("tool_id"), Grant: q.ID("grant_id"), Actor: q.Text("actor"),
			Action: audit.Action(q.Text("action")), Outcome: audit.Outcome(q.Text("outcome")),
			From: q.Micros("from"), To: q.Micros("to"),
		},
		Cursor: q.Text("cursor"), Limit: q.Limit(),
	}
	if in.Filter.To > 0 {
		// A time that was shown stands for its whole millisecond.
		in.Filter.To = audit.EndOfMillisecond(time.UnixMicro(in.Filter.To))
	}
	for _, name := range []string{"action", "actor", "outcome"} {
		if q.Has(name) && q.Text(name) == "" {
			q.Refuse(name, "must not be empty")
		}
	}
	if in.Filter.From > 0 && in.Filter.To > 0 && in.Filter.From > in.Filter.To {
		q.Refuse("to", "must not be before from")
	}
	if err := q.Err(); err != nil {
		return err
	}
	found, err := a.manager.Events(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	if found.Next != "" {
		x.NextPage(found.Next)
	}
	if found.Removed > 0 {
		x.Header().Set("AgentKey-Removed", strconv.FormatInt(found.Removed, 10))
		x.Header().Set("AgentKey-Removed-Below", strconv.FormatInt(found.RemovedBelow, 10))
	}
	return data(x, http.StatusOK, each(found.Events, eventOf))
}

type finding struct {
	From    int64  `json:"from"`
	To      int64  `json:"to"`
	Problem string `json:"problem"`
}

type verification struct {
	ok
	Events          int64     `json:"events"`
	ContentVerified int64     `json:"contentVerified"`
	HashVerified    int64     `json:"hashVerified"` // content was removed
	PersonalErased  int64     `json:"personalErased"`
	Proven          int64     `json:"proven"`
	Root            string    `json:"root"`
	Findings        []finding `json:"findings"`
	Unlisted        int64     `json:"unlistedFindings"`
}

// verify answers 200 whatever was found: the check itself went well.
func (a *api) verify(x *exchange.Exchange, actor agentkey.Actor) error {
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	r, err := a.manager.Verify(ctx, actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, verification{
		ok{r.OK()}, r.Events, r.ContentVerified, r.HashVerified, r.PersonalErased, r.Proven, r.Root.String(),
		each(r.Findings, func(f audit.Finding) finding { return finding{f.From, f.To, f.Problem} }), r.Unlisted,
	})
}

type discrepancy struct {
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Problem string `json:"problem"`
}

func (a *api) reconcile(x *exchange.Exchange, actor agentkey.Actor) error {
	ctx, cancel := x.Longer(auditTime)
	defer cancel()
	r, err := a.manager.Reconcile(ctx, actor)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		ok
		Events   int64         `json:"events"`
		Records  int64         `json:"records"`
		Findings []discrepancy `json:"findings"`
	}{ok{r.OK()}, r.Events, r.Records, each(r.Findings, func(d agentkey.Discrepancy) discrepancy {
		return discrepancy{d.Kind, d.ID, d.Problem}
	})})
}

// export streams the log, one JSON text a line, as it is signed.
func (a *api) export(x *exchange.Exchange, actor agentkey.Actor) error {
	return x.Stream("application/x-ndjson", "audit-log.jsonl", auditTime, func(ctx context.Context, w *exchange.StreamWriter) error {
		return a.manager.Export(ctx, actor, w)
	})
}

// publicKey is what the log's signatures are checked with.
func (a *api) publicKey(x *exchange.Exchange, _ agentkey.Actor) error {
	return data(x, http.StatusOK, struct {
		PublicKey    string `json:"publicKey"`
		Installation string `json:"installation"`
	}{a.manager.PublicKey(), a.manager.Installation()})
}
