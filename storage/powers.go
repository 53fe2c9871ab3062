package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// Pinger is an optional power of a Store: a cheap round trip to the database.
// Without it, readiness is judged by Organizations.
type Pinger interface {
	Ping(ctx context.Context) error
}

// Summarizer is an optional power of a ReadTx: what a page of agents or tools
// shows of their grants, in a number of statements that does not grow with the
// page. Without it the Manager asks Grants for each item.
type Summarizer interface {
	// GrantSummaries answers one summary for each id and status that has a grant,
	// in no order. What it answers is what Grants with Total would.
	GrantSummaries(ctx context.Context, q SummaryQuery) ([]GrantSummary, error)
}

// SummaryQuery asks for the grants of some agents or of some tools, but not of
// both: at most MaxIDs ids.
type SummaryQuery struct {
	Agents   []string
	Tools    []string
	Statuses []grants.Status
	Limit    int // of grants for each id and status, 1 to MaxPage
}

// GrantSummary is how many grants of a status an agent or a tool has, and the
// newest of them, in descending order of ids.
type GrantSummary struct {
	ID     string // of the agent or the tool
	Status grants.Status
	Count  int64
	Grants []grants.Grant
}

// Check answers ErrInvalid for a query over its limits.
func (q SummaryQuery) Check() error {
	if len(q.Agents)+len(q.Tools) > MaxIDs || q.Limit < 1 || q.Limit > MaxPage || (len(q.Agents) > 0 && len(q.Tools) > 0) {
		return fmt.Errorf("%w: summary", ErrInvalid)
	}
	return first(CheckText(q.Agents...), CheckText(q.Tools...))
}

// KeyLister is an optional power of a ReadTx: an agent's keys by pages. Without it
// the Manager reads all keys of the agent for each page.
type KeyLister interface {
	// AgentKeys answers an agent's keys in descending order of ids, those below
	// after (empty: from the newest on), at most limit, which is 1 to MaxPage.
	AgentKeys(ctx context.Context, agent, after string, limit int) ([]Key, error)
}

// Recency is an optional power of a Store: when something last happened to each
// of some agents, in a number of statements that does not grow with them. Without
// it the Manager looks through each agent's events.
type Recency interface {
	// LatestEvents answers, for each of these agents that has one, the time of the
	// newest event of one of these actions that concerns the agent, as an
	// audit.Filter means it. It is as complete as Events. At most MaxIDs agents.
	LatestEvents(ctx context.Context, organization string, agents []string, actions []audit.Action) (map[string]int64, error)
}

// BulkReader is an optional power of a ReadTx: everything that some decisions need,
// read in one statement. ReadBulk uses it where it is.
type BulkReader interface {
	// ReadBulk answers what the roles' own methods would, in no order. In an Update
	// it reads after the head was taken, in a statement that begins then.
	ReadBulk(ctx context.Context, q BulkQuery) (Bulk, error)
}

// BulkUpdater is an optional power of a Store whose database is some way off: the
// first bulk read of an Update travels together with what takes the head.
type BulkUpdater interface {
	// UpdateBulk is Update, and reads q right after the head was taken, in a statement
	// that begins then. The first ReadBulk is answered from that, where it asks for
	// nothing else and nothing was written before it. A q that Check refuses, or whose
	// rows can't be read, fails who reads it and not the Update.
	UpdateBulk(ctx context.Context, organization string, q BulkQuery, fn func(context.Context, Tx) error) error
}

// UpdateBulk is an Update that will read q: with the head where s is a BulkUpdater.
func UpdateBulk(ctx context.Context, s Store, organization string, q BulkQuery, fn func(context.Context, Tx) error) error {
	if b, ok := s.(BulkUpdater); ok {
		return b.UpdateBulk(ctx, organization, q, fn)
	}
	return s.Update(ctx, organization, fn)
}

