package agentkey

import (
	"context"
	"fmt"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// Kinds of records of suggestions. The identity of a tool stands in a record of
// its own, whose index is how a suggestion finds the tool.
const (
	kindToolSuggestion = audit.KindToolSuggestion
	kindToolSupporter  = "tool_supporter" // id: the suggestion's, a slash, the agent's
	kindToolIdentity   = "tool_identity"  // id: the tool's
)

// Indexes of these records.
const (
	indexName       = "name"       // of tools; of suggestions that are pending or dismissed, with a mark
	indexDomain     = "domain"     // likewise
	indexConverting = "converting" // of accepted suggestions with supporters whose requests are not open yet
)

// suggestedTools are the tool suggestions of the inbox.
func suggestedTools(ctx context.Context, tx storage.ReadTx, u *unit, found []storage.Record) ([]InboxItem, error) {
	all, err := u.suggestionViews(ctx, tx, found)
	if err != nil {
		return nil, err
	}
	out := make([]InboxItem, len(all))
	for i := range all {
		out[i] = InboxItem{Kind: InboxToolSuggestion, ID: all[i].ID, RequestedAt: all[i].LastRequestedAt, ToolSuggestion: &all[i]}
	}
	return out, nil
}

// timestamp is a time as a detail of an event.
func timestamp(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000Z")
}

// suggestion is the record of a tool suggestion.
type suggestion struct {
	id       string
	revision int64
	updated  int64
	suggestionPayload
}

type suggestionPayload struct {
	Name             string             `json:"name"`
	URL              string             `json:"url,omitempty"`
	Status           SuggestionStatus   `json:"status"`
	CreatedBy        string             `json:"created_by"`
	Supporters       int64              `json:"supporters"`
	Latest           []supporterPayload `json:"latest"` // the newest of them, so that a list needs no read for each
	FirstRequestedAt int64              `json:"first_requested_at"`
	LastRequestedAt  int64              `json:"last_requested_at"`
	DismissedUntil   int64              `json:"dismissed_until,omitempty"`
	Tool             string             `json:"tool,omitempty"`
	Conversion       *conversion        `json:"conversion,omitempty"` // nil: nothing is left to do
}

func parseSuggestion(r storage.Record) (*suggestion, error) {
	p, err := parsePayload[suggestionPayload](r)
	return &suggestion{id: r.ID, revision: r.Revision, updated: r.UpdatedAt, suggestionPayload: p}, err
}

// suggestion gives a suggestion that was read.
func (u *unit) suggestion(id string) (s *suggestion, ok bool, err error) {
	r, ok := u.records[recordRef{kindToolSuggestion, id}]
	if !ok {
		return nil, false, nil
	}
	s, err = parseSuggestion(r)
	return s, err == nil, err
}

// putSuggestion writes a suggestion as the target of the event that reports it.
func (u *unit) putSuggestion(e *entry, s *suggestion) error {
	e.Target = audit.Ref{Kind: audit.KindToolSuggestion, ID: s.id}
	e.personal.ToolLabel = s.Name
	if s.URL != "" {
		if e.personal.Extra == nil {
			e.personal.Extra = make(map[string]string)
		}
		e.personal.Extra["url"] = s.URL
	}
	s.revision++
	return u.putPayload(e, storage.Record{
		Kind: kindToolSuggestion, ID: s.id, Index: s.index(u.now), Revision: s.revision,
	}, s.suggestionPayload)
}

// index is how a suggestion is found. No two that are pending or dismissed have
// one domain, nor, of those without a domain, one name; only a name that many
// with other domains share needs the time besides, to find the newest of them.
func (s *suggestion) index(now int64) []storage.IndexEntry {
	entries := []storage.IndexEntry{{Name: indexStatus, Value: string(s.Status)}}
	if s.Status == SuggestionPending {
		entries = append(entries, storage.IndexEntry{Name: requestedIndex, Value: waitingSince(s.LastRequestedAt)})
	}
	if s.Conversion != nil {
		entries = append(entries, storage.IndexEntry{Name: indexConverting, Value: s.Tool})
	}
	if s.Status == SuggestionAccepted {
		return entries
	}
	known := identityOf(s.Name, s.URL)
	if known.domain == "" {
		return append(entries, storage.IndexEntry{Name: indexName, Value: aloneValue(known.name)})
	}
	return append(entries,
		storage.IndexEntry{Name: indexName, Value: sharedPrefix(known.name) + waitingSince(now)},
		storage.IndexEntry{Name: indexDomain, Value: indexValue(known.domain)})
}

// aloneValue is the index value of a name without a domain, sharedPrefix the
// beginning of one beside a domain. No name holds either mark.
func aloneValue(name string) string   { return indexValue(name) + "|" }
func sharedPrefix(name string) string { return indexValue(name) + "~" }

// newestShared is a scan for the newest of the suggestions with a domain that
// share a name.
func newestShared(name string) storage.Scan {
	return storage.Scan{Kind: kindToolSuggestion, Index: indexName, From: sharedPrefix(name), To: indexValue(name) + "\x7f", Descending: true, Limit: 1}
}

// only is a scan for the newest record with exactly this value.
func only(kind, index, value string) storage.Scan {
	return storage.Scan{Kind: kind, Index: index, From: value, To: value + "\x01", Descending: true, Limit: 1}
}

// first reads the first record that a scan of an index finds.
func (u *unit) first(ctx context.Context, tx storage.ReadTx, s storage.Scan) (id string, err error) {
	found, err := u.scan(ctx, tx, s)
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].ID, nil
}

