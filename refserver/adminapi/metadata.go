package adminapi

import (
	"strconv"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/exchange"
)

// targetType is what the contract calls a kind of record.
func targetType(kind string) string {
	if kind == audit.KindGrant {
		return "access_grant"
	}
	return kind
}

// renamed are the details of events that the contract has other names for.
var renamed = map[string]string{
	"mode": "credentialMode", "approved": "approvedCount", "pending": "pendingCount", "rotated": "rotatedCredential",
	"version_source": "instructionVersionSource", "version": "instructionVersionId", "restored_from": "restoredFromVersionId",
	"resolution_source": "resolutionSource", "dismissed_until": "dismissedUntil", "retry_after": "retryAfter", "suggestion": "suggestionId",
	"kept": "removedPreviewOnly", "slack_configured": "slackConfigured", "discord_configured": "discordConfigured",
}

// metadata is what an event says, in the contract's names and types; nil when
// that is nothing.
func metadata(e agentkey.LoggedEvent) map[string]any {
	m := make(map[string]any)
	for name, text := range e.Details {
		value := any(text)
		switch name {
		case "approved", "pending", "created", "updated", "unchanged", "removed", "kept", "opened":
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				value = n
			}
		case "rotated", "slack_configured", "discord_configured":
			value = text == "true"
		}
		if known, found := renamed[name]; found {
			name = known
		}
		m[name] = value
	}
	for _, fact := range [][2]string{
		{"agentId", e.Agent}, {"agentName", e.Personal.AgentLabel}, {"toolId", e.Tool}, {"toolName", e.Personal.ToolLabel}, {"name", subject(e)},
	} {
		if fact[1] != "" {
			m[fact[0]] = fact[1]
		}
	}
	proposed(m, e)
	if len(m) == 0 {
		return nil
	}
	return m
}

// proposed adds what agents wrote of a suggestion, and why it was dismissed; not
// once the personal part of the event was removed.
func proposed(m map[string]any, e agentkey.LoggedEvent) {
	if e.PersonalRemoved {
		return
	}
	switch e.Action {
	case audit.ActionToolSuggestionSupported:
		m["submittedName"] = e.Personal.Extra["submitted_name"]
		m["submittedUrl"] = exchange.Optional(e.Personal.Extra["submitted_url"])
		fallthrough
	case audit.ActionToolSuggestionCreated:
		m["url"] = exchange.Optional(e.Personal.Extra["url"])
	case audit.ActionToolInstructionSuggestionDismissed:
		m["reason"] = e.Personal.Text
	}
}

// subject is the name of what was made or changed.
func subject(e agentkey.LoggedEvent) string {
	switch e.Action {
	case audit.ActionAgentCreated, audit.ActionAgentUpdated:
		return e.Personal.AgentLabel
	case audit.ActionToolCreated, audit.ActionToolUpdated:
		return e.Personal.ToolLabel
	}
	return ""
}
