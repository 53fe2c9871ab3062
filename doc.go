// Package agentkey stands between AI agents and the credentials they use.
//
// An agent starts with access to nothing. It sees a catalog of tools and asks
// for one with a reason; a person approves; from then on the agent fetches the
// credential when it needs it, until the grant is revoked or ends. Every step is
// an event of an append-only log that can be verified.
//
// A [Manager] does all of it: it seals, decides, vends and records. [New] makes
// one from a [Config], of which only Storage and Keys are required:
//
//	m, err := agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys})
//
// Package storage/memstore keeps everything in memory, storage/bunstore in SQLite
// or Postgres; vault/localkey holds a key in the process. The three seams are
// [storage.Store], [vault.KeyProvider] and [Notifier].
//
// # Who acts
//
// Agents' calls ([Manager.Catalog], [Manager.RequestAccess], [Manager.Vend] and
// the like) take a [Caller]: [Key], the key as the agent presents it, or
// [TrustedAgent], for a host that authenticated the agent itself. Administrators'
// calls take an [Actor], whose role is checked against one table, see
// [Operations]. A host passes its own people as Actors, or lets the Manager keep
// administrators with tokens, see [Manager.Authenticate].
//
// # What holds
//
//   - No credential leaves before the event that records it is durable.
//   - A vend that begins after [Manager.Revoke] has returned is refused, and none
//     stands in the log above the revocation.
//   - What is unknown, unreadable or undecidable is refused. An error belongs to
//     one of the families of this package, see [ErrRefused] and its neighbours.
//   - Importing this package links no ORM, no database driver and no HTTP framework.
//
// Revoking does not recall what an agent already holds: [Manager.Revoke] says how
// often the credential was vended, so that one can decide to replace it upstream.
package agentkey
