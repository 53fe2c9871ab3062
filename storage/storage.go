// Package storage is the contract between AgentKey and the database it keeps
// its records and its audit log in.
//
// A backend implements [Store]. The Manager does all sealing, checking and
// deciding; a backend only keeps what it is given, atomically, durably and in
// order. Package storagetest proves that a backend keeps the contract: each
// clause below is a subtest of the same name.
package storage

import (
	"context"
	"time"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
)

// System is the reserved organization whose log holds what belongs to no
// other: failed authentication, organizations, signing keys, starts.
const System = "system"

// Limits that every backend keeps.
const (
	// ViewTime bounds how long a View may run.
	ViewTime = 2 * time.Second
	// UpdateTime bounds how long an Update may wait for the head and, once it
	// holds it, how long any one of its statements may take.
	UpdateTime = 2 * time.Second
	// ResolveTime bounds how long an Update whose commit was not answered may
	// look for its outcome before it returns ErrUnknown.
	ResolveTime = 3 * time.Second
	// OutcomeTime is how long after the deadline of its context an Update, once it
	// has asked for its commit, may still wait for the outcome or look for it.
	OutcomeTime = 500 * time.Millisecond
	// MaxPage is the largest Limit of a query.
	MaxPage = 10_000
	// MaxIDs is the largest number of ids, references or lines in one call.
	MaxIDs = 10_000
)

// Store keeps the records and the log of every organization. It is safe for
// concurrent use by many goroutines and, where the backend says so, by many
// processes.
//
// The clauses, each a subtest of storagetest:
//
//   - atomic: either everything that fn did through the Tx of an Update is
//     there afterwards, or nothing; an error or a panic of fn undoes all of it.
//   - durable: an Update that returned nil survives the end of the process and
//     of the machine.
//   - serial: Updates of one organization run one after another; each sees
//     everything that those before it committed. Updates of different
//     organizations may overlap or not.
//   - alone: an Update that fails, fails alone. Whatever Updates of different
//     organizations share, each that answered nil is there afterwards, and nothing
//     of one that answered an error.
//   - head-first: an Update takes the organization's log head in a statement of
//     its own, before fn runs; every read of fn sees what was committed before
//     the head was taken, never an older state.
//   - rerun: fn may run more than once; only its last run counts.
//   - conflict-is-result: a Put that finds an id or a unique value taken, or
//     another revision than Revision-1, and a Delete that finds another
//     revision, answers false, changes nothing, and leaves the transaction
//     usable.
//   - poison: any error of a Tx method dooms the transaction: every later method
//     answers ErrPoisoned, and Update returns an error and keeps nothing, also
//     when fn returns nil.
//   - unknown: when the commit is not answered, Update finds out under the head
//     whether its lines stand at their numbers, and answers nil or an error
//     accordingly. Only when it can't find out within ResolveTime, and by
//     OutcomeTime after its context's deadline, or appended nothing, does it
//     answer ErrUnknown.
//   - nested: Update or View called with the context of a running fn answers
//     ErrNested.
//   - done: a Tx used after its fn returned answers ErrClosed.
//   - cancelled: a context that ends while fn runs, or before, undoes the Update.
//   - view: a View reads one consistent state, at least as new as every Update
//     that returned before it began, and for at most ViewTime; it never waits
//     for an Update and never makes one wait.
//   - tenant: no method reads or changes a row of another organization than the
//     one given to Update or View. A record whose Organization differs is
//     ErrInvalid. The methods of Store outside Update and View are the closed
//     list that can't know the organization yet: they only route, and what they
//     found is read again under the head.
//   - insert, update: a Put with Revision 1 inserts; with Revision n > 1 it
//     replaces the row of revision n-1, all columns but the identity (see each
//     record); where the identity differs it answers false or ErrInvalid and
//     changes nothing. Revision below 1 is ErrInvalid.
//   - roundtrip: what is put is read back equal: every byte, every int64 (also
//     its extremes), every string of valid UTF-8; empty and nil byte slices and
//     lists are equal.
//   - text: a string that is not valid UTF-8 or holds NUL is ErrInvalid.
//   - reference: a record that refers to a row that is not there is ErrInvalid.
//   - owned: a backend keeps no slice it was given and hands out none it keeps.
//   - order: lists are ordered by id, descending, bytewise; After is exclusive.
//   - limits: a limit outside 1 to MaxPage is ErrInvalid.
//   - closed: after the backend was closed, every method answers ErrClosed.
//   - context: ErrBusy, ErrUnavailable and a context's own error are never
//     reported for each other.
type Store interface {
	// Update gives fn one transaction on the organization's rows. The log of an
	// organization begins with its first Update that appends to it. An Update
	// that appends nothing is allowed.
	//
	// It answers fn's own error as it is, ErrBusy when the head could not be had
	// within UpdateTime, ErrUnavailable when the database is away, and ErrUnknown
	// as the clause says.
	Update(ctx context.Context, organization string, fn func(context.Context, Tx) error) error
	// View gives fn a consistent read of the organization's rows.
	View(ctx context.Context, organization string, fn func(context.Context, ReadTx) error) error

	// FindKey finds the key with this SHA-256 digest, whatever its organization
	// and status; ok is false when there is none.
	FindKey(ctx context.Context, digest []byte) (k Key, ok bool, err error)
	// FindRecord names the organizations that hold a record of this kind and id,
	// at most two: a second one is a reason to refuse.
	FindRecord(ctx context.Context, kind, id string) (organizations []string, err error)
	// Organizations names the organizations that have a log, System included,
	// in ascending order.
	Organizations(ctx context.Context, after string, limit int) ([]string, error)
	// Lease takes pending deliveries that are due (NextAt not after now) and not
	// leased (LeaseUntil not after now), the longest due first, sets their
	// LeaseUntil and LeaseNode and adds one to their Attempts. No delivery is
	// leased twice at a time, and no dead one ever.
	Lease(ctx context.Context, q LeaseQuery) ([]Delivery, error)
	// Due names what has come to its end at or before now and still stands as
	// active, earliest end first: approved grants, active keys, active credentials.
	Due(ctx context.Context, now int64, limit int) ([]Due, error)
	// Events finds lines of an organization's log, newest first. It is complete:
	// it knows every line that was committed before it was called. Lines whose
	// content was removed are found no more.
	Events(ctx context.Context, organization string, q EventQuery) (EventPage, error)
}

