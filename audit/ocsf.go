package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// OCSFVersion is the version of the Open Cybersecurity Schema Framework that ExportOCSF writes.
const OCSFVersion = "1.3.0"

// The classes of OCSF that events are written as, and the activities in them.
const (
	ocsfAccountChange    = 3001 // agents and administrators, their keys and tokens: who may act
	ocsfAuthentication   = 3002 // who was not let in
	ocsfEntityManagement = 3004 // everything that is managed: tools, credentials, grants, organizations, the installation itself
	ocsfAPIActivity      = 6003 // what agents and people asked of the API, and what they were given or refused

	ocsfOther = 99
)

// ocsfEvent is an event in OCSF's terms. What a class doesn't have is left out.
type ocsfEvent struct {
	ActivityID   int             `json:"activity_id"`
	ActivityName string          `json:"activity_name,omitempty"`
	CategoryUID  int             `json:"category_uid"`
	ClassUID     int             `json:"class_uid"`
	TypeUID      int             `json:"type_uid"`
	Time         int64           `json:"time"` // milliseconds
	SeverityID   int             `json:"severity_id"`
	StatusID     int             `json:"status_id"`
	StatusCode   string          `json:"status_code,omitempty"`
	Count        int64           `json:"count,omitempty"`
	Duration     int64           `json:"duration,omitempty"` // milliseconds
	Message      string          `json:"message"`
	Metadata     ocsfMetadata    `json:"metadata"`
	Actor        *ocsfActor      `json:"actor,omitempty"`
	Comment      string          `json:"comment,omitempty"`
	Entity       *ocsfEntity     `json:"entity,omitempty"`
	User         *ocsfUser       `json:"user,omitempty"`
	Service      *ocsfNamed      `json:"service,omitempty"`
	Source       *ocsfEndpoint   `json:"src_endpoint,omitempty"`
	API          *ocsfAPI        `json:"api,omitempty"`
	HTTPRequest  *ocsfRequest    `json:"http_request,omitempty"`
	Resources    []ocsfEntity    `json:"resources,omitempty"`
	Unmapped     json.RawMessage `json:"unmapped"` // the event as it is signed, and its leaf hash
}

type ocsfMetadata struct {
	Version  string      `json:"version"`
	Product  ocsfProduct `json:"product"`
	LogName  string      `json:"log_name"`
	Sequence int64       `json:"sequence"`
	UID      string      `json:"uid"`
	Code     string      `json:"event_code"`
	Request  string      `json:"correlation_uid,omitempty"`
}

type ocsfProduct struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Version string `json:"version,omitempty"`
}

type ocsfActor struct {
	AppName string    `json:"app_name,omitempty"`
	User    *ocsfUser `json:"user,omitempty"`
}

type ocsfUser struct {
	UID        string `json:"uid,omitempty"`
	Name       string `json:"name,omitempty"`
	TypeID     int    `json:"type_id"`
	Type       string `json:"type,omitempty"`
	Credential string `json:"credential_uid,omitempty"`
}

type ocsfEntity struct {
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
	UID  string `json:"uid"`
}

type ocsfNamed struct {
	Name string `json:"name"`
}

type ocsfEndpoint struct {
	IP   string `json:"ip,omitempty"`
	Name string `json:"name,omitempty"`
}

type ocsfAPI struct {
	Operation string       `json:"operation"`
	Service   ocsfNamed    `json:"service"`
	Request   *ocsfRequest `json:"request,omitempty"`
}

type ocsfRequest struct {
	UID       string `json:"uid,omitempty"`
	UserAgent string `json:"user_agent,omitempty"`
}

