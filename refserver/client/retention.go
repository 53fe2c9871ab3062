package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Retention is an organization's policy of retention with what it has come to.
type Retention struct {
	ContentDays     int64      `json:"contentDays"`  // 0: for ever
	PersonalDays    int64      `json:"personalDays"` // 0: as long as the content
	UpdatedAt       *time.Time `json:"updatedAt"`
	UpdatedBy       *string    `json:"updatedBy"`
	Removed         int64      `json:"removed"`
	PersonalRemoved int64      `json:"personalRemoved"`
	RemovedBelow    int64      `json:"removedBelow"`
	RemovedAt       *time.Time `json:"removedAt"`
}

// RetentionPlan says what removing by a policy would do now.
type RetentionPlan struct {
	Content   int64      `json:"content"`
	Personal  int64      `json:"personal"`
	UpTo      *int64     `json:"upTo"` // number of the last event with something to remove
	UpToTime  *time.Time `json:"upToTime"`
	Deciding  int64      `json:"deciding"`  // old enough, and kept because access rests on them
	Held      int64      `json:"held"`      // old enough, and under a legal hold
	Unshipped int64      `json:"unshipped"` // old enough, and not yet with every sink
}

// Hold is a legal hold that stands.
type Hold struct {
	ID       string    `json:"id"`
	Scope    string    `json:"scope"` // organization, agent, tool or person
	Of       *string   `json:"of"`    // whose; of the organization none
	Reason   string    `json:"reason"`
	PlacedAt time.Time `json:"placedAt"`
	PlacedBy string    `json:"placedBy"`
}

// Erasure says what an erasure of somebody's personal parts finds, or has done.
type Erasure struct {
	Person        string `json:"person"`
	Events        int64  `json:"events"`
	Agents        int64  `json:"agents"`
	Grants        int64  `json:"grants"`
	Approvals     int64  `json:"approvals"`
	Records       int64  `json:"records"`
	Held          int64  `json:"held"`          // kept by legal holds
	Administrator bool   `json:"administrator"` // the person still is one: their label stays
}

// SinkStatus says how far the log has been shipped to a sink of the server.
type SinkStatus struct {
	Name         string     `json:"name"`
	Personal     bool       `json:"personal"`
	Shipped      int64      `json:"shipped"`
	Behind       int64      `json:"behind"`
	ShippedAt    *time.Time `json:"shippedAt"`
	Failures     int        `json:"failures"` // in a row, of the server that was asked
	FailingSince *time.Time `json:"failingSince"`
	Failure      *string    `json:"failure"`
}

// Retention reads the organization's policy of retention.
func (a *Admin) Retention(ctx context.Context) (Retention, error) {
	return get[Retention](ctx, a, "audit", "retention")
}

// SetRetention sets for how many days content and personal parts are kept; 0 is for
// ever.
func (a *Admin) SetRetention(ctx context.Context, contentDays, personalDays int64) (Retention, error) {
	return send[Retention](ctx, a, http.MethodPut, map[string]int64{"contentDays": contentDays, "personalDays": personalDays}, nil, "audit", "retention")
}

// PlanRetention says what such a policy would remove now.
func (a *Admin) PlanRetention(ctx context.Context, contentDays, personalDays int64) (RetentionPlan, error) {
	q := url.Values{"contentDays": {strconv.FormatInt(contentDays, 10)}, "personalDays": {strconv.FormatInt(personalDays, 10)}}
	var out data[RetentionPlan]
	_, err := a.c.do(ctx, call{method: http.MethodGet, path: adminPath("audit", "retention", "plan"), query: q, again: true, slow: true}, &out)
	return out.Data, err
}

// Holds lists the legal holds that stand, newest first.
func (a *Admin) Holds(ctx context.Context) ([]Hold, error) { return get[[]Hold](ctx, a, "holds") }

// PlaceHold places a legal hold on the organization, or on an agent, a tool or a
// person of this id.
func (a *Admin) PlaceHold(ctx context.Context, scope, of, reason string) (Hold, error) {
	body := map[string]string{"scope": scope, "reason": reason}
	if of != "" {
		body["of"] = of
	}
	return send[Hold](ctx, a, http.MethodPost, body, nil, "holds")
}

// LiftHold ends a legal hold.
func (a *Admin) LiftHold(ctx context.Context, id, reason string) error {
	_, err := send[none](ctx, a, http.MethodPost, reasonBody(reason), nil, "holds", id, "lift")
	return err
}

// PlanErasure says what erasing a person's personal parts would do.
func (a *Admin) PlanErasure(ctx context.Context, person string) (Erasure, error) {
	return a.erasure(ctx, person, "audit", "erasure", "plan")
}

// ErasePerson erases a person's personal parts and labels.
func (a *Admin) ErasePerson(ctx context.Context, person string) (Erasure, error) {
	return a.erasure(ctx, person, "audit", "erasure")
}

func (a *Admin) erasure(ctx context.Context, person string, path ...string) (Erasure, error) {
	var out data[Erasure]
	_, err := a.c.do(ctx, call{method: http.MethodPost, path: adminPath(path...), body: map[string]string{"person": person}, slow: true}, &out)
	return out.Data, err
}

// Shipping says how far the log has been shipped to each sink of the server.
func (a *Admin) Shipping(ctx context.Context) ([]SinkStatus, error) {
	return get[[]SinkStatus](ctx, a, "audit", "shipping")
}

// maxTail bounds a page of Tail in bytes.
const maxTail = 8 << 20

// Tail gives the lines of the log from a number on, as audit.ParseShipped reads
// them, at most 500. It is empty when there are no more yet.
func (a *Admin) Tail(ctx context.Context, from int64, personal bool) ([]byte, error) {
	q := url.Values{"from": {strconv.FormatInt(from, 10)}, "limit": {pageSize}}
	if personal {
		q.Set("personal", "1")
	}
	res, err := a.c.answer(ctx, call{method: http.MethodGet, path: adminPath("audit", "tail"), query: q, again: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxTail+1))
	if err != nil {
		return nil, transportError(err)
	}
	if len(text) > maxTail {
		return nil, ErrAnswer
	}
	return text, nil
}
