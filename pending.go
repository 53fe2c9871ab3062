package agentkey

import (
	"context"
	"io"

	"github.com/agentkey-dev/agentkey-go/audit"
)

// Signatures that are settled and whose bodies follow.

func (m *Manager) Catalog(ctx context.Context, c Caller, in CatalogInput) (Catalog, error) {
	panic("pending")
}

func (m *Manager) Profile(ctx context.Context, c Caller) (Profile, error) { panic("pending") }
func (m *Manager) RequestAccess(ctx context.Context, c Caller, in RequestInput) (Grant, error) {
	panic("pending")
}

func (m *Manager) UpdateAgent(ctx context.Context, a Actor, id string, in UpdateAgentInput) (AgentView, error) {
	panic("pending")
}

func (m *Manager) SuspendAgent(ctx context.Context, a Actor, id string) (SuspendedAgent, error) {
	panic("pending")
}

func (m *Manager) ReactivateAgent(ctx context.Context, a Actor, id string) (Agent, error) {
	panic("pending")
}

func (m *Manager) RotateKey(ctx context.Context, a Actor, agent string, in RotateKeyInput) (IssuedKey, error) {
	panic("pending")
}

func (m *Manager) RevokeKey(ctx context.Context, a Actor, agent, key string) error { panic("pending") }
func (m *Manager) Agents(ctx context.Context, a Actor, in ListInput) ([]AgentView, error) {
	panic("pending")
}

func (m *Manager) Agent(ctx context.Context, a Actor, id string) (AgentView, error) { panic("pending") }
func (m *Manager) AgentKeys(ctx context.Context, a Actor, agent string) ([]AgentKey, error) {
	panic("pending")
}

func (m *Manager) AddTool(ctx context.Context, a Actor, in AddToolInput) (ToolView, error) {
	panic("pending")
}

func (m *Manager) UpdateTool(ctx context.Context, a Actor, id string, in UpdateToolInput) (ToolView, error) {
	panic("pending")
}

func (m *Manager) DeleteTool(ctx context.Context, a Actor, id string) (DeletedTool, error) {
	panic("pending")
}

func (m *Manager) RemoveCredential(ctx context.Context, a Actor, tool string) (ToolView, error) {
	panic("pending")
}

func (m *Manager) Tools(ctx context.Context, a Actor, in ListInput) ([]ToolView, error) {
	panic("pending")
}

func (m *Manager) Tool(ctx context.Context, a Actor, id string) (ToolView, error) { panic("pending") }

func (m *Manager) Requests(ctx context.Context, a Actor, in ListInput) ([]Request, error) {
	panic("pending")
}

func (m *Manager) Grants(ctx context.Context, a Actor, in GrantsInput) ([]Request, error) {
	panic("pending")
}

func (m *Manager) Approve(ctx context.Context, a Actor, request string, in DecisionInput) (Grant, error) {
	panic("pending")
}

func (m *Manager) Deny(ctx context.Context, a Actor, request, reason string) (Grant, error) {
	panic("pending")
}

func (m *Manager) Assign(ctx context.Context, a Actor, in AssignInput) (Grant, error) {
	panic("pending")
}

func (m *Manager) Revoke(ctx context.Context, a Actor, agent, tool string) (RevokedGrant, error) {
	panic("pending")
}

func (m *Manager) Narrow(ctx context.Context, a Actor, grant string, t Terms) (Grant, error) {
	panic("pending")
}

func (m *Manager) CreateOrganization(ctx context.Context, a Actor, in CreateOrganizationInput) (CreatedOrganization, error) {
	panic("pending")
}

func (m *Manager) Organization(ctx context.Context, a Actor) (Organization, error) { panic("pending") }
func (m *Manager) Organizations(ctx context.Context, a Actor) ([]Organization, error) {
	panic("pending")
}

func (m *Manager) UpdateOrganization(ctx context.Context, a Actor, name string) (Organization, error) {
	panic("pending")
}

func (m *Manager) Lock(ctx context.Context, a Actor, reason string) (Organization, error) {
	panic("pending")
}

func (m *Manager) Unlock(ctx context.Context, a Actor, reason string) (Organization, error) {
	panic("pending")
}

func (m *Manager) Authenticate(ctx context.Context, token *Secret, rc RequestContext) (Actor, error) {
	panic("pending")
}

func (m *Manager) AddAdministrator(ctx context.Context, a Actor, in AddAdministratorInput) (Administrator, error) {
	panic("pending")
}

func (m *Manager) UpdateAdministrator(ctx context.Context, a Actor, id string, in UpdateAdministratorInput) (Administrator, error) {
	panic("pending")
}

func (m *Manager) RemoveAdministrator(ctx context.Context, a Actor, id string) error {
	panic("pending")
}

func (m *Manager) Administrators(ctx context.Context, a Actor) ([]Administrator, error) {
	panic("pending")
}

func (m *Manager) CreateToken(ctx context.Context, a Actor, in CreateTokenInput) (IssuedToken, error) {
	panic("pending")
}

func (m *Manager) RevokeToken(ctx context.Context, a Actor, id string) error { panic("pending") }
func (m *Manager) Tokens(ctx context.Context, a Actor) ([]Token, error)      { panic("pending") }

func (m *Manager) Events(ctx context.Context, a Actor, in EventsInput) (EventsPage, error) {
	panic("pending")
}

func (m *Manager) Verify(ctx context.Context, a Actor) (audit.Report, error)      { panic("pending") }
func (m *Manager) Reconcile(ctx context.Context, a Actor) (Reconciliation, error) { panic("pending") }
func (m *Manager) Export(ctx context.Context, a Actor, w io.Writer) error         { panic("pending") }
func (m *Manager) Record(ctx context.Context, a Actor, in RecordInput) (int64, error) {
	panic("pending")
}

func (m *Manager) Run(ctx context.Context) error { panic("pending") }
