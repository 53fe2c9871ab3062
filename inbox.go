package agentkey

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// InboxKind says what an item of the inbox is.
type InboxKind string

// The kinds of items: an agent's request for a tool, a tool that agents miss, and
// what they learned about one.
const (
	InboxAccessRequest         InboxKind = "access_request"
	InboxToolSuggestion        InboxKind = "tool_suggestion"
	InboxInstructionSuggestion InboxKind = "instruction_suggestion"
)

// InboxInput asks for a page of the inbox.
type InboxInput struct {
	Kind   InboxKind // empty: every kind
	Cursor string    // Next of the page before
	Limit  int       // 1 to 500; 0: 100
}

// InboxItem is something that waits for a person. Which of its parts is set
// follows from Kind.
type InboxItem struct {
	Kind                  InboxKind
	ID                    string
	RequestedAt           int64                  // microseconds; of what several asked for, the last time
	Request               *Request               // of an access request
	ToolSuggestion        *ToolSuggestion        // of a tool suggestion
	InstructionSuggestion *InstructionSuggestion // of an instruction suggestion
}

// InboxPage is a page of the inbox, what was asked for last first.
type InboxPage struct {
	Items []InboxItem
	Next  string // the Cursor of the next page; empty: there are no more
}

// inboxSource is a kind of record of which there is one for everything of an
// InboxKind that waits. Its index "requested" holds the time as waitingSince
// writes it, and only as long as it waits.
type inboxSource struct {
	kind   InboxKind
	record string
	// items makes the items of records whose seals were checked. What is no longer
	// waiting it leaves out.
	items func(ctx context.Context, tx storage.ReadTx, u *unit, found []storage.Record) ([]InboxItem, error)
}

// inboxSources are all kinds of items, in the order in which those of one time
// are listed.
func inboxSources() []inboxSource {
	return []inboxSource{
		{InboxAccessRequest, kindAccessRequest, waitingRequests},
		{InboxToolSuggestion, kindToolSuggestion, suggestedTools},
		{InboxInstructionSuggestion, kindInstructionSuggestion, waitingLearned},
	}
}

// requestedIndex is the index of records that wait for a person.
const requestedIndex = "requested"

// waitingSince writes a time so that the order of the texts is that of the times.
func waitingSince(t int64) string { return fmt.Sprintf("%020d", max(t, 0)) }