// ExportOCSF writes the events that r reads as JSON in OCSF's terms, one a line, for tools that gather events of many products.
// Who is not let in is of the class Authentication; agents, administrators, their keys and tokens are Account Change; what agents
// and people ask for, and are given or refused, is API Activity; everything else is Entity Management. Under "unmapped" stand the
// leaf hash and the event's content as it is signed. Like ExportCSV it is a view, and has its errors; an event whose content
// was removed is left out. origin is the log's.
func ExportOCSF(ctx context.Context, w io.Writer, origin string, r Reader) error {
	out := bufio.NewWriterSize(w, 64<<10)
	to := json.NewEncoder(out)
	to.SetEscapeHTML(false)
	err := eachLine(ctx, r, func(l *Line, e *Event, p Personal) error {
		if e == nil {
			return nil
		}
		if err := to.Encode(ocsfOf(origin, l, e, p)); err != nil {
			return fmt.Errorf("audit: writing the export: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("audit: writing the export: %w", err)
	}
	return nil
}

func ocsfOf(origin string, l *Line, e *Event, p Personal) ocsfEvent {
	class, activity := ocsfClass(e.Action)
	o := ocsfEvent{
		ActivityID: activity, CategoryUID: class / 1000, ClassUID: class, TypeUID: class*100 + activity, Time: e.Time / 1000,
		SeverityID: ocsfSeverity(e), StatusID: 1, StatusCode: e.Reason, Count: e.Count, Duration: e.Span / 1000, Message: string(e.Action),
		Metadata: ocsfMetadata{
			Version: OCSFVersion, Product: ocsfProduct{"AgentKey", "AgentKey", e.Software}, LogName: origin, Sequence: l.Seq,
			UID: fmt.Sprintf("%s#%d", origin, l.Seq), Code: string(e.Action), Request: e.Request,
		},
		Actor:    ocsfActorOf(e, p),
		Unmapped: ocsfUnmapped(l),
	}
	if activity == ocsfOther {
		o.ActivityName = string(e.Action)
	}
	if e.Outcome != OutcomeOK {
		o.StatusID = 2
	}
	if p.Address != "" {
		o.Source = &ocsfEndpoint{IP: p.Address}
	}
	target := ocsfTarget(e, p)
	switch class {
	case ocsfAPIActivity:
		if o.Source == nil {
			o.Source = &ocsfEndpoint{Name: "unknown"}
		}
		o.API = &ocsfAPI{Operation: string(e.Action), Service: ocsfNamed{"agentkey"}}
		if e.Request != "" {
			o.API.Request = &ocsfRequest{UID: e.Request}
		}
		if p.UserAgent != "" {
			o.HTTPRequest = &ocsfRequest{UserAgent: p.UserAgent}
		}
		o.Resources = []ocsfEntity{target}
	case ocsfAuthentication:
		o.User, o.Service = ocsfPrincipal(e, p), &ocsfNamed{"agentkey"}
	case ocsfAccountChange:
		o.User = &ocsfUser{UID: target.UID, Name: target.Name, TypeID: ocsfOther, Type: target.Type}
	default:
		o.Entity, o.Comment = &target, p.Text
	}
	return o
}

// ocsfClass sorts an action by what it is about, and by its last word.
func ocsfClass(a Action) (class, activity int) {
	switch a {
	case ActionCredentialVended:
		return ocsfAPIActivity, 2 // read
	case ActionCredentialRefused, ActionGrantRequestRefused, ActionAuthorizationRefused, ActionRequestRateLimited:
		return ocsfAPIActivity, ocsfOther
	case ActionGrantRequested, ActionGrantRequestedFromSuggestion:
		return ocsfAPIActivity, 1
	case ActionAuthFailed, ActionAuthRejected, ActionAuthRejectedSuspended:
		return ocsfAuthentication, 1 // logon
	case ActionAgentSuspended:
		return ocsfAccountChange, 5
	case ActionAgentReactivated:
		return ocsfAccountChange, 2
	}
	first, _, _ := strings.Cut(string(a), ".")
	last := string(a)[strings.LastIndexByte(string(a), '.')+1:]
	if first == "agent" || first == "administrator" || first == "token" {
		switch last {
		case "created":
			return ocsfAccountChange, 1
		case "removed":
			return ocsfAccountChange, 6
		}
		return ocsfAccountChange, ocsfOther
	}
	switch last {
	case "created", "registered", "assigned", "version_created":
		return ocsfEntityManagement, 1
	case "exported":
		return ocsfEntityManagement, 2
	case "updated", "narrowed", "approved", "denied", "revoked", "expired", "locked", "unlocked", "restored", "replaced", "credential_replaced":
		return ocsfEntityManagement, 3
	case "deleted", "removed", "destroyed", "credential_removed":
		return ocsfEntityManagement, 4
	}
	return ocsfEntityManagement, ocsfOther
}

// ocsfSeverity is 1 (informational), 2 (low) for what was refused, and 4 (high) for what must never be.
func ocsfSeverity(e *Event) int {
	switch {
	case e.Action == ActionIntegrityFailed, e.Action == ActionLogReconcileFailed:
		return 4
	case e.Outcome != OutcomeOK:
		return 2
	}
	return 1
}

func ocsfActorOf(e *Event, p Personal) *ocsfActor {
	if e.Actor.Kind == ActorSystem {
		return &ocsfActor{AppName: "agentkey"}
	}
	return &ocsfActor{User: ocsfPrincipal(e, p)}
}

// ocsfPrincipal is who acted, or tried to. This version of the schema has no type for services, such as agents.
func ocsfPrincipal(e *Event, p Personal) *ocsfUser {
	u := &ocsfUser{UID: e.Actor.ID, Name: p.ActorLabel, TypeID: ocsfOther, Type: e.Actor.Kind, Credential: e.Actor.Credential}
	switch e.Actor.Kind {
	case ActorHuman:
		u.TypeID = 1
	case ActorSystem:
		u.TypeID = 3
	}
	if u.UID == "" && u.Name == "" {
		u.Name, u.TypeID = "unknown", 0
	}
	return u
}

// ocsfTarget is what an event is about.
func ocsfTarget(e *Event, p Personal) ocsfEntity {
	t := ocsfEntity{Type: e.Target.Kind, UID: e.Target.ID}
	switch {
	case t.UID == "" && e.Tool != "":
		t = ocsfEntity{Type: KindTool, UID: e.Tool}
	case t.UID == "" && e.Agent != "":
		t = ocsfEntity{Type: KindAgent, UID: e.Agent}
	case t.UID == "":
		t = ocsfEntity{Type: KindOrganization, UID: e.Organization}
	}
	switch {
	case t.Type == KindTool && t.UID == e.Tool:
		t.Name = p.ToolLabel
	case t.Type == KindAgent && t.UID == e.Agent:
		t.Name = p.AgentLabel
	}
	return t
}

// ocsfUnmapped holds what is signed. The content was parsed, so it is JSON as it stands.
func ocsfUnmapped(l *Line) json.RawMessage {
	out := append([]byte(`{"leaf":"`), l.Leaf.String()...)
	out = append(append(out, `","event":`...), l.Content...)
	return append(out, '}')
}
