package audit

import (
	"fmt"
	"slices"
	"strings"
)

// Action names what an event reports: two or more parts of a-z, 0-9 and _, joined by dots, at most 128 bytes. Actions that
// begin with "x." belong to the host and have at least three parts.
type Action string

const hostPrefix = "x."

// Organizations and their log.
const (
	ActionOrganizationRegistered Action = "organization.registered"          // written to the system log when an organization is made
	ActionOrganizationDestroyed  Action = "organization.destroyed"           // its secrets can't be opened any more
	ActionOuterKeyDestroyed      Action = "organization.outer_key_destroyed" // by the provider, whose key was the organization's own
	ActionOrganizationCreated    Action = "organization.created"             // the first event of an organization's own log
	ActionOrganizationUpdated    Action = "organization.updated"
	ActionOrganizationLocked     Action = "organization.locked"
	ActionOrganizationUnlocked   Action = "organization.unlocked"
	ActionLogEpochOpened         Action = "log.epoch_opened"        // the log goes on under a new origin, as after a restore
	ActionLogSigningKeyRotated   Action = "log.signing_key_rotated" // signed by the old key
	ActionLogReconcileFailed     Action = "log.reconcile_failed"    // records and log disagree
	ActionLogContentRemoved      Action = "log.content_removed"     // retention removed content; leaf hashes stay
	ActionLogPersonalErased      Action = "log.personal_erased"     // personal parts were erased
	ActionLogRetentionUpdated    Action = "log.retention_updated"   // how long content and personal parts are kept
	ActionLogHoldPlaced          Action = "log.hold_placed"         // a legal hold: what falls under it is neither removed nor erased
	ActionLogHoldLifted          Action = "log.hold_lifted"
	ActionIntegrityFailed        Action = "integrity.failed" // a record or sealed value is not what was written
)

// Agents, their keys, and authentication.
const (
	ActionAgentCreated          Action = "agent.created"
	ActionAgentUpdated          Action = "agent.updated"
	ActionAgentSuspended        Action = "agent.suspended"
	ActionAgentReactivated      Action = "agent.reactivated"
	ActionAgentKeyAdded         Action = "agent.key_added"
	ActionAgentKeyRotated       Action = "agent.key_rotated"
	ActionAgentKeyRevoked       Action = "agent.key_revoked"
	ActionAgentKeyExpired       Action = "agent.key_expired"
	ActionAgentKeyLeaked        Action = "agent.key_leaked"        // somebody found it where it must not be
	ActionAuthFailed            Action = "auth.failed"             // aggregate of failed authentication, in the system log
	ActionAuthRejected          Action = "auth.rejected"           // a known key that is expired, revoked or used from elsewhere
	ActionAuthRejectedSuspended Action = "auth.rejected_suspended" // a key of a suspended agent
)

// Tools and credentials.
const (
	ActionToolCreated                    Action = "tool.created"
	ActionToolUpdated                    Action = "tool.updated"
	ActionToolDeleted                    Action = "tool.deleted"
	ActionToolCredentialReplaced         Action = "tool.credential_replaced"
	ActionToolCredentialExpired          Action = "tool.credential_expired"
	ActionToolCredentialRemoved          Action = "tool.credential_removed"
	ActionToolInstructionsVersionCreated Action = "tool.instructions.version_created"
	ActionToolInstructionsRestored       Action = "tool.instructions.restored"
	ActionToolInstructionsRemoved        Action = "tool.instructions.removed" // versions and suggestions that went with their tool
	ActionCredentialVended               Action = "credential.vended"
	ActionCredentialRefused              Action = "credential.refused"
	ActionCredentialResealed             Action = "credential.resealed"
)

// Grants.
const (
	ActionGrantRequested               Action = "grant.requested"
	ActionGrantRequestedFromSuggestion Action = "grant.requested_from_suggestion"
	ActionGrantRequestRefused          Action = "grant.request_refused"
	ActionGrantAssigned                Action = "grant.assigned"
	ActionGrantApprovalRecorded        Action = "grant.approval_recorded" // one of several approvers decided
	ActionGrantApproved                Action = "grant.approved"
	ActionGrantDenied                  Action = "grant.denied"
	ActionGrantNarrowed                Action = "grant.narrowed"
	ActionGrantRevoked                 Action = "grant.revoked"
	ActionGrantRemoved                 Action = "grant.removed" // ended grants that went with their tool
	ActionGrantExpired                 Action = "grant.expired"
	ActionGrantUsedUp                  Action = "grant.used_up"
)

