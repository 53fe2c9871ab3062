package storage

import (
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// A query finds rows by ids when it has ids, and otherwise lists, in descending
// order of ids, those below After that meet every condition, at most Limit.
// Ids that are not there are left out. A Limit outside 1 to MaxPage, or more
// than MaxIDs ids, is ErrInvalid. Total asks for the number of all rows that
// meet the conditions, whatever After and Limit; Limit may then be 0.

// AgentQuery finds agents.
type AgentQuery struct {
	IDs    []string
	Name   string
	Status AgentStatus
	After  string
	Limit  int
	Total  bool
}

// AgentPage is what an AgentQuery found.
type AgentPage struct {
	Agents []Agent
	Total  int64
}

// KeyQuery finds keys by their ids or all keys of some agents.
type KeyQuery struct {
	IDs    []string
	Agents []string
}

// ToolQuery finds tools.
type ToolQuery struct {
	IDs       []string
	Name      string
	ConfigKey string
	After     string
	Limit     int
	Total     bool
}

// ToolPage is what a ToolQuery found.
type ToolPage struct {
	Tools []Tool
	Total int64
}

// Pair names a grant by its agent and tool.
type Pair struct {
	Agent, Tool string
}

// GrantQuery finds grants by ids, by pairs, or as a list.
type GrantQuery struct {
	IDs      []string
	Pairs    []Pair
	Agent    string
	Tool     string
	Statuses []grants.Status
	After    string
	Limit    int
	Total    bool
}

// GrantPage is what a GrantQuery found.
type GrantPage struct {
	Grants []grants.Grant
	Total  int64
}

// Scan reads the records of a kind whose entry in an index lies in a range, by
// value and then by id, both bytewise.
type Scan struct {
	Kind       string
	Index      string // "": by id alone, From and To compare with ids
	From, To   string // From inclusive, To exclusive; empty: open
	AfterValue string // the cursor: the value and id of the last record seen
	AfterID    string
	Descending bool
	Limit      int
}

// LeaseQuery takes deliveries.
type LeaseQuery struct {
	Now, Until int64
	Node       string
	Limit      int
}

// Due is a record that has come to its end.
type Due struct {
	Organization string
	Kind         string // audit's kind: grant, key, credential
	ID           string
	Agent, Tool  string // of a grant; a key has its agent, a credential its tool
	Grant        string // of a credential that belongs to one
	At           int64
}

// EventQuery finds lines of a log, newest first, below Before (0: from the end).
type EventQuery struct {
	Filter audit.Filter
	Before int64
	Limit  int
	// Count asks for the number and the newest time of all lines that match,
	// whatever Before and Limit, and for no lines.
	Count bool
}

// EventPage is what an EventQuery found. Next is the Before of the next page,
// 0 when there is none.
type EventPage struct {
	Lines  []audit.Line
	Next   int64
	Count  int64
	Latest int64
}
