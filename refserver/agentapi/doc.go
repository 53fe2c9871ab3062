// Package agentapi is the API that agents speak: an http.Handler over a Manager.
//
//	mux := http.NewServeMux()
//	mux.Handle("/api/", agentapi.New(manager, agentapi.Options{}))
//
// It translates and decides nothing: every call is authenticated, counted,
// decided and recorded by the Manager. Answers are bare JSON objects in
// snake_case; errors are {"error", "hint", "details"}, or
// application/problem+json for clients that ask for it.
package agentapi
