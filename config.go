package agentkey

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Version is the version of this library, recorded in every event.
const Version = "0.1.0"

// Config is what a Manager is made of. Only Storage and Keys are required. New
// works on a copy.
type Config struct {
	// Storage keeps the records and the log. Required. The Manager never migrates
	// and never closes it.
	Storage storage.Store `validate:"required"`

	// Keys wraps and unwraps the data keys. Required. With another key than the
	// one that an installation was begun with, New answers an error that names
	// both by id.
	Keys vault.KeyProvider `validate:"required"`

	// Notifier is told of new requests and of what else people should know.
	// Nil: nothing is written to the outbox. It is called by Run only.
	Notifier Notifier

	// Policies are the rate limits. Nil: ratelimit.DefaultPolicies. Conflicts
	// with Limiter.
	Policies ratelimit.Policies

	// Limiter counts calls. Nil: exact windows in this process, over Policies.
	Limiter ratelimit.Limiter

	// SharedLimits keeps the windows of agents and administrators in Storage, for
	// several processes on one database: never more than a limit in any window,
	// whichever process is asked. A vend's window rides in the vend's own
	// transaction; every other call costs one. Conflicts with Limiter. Those per
	// client address stay in each process.
	SharedLimits bool

	// SoleApprover says whether nobody but the actor could approve, for hosts with
	// people of their own. It is asked when somebody approves or assigns, before the
	// head is taken, and counts when the owner of the agent does so alone. Nil:
	// judged by the administrators that the Manager keeps; the event says when an
	// owner approved alone.
	SoleApprover func(ctx context.Context, a Actor) (bool, error)

	// Anchors keep signed heads of every log elsewhere, where whoever can write to
	// Storage can't. New fails with ErrRolledBack when Storage does not continue
	// what they keep, and Run keeps what is committed within a second and compares
	// at intervals: from when they disagree, every change is refused with
	// ErrRolledBack. An anchor that is away is logged and fails nothing. None:
	// nobody notices when the whole database is replaced by an older copy.
	Anchors []Anchor

	// InitAnchors lets anchors begin that have nothing of logs that have begun:
	// for the first start with an anchor, or after one was lost. Otherwise New
	// fails with ErrAnchorMissing.
	InitAnchors bool

	// AnchorInterval is how often Run compares every log with every anchor, beside
	// keeping the heads that this process commits. Zero: 1 minute.
	AnchorInterval time.Duration `validate:"min=0,max=24h"`

	// Restoring leaves the comparison with Anchors to AcceptRestore, the only
	// change that the Manager then makes: every other answers ErrRolledBack.
	Restoring bool

	// Clock tells the time. Nil: time.Now. Whatever it says, time never goes
	// back within a log.
	Clock func() time.Time

	// Logger takes what an operator should see. Nil: nothing is logged.
	Logger *slog.Logger

	// Node names this process in the log and in leases. Empty: a random name.
	Node string `validate:"max=64,id"`

	// KeyLifetime bounds how long an unwrapped data key stays in memory. Zero: 5
	// minutes. Negative: every use asks the provider.
	KeyLifetime time.Duration `validate:"max=24h"`

	// KeyTimeout bounds how long a call of the Manager waits for the key provider, in
	// all that it asks of it. Zero: 2.5 seconds, so that whoever can't be served is
	// refused within three.
	KeyTimeout time.Duration `validate:"min=0,max=1m"`

	// SealsPerKey is how many values a data key seals before the next one takes
	// over, at most 2^32. Zero: 2^28.
	SealsPerKey int64 `validate:"min=0,max=4294967296"`

	// KeyAge is how old a data key gets before the next one takes over. Zero: 90
	// days. Negative: it never does.
	KeyAge time.Duration

	// CatalogLimit bounds the tools of an organization. Zero: 5000.
	CatalogLimit int `validate:"min=0,max=10000"`

	// SweepInterval is how often Run looks for what has ended and for deliveries
	// that are due. Zero: 5 seconds.
	SweepInterval time.Duration `validate:"min=0,max=1h"`

	// ReconcileInterval is how often Run replays every log against the records.
	// Zero: 1 hour. Negative: never.
	ReconcileInterval time.Duration

	// RetentionInterval is how often Run removes what the organizations' policies of
	// retention don't keep. Zero: 6 hours. Negative: never.
	RetentionInterval time.Duration

	// Sinks are where Run ships every event of every log to, see audit.Sink. Of
	// several processes on one database one at a time ships to the sink of a name.
	Sinks []SinkConfig `validate:"max=16,dive"`

	// MaxAttempts is how often a notification is tried before it is dead. Zero: 12.
	MaxAttempts int `validate:"min=0,max=100"`
}

func (c Config) withDefaults() Config {
	if c.Policies == nil {
		c.Policies = ratelimit.DefaultPolicies()
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Node == "" {
		c.Node = newID()
	}
	c.KeyLifetime = or(c.KeyLifetime, 5*time.Minute)
	c.KeyTimeout = or(c.KeyTimeout, 2500*time.Millisecond)
	c.SealsPerKey = or(c.SealsPerKey, 1<<28)
	c.KeyAge = or(c.KeyAge, 90*24*time.Hour)
	c.CatalogLimit = or(c.CatalogLimit, 5000)
	c.SweepInterval = or(c.SweepInterval, 5*time.Second)
	c.ReconcileInterval = or(c.ReconcileInterval, time.Hour)
	c.AnchorInterval = or(c.AnchorInterval, time.Minute)
	c.RetentionInterval = or(c.RetentionInterval, 6*time.Hour)
	c.Sinks = slices.Clone(c.Sinks)
	for i := range c.Sinks {
		c.Sinks[i].Timeout = or(c.Sinks[i].Timeout, 10*time.Second)
	}
	c.MaxAttempts = or(c.MaxAttempts, 12)
	return c
}

// maxSubjects bounds the subjects whose windows are kept in process.
const maxSubjects = 1 << 17

func or[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}

func (c Config) check(v *validation) error {
	if c.Limiter != nil && (c.Policies != nil || c.SharedLimits) {
		return fmt.Errorf("agentkey: Config.Limiter conflicts with Config.Policies and Config.SharedLimits")
	}
	for tier, p := range c.Policies {
		if err := p.Validate(); err != nil {
			return fmt.Errorf("agentkey: Config.Policies: %s: %w", tier, err)
		}
	}
	names := make(map[string]bool)
	for _, s := range c.Sinks {
		if s.Sink == nil || names[s.Name] {
			return fmt.Errorf("agentkey: Config.Sinks: each needs a Sink and a Name of its own")
		}
		names[s.Name] = true
	}
	if err := v.check(c); err != nil {
		return fmt.Errorf("agentkey: Config: %w", err)
	}
	return nil
}