// ReadTx reads the rows of one organization. It is used by one goroutine.
type ReadTx interface {
	ReadOrganizations
	ReadAgents
	ReadTools
	ReadGrants
	ReadDataKeys
	ReadLog
	ReadRecords
	ReadLimits
}

// Tx reads and changes the rows of one organization while it holds the head of
// that organization's log. It is used by one goroutine.
type Tx interface {
	ReadTx
	WriteOrganizations
	WriteAgents
	WriteTools
	WriteGrants
	WriteDataKeys
	WriteLog
	WriteRecords
	WriteOutbox
	WriteLimits
}

// ReadOrganizations reads the organization's own record.
type ReadOrganizations interface {
	Organization(ctx context.Context) (o Organization, ok bool, err error)
}

// WriteOrganizations changes it.
type WriteOrganizations interface {
	PutOrganization(ctx context.Context, o Organization) (ok bool, err error)
}

// ReadAgents reads agents and their keys.
type ReadAgents interface {
	Agents(ctx context.Context, q AgentQuery) (AgentPage, error)
	Keys(ctx context.Context, q KeyQuery) ([]Key, error)
}

// WriteAgents changes agents and their keys.
type WriteAgents interface {
	PutAgent(ctx context.Context, a Agent) (ok bool, err error)
	PutKey(ctx context.Context, k Key) (ok bool, err error)
}

// ReadTools reads tools and credentials.
type ReadTools interface {
	Tools(ctx context.Context, q ToolQuery) (ToolPage, error)
	Credentials(ctx context.Context, refs []CredentialRef) ([]Credential, error)
}

