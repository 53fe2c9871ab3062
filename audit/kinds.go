package audit

// Kinds of actors. A host may use kinds of its own, as long as they are codes.
const (
	ActorAgent   = "agent"   // an agent with its key, or vouched for by the host
	ActorHuman   = "human"   // a person
	ActorService = "service" // a program that administers
	ActorSystem  = "system"  // this installation itself; needs no id
	ActorUnknown = "unknown" // whoever failed to authenticate; has no id
)

// Kinds of records, as they stand in a Ref, Change or SealedRef.
const (
	KindInstallation          = "installation"
	KindOrganization          = "organization"
	KindAgent                 = "agent"
	KindKey                   = "key"
	KindTool                  = "tool"
	KindCredential            = "credential"
	KindGrant                 = "grant"
	KindApproval              = "approval"
	KindAdministrator         = "administrator"
	KindToken                 = "token"
	KindDataKey               = "data_key"
	KindSigningKey            = "signing_key"
	KindLog                   = "log"
	KindServer                = "server"
	KindStore                 = "store"
	KindNotification          = "notification"
	KindNotificationSettings  = "organization_notification_settings"
	KindToolCatalog           = "tool_catalog"
	KindToolSuggestion        = "tool_suggestion"
	KindInstructionVersion    = "tool_instruction_version"
	KindInstructionSuggestion = "tool_instruction_suggestion"
)