// Suggestions.
const (
	ActionToolSuggestionCreated                  Action = "tool_suggestion.created"
	ActionToolSuggestionSupported                Action = "tool_suggestion.supported"
	ActionToolSuggestionRedirectedToExistingTool Action = "tool_suggestion.redirected_to_existing_tool"
	ActionToolSuggestionCooldownRejected         Action = "tool_suggestion.cooldown_rejected"
	ActionToolSuggestionDismissed                Action = "tool_suggestion.dismissed"
	ActionToolSuggestionAccepted                 Action = "tool_suggestion.accepted"
	ActionToolSuggestionAutoResolved             Action = "tool_suggestion.auto_resolved"
	ActionToolSuggestionConverted                Action = "tool_suggestion.converted" // a further part of its supporters had requests opened
	ActionToolSuggestionRefused                  Action = "tool_suggestion.refused"
	ActionToolInstructionSuggestionCreated       Action = "tool_instruction_suggestion.created"
	ActionToolInstructionSuggestionSupported     Action = "tool_instruction_suggestion.supported"
	ActionToolInstructionSuggestionDismissed     Action = "tool_instruction_suggestion.dismissed"
	ActionToolInstructionSuggestionAccepted      Action = "tool_instruction_suggestion.accepted"
	ActionToolInstructionSuggestionRefused       Action = "tool_instruction_suggestion.refused"
)

// Administration.
const (
	ActionAdministratorCreated        Action = "administrator.created"
	ActionAdministratorUpdated        Action = "administrator.updated"
	ActionAdministratorRemoved        Action = "administrator.removed"
	ActionTokenCreated                Action = "token.created"
	ActionTokenRevoked                Action = "token.revoked"
	ActionTokenExpired                Action = "token.expired"
	ActionTokenLeaked                 Action = "token.leaked"          // somebody found it where it must not be
	ActionAuthorizationRefused        Action = "authorization.refused" // an actor lacked the role
	ActionRequestRateLimited          Action = "request.rate_limited"  // the detail "tier" names the limit
	ActionNotificationSettingsUpdated Action = "notification.settings.updated"
	ActionNotificationSent            Action = "notification.sent"
	ActionNotificationFailed          Action = "notification.failed"
	ActionNotificationDead            Action = "notification.dead" // given up after the last retry
	ActionConfigImportApplied         Action = "config.import_applied"
	ActionConfigExported              Action = "config.exported"
	ActionAuditExported               Action = "audit.exported"
)

// The installation, in the system log.
const (
	ActionInstallationCreated Action = "installation.created"
	ActionRestoreAccepted     Action = "restore.accepted" // an older database goes on; see log.epoch_opened
	ActionServerStarted       Action = "server.started"
	ActionServerStopped       Action = "server.stopped"
	ActionStoreMigrated       Action = "store.migrated"
	ActionDataKeyCreated      Action = "data_key.created"
	ActionDataKeyRolled       Action = "data_key.rolled"
	ActionDataKeyStateChanged Action = "data_key.state_changed"
	ActionDataKeyRewrapped    Action = "data_key.rewrapped"
	ActionDataKeyDestroyed    Action = "data_key.destroyed"
	ActionRewrapRequested     Action = "data_key.rewrap_requested"
	ActionRewrapCompleted     Action = "data_key.rewrap_completed"
	ActionResealRequested     Action = "data_key.reseal_requested"
	ActionResealCompleted     Action = "data_key.reseal_completed"
	ActionRowsResealed        Action = "data_key.rows_resealed"

	ActionCryptoExamined          Action = "crypto.examined"           // keys and seals of an organization are looked at, and values opened
	ActionCryptoExaminationFailed Action = "crypto.examination_failed" // and something was found
)

