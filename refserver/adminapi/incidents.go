package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

type incidentCredential struct {
	Credential     string               `json:"credentialId"`
	Revision       int64                `json:"revision"`
	Tool           string               `json:"toolId"`
	ToolName       *string              `json:"toolName"`
	Vends          int64                `json:"vends"`
	Agents         int64                `json:"agents"`
	First          string               `json:"firstVendAt"`
	FirstSeq       int64                `json:"firstVendSeq"`
	Last           string               `json:"lastVendAt"`
	LastSeq        int64                `json:"lastVendSeq"`
	State          agentkey.VendedState `json:"state"`
	ReplacedAt     *string              `json:"replacedAt"`
	RotateUpstream bool                 `json:"rotateUpstream"`
}

type incidentSummary struct {
	SubjectType  string               `json:"subjectType"`
	Subject      string               `json:"subjectId"`
	Name         *string              `json:"name"`
	Agent        *string              `json:"agentId"` // of a key
	Since        string               `json:"since"`
	Until        string               `json:"until"`
	At           string               `json:"madeAt"`
	Size         int64                `json:"logSize"`
	Checkpoint   string               `json:"checkpoint"`
	Total        int64                `json:"total"`
	Vends        int64                `json:"vends"`
	Refusals     int64                `json:"refusals"`
	Failures     int64                `json:"failedAuthentication"`
	Acts         int64                `json:"administration"`
	Agents       int64                `json:"agents"`
	Strangers    *int64               `json:"failedByStrangers"` // null: counted for all organizations together
	RemovedBelow int64                `json:"removedBelow"`
	Incomplete   bool                 `json:"incomplete"`
	Erased       int64                `json:"erased"`
	Credentials  []incidentCredential `json:"credentials"`
}

type incidentEvent struct {
	Kind    agentkey.IncidentKind `json:"kind"`
	Address *string               `json:"address"`
	eventItem
}

// incident streams a report: the summary, the open grants and the events, in one
// JSON object.
func (a *api) incident(x *exchange.Exchange, actor agentkey.Actor) error {
	q := x.Query()
	q.Only("agent", "tool", "key", "digest", "ip", "since", "until")
	in := agentkey.IncidentInput{
		Agent: q.ID("agent"), Tool: q.ID("tool"), Key: q.ID("key"), Digest: q.Text("digest"), Address: q.Text("ip"),
	}
	if q.Has("since") {
		in.Since = time.UnixMicro(q.Micros("since"))
	}
	if q.Has("until") {
		in.Until = time.UnixMicro(q.Micros("until"))
	}
	if err := q.Err(); err != nil {
		return err
	}
	return x.Stream("application/json", "incident.json", auditTime, func(ctx context.Context, w *exchange.StreamWriter) error {
		r, err := a.manager.IncidentReport(ctx, actor, in)
		if err != nil {
			return err
		}
		return writeIncident(ctx, w, r)
	})
}

func writeIncident(ctx context.Context, w io.Writer, r agentkey.IncidentReport) error {
	summary, err := json.Marshal(summaryOf(r))
	if err != nil {
		return err
	}
	if _, err := w.Write(append([]byte(`{"data":`), bytes.TrimSuffix(summary, []byte("}"))...)); err != nil {
		return err
	}
	if err := writeList(w, "openGrants", r.OpenGrants(ctx), namedOf); err != nil {
		return err
	}
	err = writeList(w, "events", r.Events(ctx), func(e agentkey.IncidentEvent) incidentEvent {
		return incidentEvent{e.Kind, exchange.Optional(e.Personal.Address), eventOf(e.LoggedEvent)}
	})
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "}}\n")
	return err
}

// writeList writes a member that is a list, item by item.
func writeList[T, U any](w io.Writer, name string, items iter.Seq2[T, error], item func(T) U) error {
	text := []byte(`,"` + name + `":[`)
	for v, err := range items {
		if err != nil {
			return err
		}
		b, err := json.Marshal(item(v))
		if err != nil {
			return err
		}
		if _, err := w.Write(append(text, b...)); err != nil {
			return err
		}
		text = []byte(",")
	}
	if text[0] == ',' && len(text) > 1 {
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, "]")
	return err
}

func summaryOf(r agentkey.IncidentReport) incidentSummary {
	s := incidentSummary{
		r.Subject.Kind, r.Subject.ID, exchange.Optional(r.Name), exchange.Optional(r.Agent), exchange.Time(r.Since), exchange.Time(r.Until), exchange.Time(r.At),
		r.Checkpoint.Size, string(r.Checkpoint.Signed), r.Total, r.Vends, r.Refusals, r.Failures, r.Acts, r.Agents, &r.Strangers,
		r.RemovedBelow, r.Incomplete, r.Erased, each(r.Credentials, func(c agentkey.VendedCredential) incidentCredential {
			return incidentCredential{
				c.Credential, c.Revision, c.Tool, exchange.Optional(c.ToolName), c.Vends, c.Agents, exchange.Time(c.First), c.FirstSeq,
				exchange.Time(c.Last), c.LastSeq, c.State, exchange.OptionalTime(c.ReplacedAt), c.RotateUpstream(),
			}
		}),
	}
	if r.Strangers < 0 {
		s.Strangers = nil
	}
	return s
}

// leakedKey takes an administrator's report of a key or token that was found.
func (a *api) leakedKey(x *exchange.Exchange, actor agentkey.Actor) error {
	in := agentkey.LeakReport{Source: "person"}
	err := x.Read(needed, func(f *exchange.Fields) {
		f.Secret("credential", &in.Secret)
		f.Text("url", &in.URL)
	})
	defer in.Secret.Destroy()
	if err != nil {
		return err
	}
	leaked, err := a.manager.ReportOwnLeak(x.Ctx(), actor, in)
	if err != nil {
		return err
	}
	return data(x, http.StatusOK, struct {
		Known bool            `json:"known"`
		Type  agentkey.Leaked `json:"type"`
	}{leaked != agentkey.LeakedNothing, leaked})
}
