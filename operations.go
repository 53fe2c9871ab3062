package agentkey

// Operation names what an actor does. Every method that takes an Actor checks
// one of these against the actor's role.
type Operation string

// The operations.
const (
	OpReadOrganization   Operation = "organization.read"
	OpUpdateOrganization Operation = "organization.update"
	OpLockdown           Operation = "organization.lock"
	OpUnlock             Operation = "organization.unlock"
	OpReadSettings       Operation = "organization.read_settings"
	OpDismissOnboarding  Operation = "organization.dismiss_onboarding"
	OpCreateOrganization Operation = "organization.create" // in the reserved organization only
	OpAcceptRestore      Operation = "restore.accept"      // in the reserved organization only
	OpDiagnose           Operation = "crypto.diagnose"     // in the reserved organization only

	OpReadNotificationSettings   Operation = "organization.read_notifications"
	OpUpdateNotificationSettings Operation = "organization.update_notifications"

	OpReadAgents      Operation = "agents.read"
	OpRegisterAgent   Operation = "agents.create"
	OpUpdateAgent     Operation = "agents.update"
	OpSuspendAgent    Operation = "agents.suspend"
	OpReactivateAgent Operation = "agents.reactivate"
	OpRotateKey       Operation = "agents.rotate_key"
	OpRevokeKey       Operation = "agents.revoke_key"
	OpReportLeak      Operation = "incidents.report_leak"
	OpReportIncident  Operation = "incidents.report"

	OpReadTools         Operation = "tools.read"
	OpAddTool           Operation = "tools.create"
	OpUpdateTool        Operation = "tools.update"
	OpDeleteTool        Operation = "tools.delete"
	OpReplaceCredential Operation = "credentials.replace"
	OpRemoveCredential  Operation = "credentials.remove"

	OpExportCatalog         Operation = "catalog.export"
	OpPlanImport            Operation = "catalog.plan"
	OpImportCatalog         Operation = "catalog.import"
	OpReadToolSuggestions   Operation = "tool_suggestions.read"
	OpDismissToolSuggestion Operation = "tool_suggestions.dismiss"

	OpReadInstructions    Operation = "instructions.read"
	OpDismissInstructions Operation = "instructions.dismiss"

	OpReadInbox  Operation = "inbox.read"
	OpReadGrants Operation = "grants.read"
	OpApprove    Operation = "grants.approve"
	OpDeny       Operation = "grants.deny"
	OpAssign     Operation = "grants.assign"
	OpRevoke     Operation = "grants.revoke"
	OpNarrow     Operation = "grants.narrow"

	OpReadAdministrators   Operation = "administrators.read"
	OpManageAdministrators Operation = "administrators.manage"
	OpRemoveAdministrator  Operation = "administrators.remove"
	OpManageOwnTokens      Operation = "tokens.manage_own"
	OpManageTokens         Operation = "tokens.manage"
	OpRevokeOwnToken       Operation = "tokens.revoke_own"
	OpRevokeToken          Operation = "tokens.revoke"

	OpReadAudit   Operation = "audit.read"
	OpExportAudit Operation = "audit.export"
	OpVerifyAudit Operation = "audit.verify"
	OpRecord      Operation = "audit.record"

	OpReadRetention Operation = "audit.read_retention"
	OpSetRetention  Operation = "audit.set_retention"
	OpManageHolds   Operation = "audit.manage_holds"
	OpPlanErasure   Operation = "audit.plan_erasure"
	OpErasePerson   Operation = "audit.erase_person"
	OpTailAudit     Operation = "audit.tail"
	OpReadShipping  Operation = "audit.read_shipping"

	OpReadKeys            Operation = "keys.read"
	OpRotateKeys          Operation = "keys.rotate"
	OpReseal              Operation = "keys.reseal"
	OpRewrapKeys          Operation = "keys.rewrap"         // in the reserved organization only
	OpRotateSigningKey    Operation = "keys.rotate_signing" // in the reserved organization only
	OpPlanDestruction     Operation = "organization.plan_destruction"
	OpDestroyOrganization Operation = "organization.destroy"
)

type rule struct {
	roles  []Role
	change bool // charged against the changes per administrator, else the reads
	free   bool // never limited: what takes access away
	// installation says that it is one of the installation's, for an Operator, and
	// of no tenant's.
	installation bool
}

