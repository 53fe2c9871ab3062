package adminapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type agentActivity struct {
	ID        string       `json:"id"`
	Action    audit.Action `json:"action"`
	CreatedAt string       `json:"createdAt"`
	Tool      *string      `json:"toolId"`
	ToolName  *string      `json:"toolName"`
}

func (a *api) agentActivity(x *exchange.Exchange, actor agentkey.Actor) error {
	return activity(x, actor, a.manager.AgentActivity, func(e agentkey.LoggedEvent) agentActivity {
		return agentActivity{strconv.FormatInt(e.Seq, 10), e.Action, exchange.Time(e.Time), exchange.Optional(e.Tool), exchange.Optional(e.Personal.ToolLabel)}
	})
}

type toolActivity struct {
	ID         string       `json:"id"`
	Action     audit.Action `json:"action"`
	CreatedAt  string       `json:"createdAt"`
	ActorLabel *string      `json:"actorLabel"`
}

func (a *api) toolActivity(x *exchange.Exchange, actor agentkey.Actor) error {
	return activity(x, actor, a.manager.ToolActivity, func(e agentkey.LoggedEvent) toolActivity {
		return toolActivity{strconv.FormatInt(e.Seq, 10), e.Action, exchange.Time(e.Time), exchange.Optional(e.Personal.ActorLabel)}
	})
}

// activity answers with the newest events of an item. The contract has any limit
// here, which is clamped; what is no number is none.
func activity[T any](
	x *exchange.Exchange, actor agentkey.Actor,
	read func(context.Context, agentkey.Actor, string, agentkey.ActivityInput) (agentkey.EventsPage, error), item func(agentkey.LoggedEvent) T,
) error {
	q := x.Query()
	in := agentkey.ActivityInput{Cursor: q.Text("cursor")}
	if n, err := strconv.Atoi(q.Text("limit")); err == nil || errors.Is(err, strconv.ErrRange) {
		in.Limit = max(n, 1)
	}
	id, _ := x.PathID("id")
	found, err := read(x.Ctx(), actor, id, in)
	if err != nil {
		return err
	}
	if found.Next != "" {
		x.NextPage(found.Next)
	}
	return data(x, http.StatusOK, each(found.Events, item))
}