// putIdentity writes what a tool is known by, if that has changed.
func (u *unit) putIdentity(e *entry, t storage.Tool) error {
	known := identityOf(t.Name, t.URL)
	var index []storage.IndexEntry
	if known.name != "" {
		index = append(index, storage.IndexEntry{Name: indexName, Value: indexValue(known.name)})
	}
	if known.domain != "" {
		index = append(index, storage.IndexEntry{Name: indexDomain, Value: indexValue(known.domain)})
	}
	old, stands := u.records[recordRef{kindToolIdentity, t.ID}]
	if stands && fmt.Sprint(old.Index) == fmt.Sprint(index) {
		return nil
	}
	return u.putRecord(e, storage.Record{Kind: kindToolIdentity, ID: t.ID, Index: index, Payload: []byte("{}"), Revision: old.Revision + 1})
}

// suggestionViews gives suggestions as administrators see them. It reads the
// names of all agents and the tools of all suggestions at once.
func (u *unit) suggestionViews(ctx context.Context, tx storage.ReadTx, found []storage.Record) ([]ToolSuggestion, error) {
	all := make([]*suggestion, len(found))
	var behind []supporterPayload
	var toolIDs []string
	for i, r := range found {
		if err := u.addRecord(r); err != nil {
			return nil, err
		}
		var err error
		if all[i], err = parseSuggestion(r); err != nil {
			return nil, err
		}
		behind = append(behind, all[i].Latest...)
		if all[i].Tool != "" {
			toolIDs = append(toolIDs, all[i].Tool)
		}
	}
	names, err := u.agentNames(ctx, tx, behind)
	if err != nil {
		return nil, err
	}
	tools, err := u.toolNames(ctx, tx, toolIDs)
	if err != nil {
		return nil, err
	}
	out := make([]ToolSuggestion, len(all))
	for i, s := range all {
		out[i] = ToolSuggestion{
			ID: s.id, Organization: u.organization, Name: s.Name, URL: s.URL, Status: s.Status, CreatedBy: s.CreatedBy,
			SupporterCount: s.Supporters, Supporters: supporters(s.Latest, names),
			FirstRequestedAt: s.FirstRequestedAt, LastRequestedAt: s.LastRequestedAt, DismissedUntil: s.DismissedUntil,
			Tool: tools[s.Tool].ID, UpdatedAt: s.updated, Revision: s.revision,
		}
	}
	return out, nil
}