// BulkQuery asks for the organization and its data keys, which are always read,
// and for records by their ids: at most MaxIDs of each sort.
type BulkQuery struct {
	Keys        []string
	Agents      []string
	Tools       []string
	Pairs       []Pair // whose grants
	Credentials bool   // of Tools, and those that belong to the grants of Pairs
	Windows     []WindowRef
}

// Bulk is what a BulkQuery finds.
type Bulk struct {
	Organization *Organization // nil: there is none
	DataKeys     []DataKey
	Keys         []Key
	Agents       []Agent
	Tools        []Tool
	Grants       []grants.Grant
	Credentials  []Credential
	Windows      []Window
}

// Covers says whether what q finds is all that other asks for, and maybe more.
func (q BulkQuery) Covers(other BulkQuery) bool {
	return (q.Credentials || !other.Credentials) && within(other.Keys, q.Keys) && within(other.Agents, q.Agents) &&
		within(other.Tools, q.Tools) && within(other.Pairs, q.Pairs) && within(other.Windows, q.Windows)
}

func within[T comparable](some, all []T) bool {
	for _, v := range some {
		if !slices.Contains(all, v) {
			return false
		}
	}
	return true
}

// Check answers ErrInvalid for a query over its limits, or with text that no id
// can be.
func (q BulkQuery) Check() error {
	if max(len(q.Keys), len(q.Agents), len(q.Tools), len(q.Pairs), len(q.Windows)) > MaxIDs {
		return fmt.Errorf("%w: bulk read", ErrInvalid)
	}
	for _, p := range q.Pairs {
		if err := CheckText(p.Agent, p.Tool); err != nil {
			return err
		}
	}
	for _, w := range q.Windows {
		if err := CheckText(w.Tier, w.Subject); err != nil {
			return err
		}
	}
	return first(CheckText(q.Keys...), CheckText(q.Agents...), CheckText(q.Tools...))
}

// ReadBulk reads what q asks for: in one statement where tx is a BulkReader, and
// else role by role.
func ReadBulk(ctx context.Context, tx ReadTx, q BulkQuery) (b Bulk, err error) {
	if r, ok := tx.(BulkReader); ok {
		return r.ReadBulk(ctx, q)
	}
	if b.DataKeys, err = tx.DataKeys(ctx); err != nil {
		return b, err
	}
	o, ok, err := tx.Organization(ctx)
	if err != nil {
		return b, err
	}
	if ok {
		b.Organization = &o
	}
	if len(q.Keys) > 0 {
		if b.Keys, err = tx.Keys(ctx, KeyQuery{IDs: q.Keys}); err != nil {
			return b, err
		}
	}
	if len(q.Pairs) > 0 {
		page, err := tx.Grants(ctx, GrantQuery{Pairs: q.Pairs})
		if err != nil {
			return b, err
		}
		b.Grants = page.Grants
	}
	if len(q.Agents) > 0 {
		page, err := tx.Agents(ctx, AgentQuery{IDs: q.Agents})
		if err != nil {
			return b, err
		}
		b.Agents = page.Agents
	}
	if len(q.Tools) > 0 {
		page, err := tx.Tools(ctx, ToolQuery{IDs: q.Tools})
		if err != nil {
			return b, err
		}
		b.Tools = page.Tools
	}
	if err := readCredentials(ctx, tx, q, &b); err != nil || len(q.Windows) == 0 {
		return b, err
	}
	b.Windows, err = tx.Windows(ctx, q.Windows)
	return b, err
}

func readCredentials(ctx context.Context, tx ReadTx, q BulkQuery, b *Bulk) error {
	if !q.Credentials {
		return nil
	}
	var refs []CredentialRef
	for _, t := range b.Tools {
		refs = append(refs, CredentialRef{Tool: t.ID})
	}
	for _, g := range b.Grants {
		refs = append(refs, CredentialRef{Tool: g.Tool, Grant: g.ID})
	}
	for part := range slices.Chunk(refs, MaxIDs) {
		found, err := tx.Credentials(ctx, part)
		if err != nil {
			return err
		}
		b.Credentials = append(b.Credentials, found...)
	}
	return nil
}
