package agentkey

import (
	"context"
	"time"
)

// Notification tells people what they may want to act on. It never holds a
// credential or a key.
type Notification struct {
	// ID is stable: a notification that is delivered twice has the same one.
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Topic        Topic     `json:"topic"`
	Time         time.Time `json:"time"`
	Request      string    `json:"request,omitempty"` // the grant's id
	Agent        string    `json:"agent,omitempty"`
	AgentName    string    `json:"agentName,omitempty"`
	Tool         string    `json:"tool,omitempty"`
	ToolName     string    `json:"toolName,omitempty"`
	ToolURL      string    `json:"toolUrl,omitempty"`    // of a tool that is suggested
	Suggestion   string    `json:"suggestion,omitempty"` // its id
	Learned      string    `json:"learned,omitempty"`    // what is proposed for a tool's instructions
	Key          string    `json:"key,omitempty"`        // the id of a key or token that leaked
	Reason       string    `json:"reason,omitempty"`
}

// Topic says what a notification is about.
type Topic string

// The topics.
const (
	TopicAccessRequested       Topic = "access_requested" // also when it is asked again
	TopicToolSuggested         Topic = "tool_suggested"   // also when it is again, after a dismissal
	TopicInstructionsSuggested Topic = "instructions_suggested"
	TopicKeyLeaked             Topic = "key_leaked"   // an agent's key was found; the agent is suspended
	TopicTokenLeaked           Topic = "token_leaked" // an administrator's token was found, and is revoked
)

// Notifier delivers notifications. Run calls it, one at a time for each lease:
// at least once, again after a growing delay when it answers an error, and not
// any more after Config.MaxAttempts. It is called with no log head held, and its
// context ends after 30 seconds.
type Notifier interface {
	Notify(ctx context.Context, n Notification) error
}
