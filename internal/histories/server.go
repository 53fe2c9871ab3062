package histories

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// Server is a Target over HTTP. It neither moves a clock nor sweeps, and its
// answers tell less than a Manager's do.
type Server struct {
	url     string
	admin   *client.Admin // the first of the actors
	admins  [Actors]*client.Admin
	options client.Options
	cuts    int64
	calls   atomic.Int64
}

var _ Target = (*Server)(nil)

// NewServer makes a client of the server at the URL, with the tokens of two
// administrators of one organization, an owner's first. Of every cuts calls one is
// cut off, by turns before the answer and in the middle of it; zero cuts none.
func NewServer(url string, tokens [Actors]*vault.Secret, cuts int64) (*Server, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 32
	s := &Server{url: url, cuts: cuts, options: client.Options{HTTP: &http.Client{Transport: cutting{transport}}, MaxWait: -1}}
	for i, token := range tokens {
		var err error
		if s.admins[i], err = client.NewAdmin(url, token, s.options); err != nil {
			return nil, err
		}
	}
	s.admin = s.admins[0]
	return s, nil
}

// RegisterAgent makes an agent.
func (s *Server) RegisterAgent(ctx context.Context, name string) (id, key string, err error) {
	issued, err := s.admin.RegisterAgent(ctx, client.NewAgentRecord{Name: name, Owner: owner})
	if err != nil {
		return "", "", err
	}
	defer issued.Secret.Destroy()
	return issued.Agent, string(issued.Secret.Bytes()), nil
}

// AddTool makes a tool.
func (s *Server) AddTool(ctx context.Context, name, credential string, approvals int64) (string, error) {
	mode, secret := string(storage.PerAgent), (*vault.Secret)(nil)
	if credential != "" {
		mode, secret = string(storage.Shared), vault.NewSecret([]byte(credential))
	}
	t, err := s.admin.AddTool(ctx, client.NewTool{Name: name, AuthType: "api_key", Mode: mode, RequiredApprovals: approvals}, secret)
	return t.ID, err
}

// Do makes the call.
func (s *Server) Do(ctx context.Context, c Call) Answer {
	if n := s.calls.Add(1); s.cuts > 0 && n%s.cuts == 0 {
		ctx = context.WithValue(ctx, cutAt{}, n/s.cuts%2 == 0)
	}
	a, err := s.do(ctx, c)
	if err != nil {
		is := remoteCode(err)
		if c.Kind == Learn && is == agentkey.ErrSuggestionDismissed.Code {
			is = agentkey.ErrInstructionsDismissed.Code // its text is the same
		}
		return Answer{Output: Output{Code: is}}
	}
	a.Left, a.Cycle, a.Revoked = Untold, Untold, Untold
	return a
}

func (s *Server) do(ctx context.Context, c Call) (a Answer, err error) {
	terms := client.Decision{MaxVends: c.Terms.Max, ExpiresIn: client.Seconds(c.Terms.duration())}
	switch c.Kind {
	case Vend, Request, Suggest, Learn:
		return s.agent(ctx, c)
	case Approve:
		return decidedThere(s.admins[c.Actor].Approve(ctx, c.GrantID, terms, c.secret()))
	case Deny:
		return decidedThere(s.admins[c.Actor].Deny(ctx, c.GrantID, "no"))
	case Assign:
		return decidedThere(s.admins[c.Actor].Assign(ctx, c.AgentID, c.ToolID, terms, c.secret()))
	case Narrow:
		return decidedThere(s.admin.Narrow(ctx, c.GrantID, terms))
	case Lock:
		_, err = s.admin.Lock(ctx, reason)
	case Unlock:
		_, err = s.admin.Unlock(ctx, reason)
	case Revoke:
		_, err = s.admin.Revoke(ctx, c.AgentID, c.ToolID)
	case Suspend:
		err = s.admin.SuspendAgent(ctx, c.AgentID)
	case Reactivate:
		err = s.admin.ReactivateAgent(ctx, c.AgentID)
	case Rotate:
		issued, err := s.admin.RotateKey(ctx, c.AgentID, client.NewKey{})
		if err != nil {
			return a, err
		}
		defer issued.Secret.Destroy()
		a.KeyText = string(issued.Secret.Bytes())
	case Replace:
		_, err = s.admin.UpdateTool(ctx, c.ToolID, client.ToolChange{}, c.secret())
	case Dismiss:
		_, err = s.admin.DismissToolSuggestion(ctx, c.Wish)
	case Add:
		a.ToolID, err = s.AddTool(ctx, c.Wanted, c.Secret, 1)
	case Reject:
		_, err = s.admin.DismissInstructionSuggestion(ctx, c.FactID, reason)
	case Accept, Rewrite:
		_, err = s.admin.UpdateTool(ctx, c.ToolID, client.ToolChange{Instructions: &c.Instructions, AcceptSuggestion: c.FactID}, nil)
	case Advance, Sweep:
		err = client.ErrAnswer // a history of servers has none of these
	}
	return a, err
}

