// Package client speaks the HTTP API of an AgentKey server: [Admin] with an
// administrator's token, [Agent] with an agent's key.
//
// Both are safe for concurrent use. Tokens and keys are held in a vault.Secret
// and sent in the Authorization header only; no error, log or printed value
// shows them. They are never sent in the clear: plain HTTP is refused unless
// the server is on this machine. Redirects are not followed.
//
// Reads that are answered 429 or 503 are repeated after the time that the
// server asks for, within [Options.MaxWait]. Changes and vends are never
// repeated: whether one was done is for the caller to find out.
package client
