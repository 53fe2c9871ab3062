// Package refserver is the reference server: the agents' and the administrators'
// API over a Manager, on one listener, with health checks and a graceful end.
//
// A host with a server of its own mounts the handlers of agentapi and adminapi
// instead.
package refserver