var (
	everyone  = []Role{RoleOwner, RoleAdmin, RoleApprover, RoleAuditor}
	approvers = []Role{RoleOwner, RoleAdmin, RoleApprover}
	admins    = []Role{RoleOwner, RoleAdmin}
	auditors  = []Role{RoleOwner, RoleAdmin, RoleAuditor}
	owners    = []Role{RoleOwner}
)

// rules is the one table of operation × role.
var rules = map[Operation]rule{
	OpReadOrganization:   {roles: everyone},
	OpUpdateOrganization: {roles: owners, change: true},
	OpLockdown:           {roles: approvers, change: true, free: true},
	OpUnlock:             {roles: owners, change: true},
	OpReadSettings:       {roles: everyone},
	OpDismissOnboarding:  {roles: admins, change: true},
	OpCreateOrganization: {roles: owners, change: true, installation: true},
	OpAcceptRestore:      {roles: owners, change: true, installation: true},
	OpDiagnose:           {roles: owners, change: true, installation: true},

	OpReadNotificationSettings:   {roles: everyone},
	OpUpdateNotificationSettings: {roles: admins, change: true},

	OpReadAgents:      {roles: everyone},
	OpRegisterAgent:   {roles: admins, change: true},
	OpUpdateAgent:     {roles: admins, change: true},
	OpSuspendAgent:    {roles: approvers, change: true, free: true},
	OpReactivateAgent: {roles: admins, change: true},
	OpRotateKey:       {roles: admins, change: true},
	OpRevokeKey:       {roles: approvers, change: true, free: true},
	OpReportLeak:      {roles: approvers, change: true, free: true},
	OpReportIncident:  {roles: everyone},

	OpReadTools:         {roles: everyone},
	OpAddTool:           {roles: admins, change: true},
	OpUpdateTool:        {roles: admins, change: true},
	OpDeleteTool:        {roles: admins, change: true},
	OpReplaceCredential: {roles: admins, change: true},
	OpRemoveCredential:  {roles: admins, change: true, free: true},

	OpExportCatalog:         {roles: everyone},
	OpPlanImport:            {roles: admins},
	OpImportCatalog:         {roles: admins, change: true},
	OpReadToolSuggestions:   {roles: everyone},
	OpDismissToolSuggestion: {roles: approvers, change: true},

	OpReadInstructions:    {roles: everyone},
	OpDismissInstructions: {roles: approvers, change: true},

	OpReadInbox:  {roles: everyone},
	OpReadGrants: {roles: everyone},
	OpApprove:    {roles: approvers, change: true},
	OpDeny:       {roles: approvers, change: true, free: true},
	OpAssign:     {roles: approvers, change: true},
	OpRevoke:     {roles: approvers, change: true, free: true},
	OpNarrow:     {roles: approvers, change: true, free: true},

	OpReadAdministrators:   {roles: everyone},
	OpManageAdministrators: {roles: owners, change: true},
	OpManageOwnTokens:      {roles: everyone, change: true},
	OpManageTokens:         {roles: owners, change: true},
	OpRemoveAdministrator:  {roles: owners, change: true, free: true},
	OpRevokeOwnToken:       {roles: everyone, change: true, free: true},
	OpRevokeToken:          {roles: owners, change: true, free: true},

	OpReadAudit:   {roles: everyone},
	OpExportAudit: {roles: auditors},
	OpVerifyAudit: {roles: auditors},
	OpRecord:      {roles: admins, change: true},

	OpReadRetention: {roles: auditors},
	OpSetRetention:  {roles: owners, change: true},
	OpManageHolds:   {roles: owners, change: true},
	OpPlanErasure:   {roles: owners},
	OpErasePerson:   {roles: owners, change: true},
	OpTailAudit:     {roles: auditors},
	OpReadShipping:  {roles: auditors},

	OpReadKeys:            {roles: auditors},
	OpRotateKeys:          {roles: owners, change: true},
	OpReseal:              {roles: owners, change: true},
	OpRewrapKeys:          {roles: owners, change: true, installation: true},
	OpRotateSigningKey:    {roles: owners, change: true, installation: true},
	OpPlanDestruction:     {roles: owners},
	OpDestroyOrganization: {roles: owners, change: true, free: true},
}

// Operations gives every operation and the roles that may do it.
func Operations() map[Operation][]Role {
	table := make(map[Operation][]Role, len(rules))
	for op, r := range rules {
		table[op] = append([]Role(nil), r.roles...)
	}
	return table
}