// known holds every action above, in ascending order.
var known = [...]Action{
	ActionAdministratorCreated,
	ActionAdministratorRemoved,
	ActionAdministratorUpdated,
	ActionAgentCreated,
	ActionAgentKeyAdded,
	ActionAgentKeyExpired,
	ActionAgentKeyLeaked,
	ActionAgentKeyRevoked,
	ActionAgentKeyRotated,
	ActionAgentReactivated,
	ActionAgentSuspended,
	ActionAgentUpdated,
	ActionAuditExported,
	ActionAuthFailed,
	ActionAuthRejected,
	ActionAuthRejectedSuspended,
	ActionAuthorizationRefused,
	ActionConfigExported,
	ActionConfigImportApplied,
	ActionCredentialRefused,
	ActionCredentialResealed,
	ActionCredentialVended,
	ActionCryptoExaminationFailed,
	ActionCryptoExamined,
	ActionDataKeyCreated,
	ActionDataKeyDestroyed,
	ActionResealCompleted,
	ActionResealRequested,
	ActionRewrapCompleted,
	ActionRewrapRequested,
	ActionDataKeyRewrapped,
	ActionDataKeyRolled,
	ActionRowsResealed,
	ActionDataKeyStateChanged,
	ActionGrantApprovalRecorded,
	ActionGrantApproved,
	ActionGrantAssigned,
	ActionGrantDenied,
	ActionGrantExpired,
	ActionGrantNarrowed,
	ActionGrantRemoved,
	ActionGrantRequestRefused,
	ActionGrantRequested,
	ActionGrantRequestedFromSuggestion,
	ActionGrantRevoked,
	ActionGrantUsedUp,
	ActionInstallationCreated,
	ActionIntegrityFailed,
	ActionLogContentRemoved,
	ActionLogEpochOpened,
	ActionLogHoldLifted,
	ActionLogHoldPlaced,
	ActionLogPersonalErased,
	ActionLogReconcileFailed,
	ActionLogRetentionUpdated,
	ActionLogSigningKeyRotated,
	ActionNotificationDead,
	ActionNotificationFailed,
	ActionNotificationSent,
	ActionNotificationSettingsUpdated,
	ActionOrganizationCreated,
	ActionOrganizationDestroyed,
	ActionOrganizationLocked,
	ActionOuterKeyDestroyed,
	ActionOrganizationRegistered,
	ActionOrganizationUnlocked,
	ActionOrganizationUpdated,
	ActionRequestRateLimited,
	ActionRestoreAccepted,
	ActionServerStarted,
	ActionServerStopped,
	ActionStoreMigrated,
	ActionTokenCreated,
	ActionTokenExpired,
	ActionTokenLeaked,
	ActionTokenRevoked,
	ActionToolCreated,
	ActionToolCredentialExpired,
	ActionToolCredentialRemoved,
	ActionToolCredentialReplaced,
	ActionToolDeleted,
	ActionToolInstructionsRemoved,
	ActionToolInstructionsRestored,
	ActionToolInstructionsVersionCreated,
	ActionToolUpdated,
	ActionToolInstructionSuggestionAccepted,
	ActionToolInstructionSuggestionCreated,
	ActionToolInstructionSuggestionDismissed,
	ActionToolInstructionSuggestionRefused,
	ActionToolInstructionSuggestionSupported,
	ActionToolSuggestionAccepted,
	ActionToolSuggestionAutoResolved,
	ActionToolSuggestionConverted,
	ActionToolSuggestionCooldownRejected,
	ActionToolSuggestionCreated,
	ActionToolSuggestionDismissed,
	ActionToolSuggestionRedirectedToExistingTool,
	ActionToolSuggestionRefused,
	ActionToolSuggestionSupported,
}

// Actions returns every action of this package in ascending order. The slice is the caller's.
func Actions() []Action { return slices.Clone(known[:]) }

// Known reports whether a is an action of this package. A well-formed action that is not known is the host's, or of another
// release; it is valid in an event all the same.
func (a Action) Known() bool {
	_, found := slices.BinarySearch(known[:], a)
	return found
}

// IsHost reports whether a lies in the host's namespace.
func (a Action) IsHost() bool { return strings.HasPrefix(string(a), hostPrefix) }

// HostAction returns the host's own action s, which is "x." followed by two or more parts of a-z, 0-9 and _, joined by dots,
// as in "x.acme.backup_taken". Anything else is ErrInvalid, so that a host can't speak in this package's name.
func HostAction(s string) (Action, error) {
	if complaint := actionSyntax(s); complaint != "" || !Action(s).IsHost() {
		return "", fmt.Errorf("%w: host action is not x. followed by two or more parts of a-z, 0-9 and _", ErrInvalid)
	}
	return Action(s), nil
}
