// Package console is a host that embeds AgentKey: a small control plane with a
// Postgres database, people and migrations of its own. It is meant to be read and
// copied.
//
//   - migrate.go: AgentKey's tables stand in the schema "agentkey" of the host's
//     database, beside the host's own, and each migrates by itself.
//   - people.go: the host's people act in AgentKey with the roles that the host
//     gave them. They are looked up for each call: who left may do nothing more.
//   - console.go: a Manager over the host's own *bun.DB, and what the host does
//     recorded in AgentKey's log.
package console
