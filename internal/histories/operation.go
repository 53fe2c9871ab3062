package histories

import "fmt"

// How many agents and tools a history has. The first tool is shared, the second
// one has a credential for each agent, the third, shared too, needs two approvals,
// and the fourth is not there until Add adds it, as agents may suggest.
const (
	Agents = 2
	Tools  = 4
	Actors = 2 // who administer

	shared   = 0
	perAgent = 1
	guarded  = 2
	wanted   = 3
)

// Kind is what an operation does.
type Kind string

// The kinds of operations.
const (
	Vend       Kind = "vend"
	Request    Kind = "request"
	Approve    Kind = "approve"
	Deny       Kind = "deny"
	Assign     Kind = "assign"
	Narrow     Kind = "narrow"
	Revoke     Kind = "revoke"
	Suspend    Kind = "suspend"
	Reactivate Kind = "reactivate"
	Rotate     Kind = "rotate"  // the agent's key, with no grace
	Replace    Kind = "replace" // the shared tool's credential
	Lock       Kind = "lock"    // the whole organization
	Unlock     Kind = "unlock"
	Suggest    Kind = "suggest" // the wanted tool
	Dismiss    Kind = "dismiss" // what was suggested
	Add        Kind = "add"     // the wanted tool, once
	Learn      Kind = "learn"   // something about the shared tool, which the agent proposes for its instructions
	Reject     Kind = "reject"  // what was learned
	Accept     Kind = "accept"  // what was learned, with other instructions
	Rewrite    Kind = "rewrite" // the shared tool's instructions
	Advance    Kind = "advance" // the clock
	Sweep      Kind = "sweep"   // writes what has ended; changes no answer
)

// Kinds gives every kind, in a fresh slice.
func Kinds() []Kind {
	return []Kind{Vend, Request, Approve, Deny, Assign, Narrow, Revoke, Suspend, Reactivate, Rotate, Replace, Lock, Unlock, Suggest, Dismiss, Add, Learn, Reject, Accept, Rewrite, Advance, Sweep}
}

// Trusted is the key of a caller that the host has authenticated itself.
const Trusted = 0

// Terms bound an access. Zero fields bound nothing, or keep what was asked.
type Terms struct {
	Max     int64 // vends
	Seconds int64 // from approval; in Advance how far the clock is moved
}

// Input is what is asked. Keys and credentials are told apart by generation: a
// number that is given to one key or credential of a history only.
type Input struct {
	Kind        Kind
	Agent, Tool int
	Actor       int // who approves, denies or assigns
	Key         int // presented by Vend, Request, Suggest and Learn, made by Rotate
	Credential  int // brought by Replace and Add and, for the per-agent tool, Approve and Assign
	Fact        int // the suggestion that Reject and Accept are about, in the order in which they became known
	Text        int // generation of the instructions brought by Accept and Rewrite
	Terms       Terms
}

// String is the input in a few words.
func (in Input) String() string {
	switch in.Kind {
	case Vend:
		return fmt.Sprintf("vend(agent %d, tool %d, key %d)", in.Agent, in.Tool, in.Key)
	case Request:
		return fmt.Sprintf("request(agent %d, tool %d, key %d, %+v)", in.Agent, in.Tool, in.Key, in.Terms)
	case Approve, Assign:
		return fmt.Sprintf("%s(agent %d, tool %d, by %d, credential %d, %+v)", in.Kind, in.Agent, in.Tool, in.Actor, in.Credential, in.Terms)
	case Narrow:
		return fmt.Sprintf("narrow(agent %d, tool %d, %+v)", in.Agent, in.Tool, in.Terms)
	case Deny, Revoke:
		return fmt.Sprintf("%s(agent %d, tool %d)", in.Kind, in.Agent, in.Tool)
	case Suggest, Learn:
		return fmt.Sprintf("%s(agent %d, key %d)", in.Kind, in.Agent, in.Key)
	case Reject:
		return fmt.Sprintf("reject(fact %d)", in.Fact)
	case Accept:
		return fmt.Sprintf("accept(fact %d, text %d)", in.Fact, in.Text)
	case Rewrite:
		return fmt.Sprintf("rewrite(text %d)", in.Text)
	case Suspend, Reactivate:
		return fmt.Sprintf("%s(agent %d)", in.Kind, in.Agent)
	case Rotate:
		return fmt.Sprintf("rotate(agent %d, key %d)", in.Agent, in.Key)
	case Replace:
		return fmt.Sprintf("replace(tool %d, credential %d)", in.Tool, in.Credential)
	case Advance:
		return fmt.Sprintf("advance(%d s)", in.Terms.Seconds)
	case Add:
		return fmt.Sprintf("add(credential %d)", in.Credential)
	case Lock, Unlock, Dismiss, Sweep:
	}
	return string(in.Kind)
}

// Untold is a number that the answer did not hold.
const Untold = -2

// Codes of outputs, besides those of the library's errors.
const (
	// Done is what succeeded.
	Done = ""
	// Invalid is an input that breaks a rule.
	Invalid = "invalid"
	// Unknown says that nobody can tell whether it was done.
	Unknown = "unknown_outcome"
	// Unavailable says that nothing was done.
	Unavailable = "unavailable"
	// Changed says that nothing was done because somebody was faster.
	Changed = "changed"
	// Internal is an answer that must never be given.
	Internal = "internal"
)

// Output is what was answered.
type Output struct {
	Code       string
	Credential int   // what Vend gave
	Left       int64 // vends left after this one, -1 for no limit, or Untold
	Cycle      int64 // of the grant decided on, or Untold
	Revoked    int64 // grants that Suspend revoked, or Untold
	Joined     bool  // Suggest or Learn met a suggestion that was pending
	Fact       int   // the suggestion that Learn made or met
	Text       int   // generation of the instructions that Vend gave, 0 for none
}

// String is the output in a few words.
func (o Output) String() string {
	if o.Code != Done {
		return o.Code
	}
	text := "done"
	for _, n := range []struct {
		name  string
		value int64
	}{{"credential", int64(o.Credential)}, {"left", o.Left}, {"cycle", o.Cycle}, {"revoked", o.Revoked}, {"fact", int64(o.Fact)}, {"text", int64(o.Text)}} {
		if n.value != 0 && n.value != Untold {
			text += fmt.Sprintf(" %s %d", n.name, n.value)
		}
	}
	if o.Joined {
		text += " joined"
	}
	return text
}