func (s *Server) agent(ctx context.Context, c Call) (a Answer, err error) {
	key := vault.NewSecret([]byte(c.KeyText))
	defer key.Destroy()
	agent, err := client.NewAgent(s.url, key, s.options)
	if err != nil {
		return a, err
	}
	switch c.Kind {
	case Suggest:
		made, err := agent.SuggestTool(ctx, client.ToolWish{Name: c.Wanted, Reason: reason})
		return Answer{Output: Output{Joined: made.Existing}, Wish: made.ID}, err
	case Learn:
		made, err := agent.SuggestInstructions(ctx, c.ToolID, fact, reason)
		return Answer{Output: Output{Joined: made.Existing}, FactID: made.ID}, err
	case Request:
		r, err := agent.RequestAccess(ctx, c.ToolID, client.AccessRequest{
			Reason: reason, MaxVends: c.Terms.Max, Duration: client.Seconds(c.Terms.duration()),
		})
		a.GrantID = r.ID
		return a, err
	}
	v, err := agent.Credential(ctx, c.ToolID)
	if err != nil {
		return a, err
	}
	defer v.Secret.Destroy()
	a.Secret, a.Guide = string(v.Secret.Bytes()), v.Instructions
	return a, nil
}

func decidedThere(g client.Grant, err error) (Answer, error) { return Answer{GrantID: g.ID}, err }

// remoteCode is what the model calls an error of the client. An answer that did
// not arrive, or that the server gave up on, may stand for anything.
func remoteCode(err error) string {
	var answer *client.Error
	switch {
	case errors.Is(err, client.ErrAnswer):
		return Internal
	case !errors.As(err, &answer):
		return Unknown
	}
	for _, known := range []*agentkey.Error{
		agentkey.ErrKeyRevoked, agentkey.ErrUnknownKey, agentkey.ErrSuspended, agentkey.ErrNoGrant, agentkey.ErrPending,
		agentkey.ErrDenied, agentkey.ErrRevoked, agentkey.ErrExpired, agentkey.ErrUsedUp, agentkey.ErrNoRequest,
		agentkey.ErrAlreadyPending, agentkey.ErrAlreadyApproved, agentkey.ErrNotPending, agentkey.ErrAgentSuspended,
		agentkey.ErrAgentActive, agentkey.ErrOrganizationLocked, agentkey.ErrNotApproved, agentkey.ErrAlreadyDecided, agentkey.ErrApprovalsRequired,
		agentkey.ErrChanged, agentkey.ErrClosed, agentkey.ErrStorage, agentkey.ErrKeys,
		agentkey.ErrToolExists, agentkey.ErrSuggestionDismissed, agentkey.ErrSuggestionDecided, agentkey.ErrInstructionsAccepted, agentkey.ErrInstructionsChanged,
		agentkey.ErrLimiter, agentkey.ErrClock, agentkey.ErrIntegrity, agentkey.ErrNoCredential,
	} {
		if answer.Message == known.Text {
			return code(known)
		}
	}
	switch answer.Status {
	case http.StatusServiceUnavailable:
		return Unknown
	case http.StatusBadRequest:
		return Invalid
	}
	return Internal
}

// cutAt marks the context of a call that is cut off: when the answer has come, or
// as soon as the request is sent.
type cutAt struct{}

// cutting cuts off the calls that are marked.
type cutting struct{ base http.RoundTripper }

var errCut = errors.New("histories: connection cut")

// RoundTrip makes one round trip.
func (c cutting) RoundTrip(req *http.Request) (*http.Response, error) {
	answered, cut := req.Context().Value(cutAt{}).(bool)
	if !cut {
		return c.base.RoundTrip(req)
	}
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	if !answered {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { cancel() }})
	}
	res, err := c.base.RoundTrip(req.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	return nil, errors.Join(errCut, err, res.Body.Close())
}
