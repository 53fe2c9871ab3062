package histories

import "context"

// Call is an input with the ids and secrets that it stands for.
type Call struct {
	Input
	AgentID, ToolID string
	KeyText         string // of the key presented; empty for a trusted caller
	GrantID         string
	Wish            string // the suggestion to dismiss
	Wanted          string // the name of the wanted tool
	FactID          string // the instruction suggestion decided on
	Instructions    string // the instructions brought along
	Secret          string // of the credential brought along
}

// Answer is what a call was answered, as far as it tells.
type Answer struct {
	Output
	Secret  string // the credential vended
	GrantID string // the grant decided on or asked for
	KeyText string // the key made
	Wish    string // the suggestion made or joined
	FactID  string // the instruction suggestion made or joined
	Guide   string // the instructions vended
	ToolID  string // the tool added
}

// Target is one way into an installation: a Manager, or the client of a server.
// It is safe for concurrent use.
type Target interface {
	// RegisterAgent makes an agent, which none of the actors owns, and answers its
	// id and its key.
	RegisterAgent(ctx context.Context, name string) (id, key string, err error)
	// AddTool makes a tool, shared if it is given a credential, else with one for
	// each agent, which needs so many approvals.
	AddTool(ctx context.Context, name, credential string, approvals int64) (id string, err error)
	// Do makes the call. An error of the library is an Answer with its code.
	Do(ctx context.Context, c Call) Answer
}