// Inbox lists what waits for a person's decision, what was asked for last first,
// across all kinds. The work and the memory of a page don't grow with the inbox.
//
// The errors: ErrForbidden, ErrInvalid, ErrLimited, ErrUnavailable.
func (m *Manager) Inbox(ctx context.Context, a Actor, in InboxInput) (InboxPage, error) {
	if err := m.authorize(ctx, a, OpReadInbox); err != nil {
		return InboxPage{}, err
	}
	limit, err := pageLimit(in.Limit)
	if err != nil {
		return InboxPage{}, err
	}
	sources := inboxSources()
	after, err := parseInboxCursor(sources, in.Cursor)
	if err != nil {
		return InboxPage{}, err
	}
	if in.Kind != "" && !slices.ContainsFunc(sources, func(s inboxSource) bool { return s.kind == in.Kind }) {
		return InboxPage{}, invalid("kind", "is not a kind of item of the inbox")
	}
	var out InboxPage
	err = m.read(ctx, a.Organization, func(ctx context.Context, tx storage.ReadTx, u *unit) error {
		out = InboxPage{Items: []InboxItem{}}
		if err := u.load(ctx, tx, &needs{}); err != nil {
			return err
		}
		var found []waiting
		for place, s := range sources {
			if in.Kind != "" && s.kind != in.Kind {
				continue
			}
			some, err := u.waiting(ctx, tx, s.record, place, after, limit+1)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		slices.SortFunc(found, waiting.compare)
		if len(found) > limit {
			found = found[:limit]
			out.Next = found[limit-1].cursor(sources)
		}
		out.Items, err = u.inboxItems(ctx, tx, sources, found)
		return err
	})
	return out, err
}

// waiting is a place in the inbox and the record that stands there.
type waiting struct {
	since  string
	source int
	id     string
	record storage.Record
}

// compare orders the latest first, then by source, then by id, the newest first.
func (w waiting) compare(o waiting) int {
	return cmp.Or(strings.Compare(o.since, w.since), cmp.Compare(w.source, o.source), strings.Compare(o.id, w.id))
}

// cursor is the place as opaque text.
func (w waiting) cursor(sources []inboxSource) string {
	text := strings.Join([]string{w.since, string(sources[w.source].kind), w.id}, "/")
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// parseInboxCursor reads what cursor wrote; nil for the beginning.
func parseInboxCursor(sources []inboxSource, text string) (*waiting, error) {
	if text == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	parts := strings.SplitN(string(b), "/", 3)
	if err != nil || len(parts) != 3 || len(parts[0]) != 20 || strings.Trim(parts[0], "0123456789") != "" || parts[2] == "" {
		return nil, invalid("cursor", "is not valid")
	}
	place := slices.IndexFunc(sources, func(s inboxSource) bool { return string(s.kind) == parts[1] })
	if place < 0 || storage.CheckText(parts[2]) != nil {
		return nil, invalid("cursor", "is not valid")
	}
	return &waiting{since: parts[0], source: place, id: parts[2]}, nil
}

// waiting reads the next records of one source that come after a place.
func (u *unit) waiting(ctx context.Context, tx storage.ReadTx, kind string, source int, after *waiting, limit int) ([]waiting, error) {
	s := storage.Scan{Kind: kind, Index: requestedIndex, Descending: true, Limit: limit}
	switch {
	case after == nil:
	case source < after.source: // its items of that time were listed before
		s.To = after.since
	case source == after.source:
		s.AfterValue, s.AfterID = after.since, after.id
	default:
		s.To = after.since + "\x01" // above that time, and below every later one
	}
	found, err := u.scan(ctx, tx, s)
	if err != nil {
		return nil, err
	}
	out := make([]waiting, len(found))
	for i, r := range found {
		out[i] = waiting{since: indexed(r, requestedIndex), source: source, id: r.ID, record: r}
	}
	return out, nil
}

// indexed is a record's value in an index.
func indexed(r storage.Record, index string) string {
	for _, e := range r.Index {
		if e.Name == index {
			return e.Value
		}
	}
	return ""
}

// inboxItems makes the items of what was found, in its order.
func (u *unit) inboxItems(ctx context.Context, tx storage.ReadTx, sources []inboxSource, found []waiting) ([]InboxItem, error) {
	type place struct {
		kind InboxKind
		id   string
	}
	made := make(map[place]InboxItem, len(found))
	for i, s := range sources {
		var records []storage.Record
		for _, w := range found {
			if w.source == i {
				records = append(records, w.record)
			}
		}
		if len(records) == 0 {
			continue
		}
		items, err := s.items(ctx, tx, u, records)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			made[place{s.kind, item.ID}] = item
		}
	}
	out := make([]InboxItem, 0, len(found))
	for _, w := range found {
		if item, ok := made[place{sources[w.source].kind, w.id}]; ok {
			out = append(out, item)
		}
	}
	return out, nil
}

// kindAccessRequest is the kind of record that stands beside a pending grant, by
// the grant's id: it decides nothing, but puts the grant in its place in the inbox.
const kindAccessRequest = "access_request"

// accessRequestPayload says which request of the grant it is.
type accessRequestPayload struct {
	Cycle int64 `json:"cycle"`
}

// enlist notes that a grant waits for a decision from now on.
func (u *unit) enlist(e *entry, g grants.Grant) error {
	payload, err := json.Marshal(accessRequestPayload{Cycle: g.Cycle})
	if err != nil {
		return err
	}
	return u.putRecord(e, storage.Record{
		Kind: kindAccessRequest, ID: g.ID, Payload: payload,
		Index:    []storage.IndexEntry{{Name: requestedIndex, Value: waitingSince(g.RequestedAt)}},
		Revision: 1,
	})
}

// delist notes that a grant waits no more. Pending grants are read with their
// records; one that somebody removed behind the log's back is nothing to fail by.
func (u *unit) delist(e *entry, g grants.Grant) {
	if r, ok := u.records[recordRef{kindAccessRequest, g.ID}]; ok {
		u.deleteRecord(e, r)
	}
}

// waitingRequests are the grants that still wait for the decision that the
// records say.
func waitingRequests(ctx context.Context, tx storage.ReadTx, u *unit, found []storage.Record) ([]InboxItem, error) {
	ids := make([]string, len(found))
	since := make(map[string]string, len(found))
	for i, r := range found {
		ids[i] = r.ID
		since[r.ID] = indexed(r, requestedIndex)
	}
	page, err := tx.Grants(ctx, storage.GrantQuery{IDs: ids})
	if err != nil {
		return nil, err
	}
	requests, err := u.named(ctx, tx, page.Grants)
	if err != nil {
		return nil, err
	}
	out := make([]InboxItem, 0, len(requests))
	for _, r := range requests {
		if r.Status == grants.StatusPending && waitingSince(r.RequestedAt) == since[r.ID] {
			out = append(out, InboxItem{Kind: InboxAccessRequest, ID: r.ID, RequestedAt: r.RequestedAt, Request: &r})
		}
	}
	return out, nil
}