// WriteTools changes tools and credentials.
type WriteTools interface {
	PutTool(ctx context.Context, t Tool) (ok bool, err error)
	// DeleteTool removes the tool with its credentials, its grants and their
	// approvals.
	DeleteTool(ctx context.Context, id string, revision int64) (ok bool, err error)
	PutCredential(ctx context.Context, c Credential) (ok bool, err error)
	DeleteCredential(ctx context.Context, id string, revision int64) (ok bool, err error)
}

// ReadGrants reads grants and the approvals they rest on.
type ReadGrants interface {
	Grants(ctx context.Context, q GrantQuery) (GrantPage, error)
	// Approvals reads the approvals of these grants, all cycles, oldest first.
	Approvals(ctx context.Context, grantIDs []string) ([]grants.Approval, error)
}

// WriteGrants changes them. The identity of a grant is Organization, ID, Agent
// and Tool, with one grant for an agent and a tool; that of an approval is
// Organization, Grant, Cycle, ActorKind and Actor.
type WriteGrants interface {
	PutGrant(ctx context.Context, g grants.Grant) (ok bool, err error)
	PutApproval(ctx context.Context, a grants.Approval) (ok bool, err error)
}

// ReadDataKeys reads the organization's wrapped data keys, all states.
type ReadDataKeys interface {
	DataKeys(ctx context.Context) ([]DataKey, error)
}

// WriteDataKeys changes them. At most one key of a purpose is active: a Put
// that would make a second one answers false.
type WriteDataKeys interface {
	PutDataKey(ctx context.Context, k DataKey) (ok bool, err error)
	// ReserveSeals adds n to the key's count of reserved seals and answers the
	// new count; ok is false when there is no such key. It changes no revision.
	ReserveSeals(ctx context.Context, id string, n int64) (total int64, ok bool, err error)
}

// ReadLog reads the organization's log.
type ReadLog interface {
	// Head answers the head: in an Update, as it was when it was taken or last
	// appended to; the zero Head for a log that has not begun.
	Head(ctx context.Context) (Head, error)
	// Lines reads at most limit lines in ascending order, from sequence number
	// from; lines whose content was removed have a nil Content.
	Lines(ctx context.Context, from int64, limit int) ([]audit.Line, error)
	// Checkpoints reads at most limit kept heads of a size greater than after,
	// in ascending order of size.
	Checkpoints(ctx context.Context, after int64, limit int) ([]Checkpoint, error)
}

// WriteLog changes it: it grows, and what it no longer has to hold is erased.
type WriteLog interface {
	// Append adds lines at the end and replaces the head. The lines' numbers
	// must follow the head's size without a gap, and the new head's size must
	// follow them; anything else is ErrInvalid.
	Append(ctx context.Context, a Append) error
	// Erase removes the content, the personal part or both of lines, never their
	// leaf hashes. What is gone already stays gone.
	Erase(ctx context.Context, erasures []Erasure) error
}

// ReadRecords reads the generic role, which keeps everything that has no typed
// role: later features add kinds, never methods.
type ReadRecords interface {
	Record(ctx context.Context, kind, id string) (r Record, ok bool, err error)
	ScanRecords(ctx context.Context, s Scan) ([]Record, error)
}

// WriteRecords changes it.
type WriteRecords interface {
	PutRecord(ctx context.Context, r Record) (ok bool, err error)
	DeleteRecord(ctx context.Context, kind, id string, revision int64) (ok bool, err error)
}

// WriteOutbox writes notifications in the transaction that they report.
type WriteOutbox interface {
	// An id that is taken is ErrInvalid.
	Enqueue(ctx context.Context, ds []Delivery) error
	// Settle ends or postpones a leased delivery and clears its lease. ok is
	// false, and nothing is changed, when its lease is no longer the one given.
	Settle(ctx context.Context, s Settlement) (ok bool, err error)
}

// ReadLimits reads the rate limit windows that several processes share.
type ReadLimits interface {
	Windows(ctx context.Context, refs []WindowRef) ([]Window, error)
}

// WriteLimits changes them. A window without times is removed.
type WriteLimits interface {
	PutWindows(ctx context.Context, ws []Window) error
}
