// Package contract holds the tests that the server speaks the API of the
// existing AgentKey service: section by section over HTTP, on SQLite and on
// Postgres. docs/contract.md says which test shows what.
package contract
