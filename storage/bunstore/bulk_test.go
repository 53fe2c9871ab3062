package bunstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/storage"
)

// roles hides every optional power of what reads.
type roles struct{ storage.ReadTx }

// readsAlike fails unless a bulk read finds what the roles do, one by one.
func readsAlike(t *testing.T, ctx context.Context, tx storage.Tx, q storage.BulkQuery) storage.Bulk {
	t.Helper()
	is := is.New(t)
	got, err := storage.ReadBulk(ctx, tx, q)
	is.NoErr(err)
	want, err := storage.ReadBulk(ctx, roles{tx}, q)
	is.NoErr(err)
	is.Equal(printed(got), printed(want))
	return got
}

// TestReadBulk: what is read in one statement is what the roles answer one by one.
func TestReadBulk(t *testing.T) {
	eachDialect(t, func(t *testing.T, p *place) {
		is := is.New(t)
		s := p.open(t)
		furnish(t, s, "acme", 4)
		furnish(t, s, "globex", 4) // has the same ids, and is never answered
		window := storage.WindowRef{Tier: "credential", Subject: "agent-001"}
		for _, org := range []string{"acme", "globex"} {
			update(t, s, org, func(ctx context.Context, tx storage.Tx) error {
				var p puts
				p.put(tx.PutTool(ctx, storage.Tool{
					Organization: org, ID: "other", ConfigKey: "other", Revision: 1, RequiredApprovals: 1, Mode: storage.PerAgent, Instructions: "é\n",
				}))
				own := storage.Credential{
					Organization: org, ID: "own", Tool: "tool", Grant: "grant-agent-001", Revision: 1, Status: storage.CredentialActive,
					Sealed: []byte{0, 1, 255}, SealedRevision: 1,
				}
				p.put(tx.PutCredential(ctx, own))
				p.put(true, tx.PutWindows(ctx, []storage.Window{{WindowRef: window, Times: []byte(org), UpdatedAt: noon}}))
				return p.err
			})
		}
		pair := func(agent, tool string) storage.Pair { return storage.Pair{Agent: agent, Tool: tool} }
		queries := []storage.BulkQuery{
			{},
			{Keys: []string{"key-agent-000"}, Agents: []string{"agent-000"}, Tools: []string{"tool"}, Pairs: []storage.Pair{pair("agent-000", "tool")}, Credentials: true},
			{
				Keys: []string{"key-agent-001", "key-agent-003", "none"}, Agents: []string{"agent-001", "agent-002", "none"}, Tools: []string{"tool", "other", "none"},
				Pairs:       []storage.Pair{pair("agent-001", "tool"), pair("agent-002", "tool"), pair("agent-001", "tool"), pair("agent-001", "none")},
				Credentials: true, Windows: []storage.WindowRef{window, {Tier: "credential", Subject: "agent-002"}},
			},
			{Tools: []string{"tool"}, Pairs: []storage.Pair{pair("agent-001", "tool")}},
		}
		for _, q := range queries {
			update(t, s, "acme", func(ctx context.Context, tx storage.Tx) error {
				readsAlike(t, ctx, tx, q)
				return nil
			})
		}
		for i, q := range queries {
			for _, foreseen := range queries { // more, less or just what is asked for
				is.NoErr(storage.UpdateBulk(t.Context(), s, "acme", foreseen, func(ctx context.Context, tx storage.Tx) error {
					want, err := storage.ReadBulk(ctx, roles{tx}, q)
					is.NoErr(err)
					got, err := storage.ReadBulk(ctx, tx, q)
					is.NoErr(err)
					found := printed(got)
					for _, row := range printed(want) {
						is.True(slices.Contains(found, row))
					}
					got, err = storage.ReadBulk(ctx, tx, q) // whatever came ahead is not answered twice
					is.NoErr(err)
					is.Equal(printed(got), printed(want))
					return nil
				}))
			}
			is.NoErr(storage.UpdateBulk(t.Context(), s, "acme", q, func(ctx context.Context, tx storage.Tx) error {
				is.NoErr(tx.PutWindows(ctx, []storage.Window{{WindowRef: window, Times: []byte{byte(i)}, UpdatedAt: noon}}))
				readsAlike(t, ctx, tx, q) // of what has been written since
				return nil
			}))
		}
		_, err := p.raw.Exec(p.named(`UPDATE @grants SET asked_scopes = 'no list'`))
		is.NoErr(err)
		for _, q := range queries[1:3] { // of one grant, and of some
			asked := false // what can't be read fails who reads it, as ever
			err = storage.UpdateBulk(t.Context(), s, "acme", q, func(ctx context.Context, tx storage.Tx) error {
				asked = true
				_, err := storage.ReadBulk(ctx, tx, q)
				return err
			})
			is.True(errors.Is(err, storage.ErrCorrupt))
			is.True(asked)
		}
		for _, unfit := range []storage.BulkQuery{{Agents: []string{"\x00"}}, {Keys: make([]string, storage.MaxIDs+1)}} {
			is.NoErr(storage.UpdateBulk(t.Context(), s, "nobody's", unfit, func(ctx context.Context, tx storage.Tx) error {
				b, err := storage.ReadBulk(ctx, tx, queries[1]) // of a log that has not begun
				is.Equal(b, storage.Bulk{})
				return err
			}))
		}
		is.NoErr(s.View(t.Context(), "nobody's", func(ctx context.Context, tx storage.ReadTx) error {
			b, err := storage.ReadBulk(ctx, tx, queries[1])
			is.Equal(b, storage.Bulk{})
			return err
		}))
		for _, q := range []storage.BulkQuery{
			{Keys: make([]string, storage.MaxIDs+1)}, {Agents: []string{"\x00"}}, {Pairs: []storage.Pair{pair("a", "\xff")}}, {Windows: []storage.WindowRef{{Tier: "\x00"}}},
		} {
			err := s.View(t.Context(), "acme", func(ctx context.Context, tx storage.ReadTx) error {
				_, err := storage.ReadBulk(ctx, tx, q)
				return err
			})
			is.True(errors.Is(err, storage.ErrInvalid))
		}
	})
}

// printed is what was found, in an order of its own.
func printed(b storage.Bulk) []string {
	all := []string{fmt.Sprintf("%+v", b.Organization)}
	add := func(item any) { all = append(all, fmt.Sprintf("%T %+v", item, item)) }
	for _, i := range b.DataKeys {
		add(i)
	}
	for _, i := range b.Keys {
		add(i)
	}
	for _, i := range b.Agents {
		add(i)
	}
	for _, i := range b.Tools {
		add(i)
	}
	for _, i := range b.Grants {
		add(i)
	}
	for _, i := range b.Credentials {
		add(i)
	}
	for _, i := range b.Windows {
		add(i)
	}
	slices.Sort(all)
	return all
}
