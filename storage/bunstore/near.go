package bunstore

import (
	"context"
	"errors"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
)

// rowids remembers in which rows of their tables records were found. SQLite comes
// to a row by its number through one tree; by its key it goes through the index
// first, of which a large database has more than fits into memory. What is
// remembered decides nothing: a row is read where it stands now, and counts only
// if it is the record that is looked for.
//
// It takes 512 KiB, enough for the vends of 16,384 agents. A slot is 32 bits of a
// record's hash and 32 of its row's number; of two that lie together one has who
// came last, the other who came before. Nothing locks them: what is lost is looked
// up again.
type rowids struct {
	seed  maphash.Seed
	slots [2 * 32_768]atomic.Uint64
}

func newRowids() *rowids { return &rowids{seed: maphash.MakeSeed()} }

// sought is a record's key within its organization and table: its id, or the agent
// and the tool that a grant is of.
type sought [2]string

// slotsOf are where the number of a record's row may be, and the hash that says so.
func (n *rowids) slotsOf(table, organization string, s sought) (slots []atomic.Uint64, hash uint64) {
	var h maphash.Hash
	h.SetSeed(n.seed)
	for _, part := range [...]string{table, organization, s[0], s[1]} {
		_, _ = h.WriteString(part)
		_ = h.WriteByte(0)
	}
	hash = h.Sum64()
	at := hash % uint64(len(n.slots)/2) * 2
	return n.slots[at : at+2], hash &^ math.MaxUint32
}

// find is the number of the row, or 0.
func (n *rowids) find(table, organization string, s sought) int64 {
	slots, hash := n.slotsOf(table, organization, s)
	for i := range slots {
		if v := slots[i].Load(); v&^math.MaxUint32 == hash {
			return int64(v & math.MaxUint32)
		}
	}
	return 0
}

// keep remembers a row, unless its number is of the few that take more bits.
func (n *rowids) keep(table, organization string, s sought, row int64) {
	if row <= 0 || row > math.MaxUint32 {
		return
	}
	slots, hash := n.slotsOf(table, organization, s)
	was, now := slots[0].Load(), hash|uint64(row)
	if was == now || slots[1].Load() == now {
		return
	}
	if was&^math.MaxUint32 != hash {
		slots[1].Store(was)
	}
	slots[0].Store(now)
}

// near reads records of one relation by the rows that they were last found in.
type near[T any] struct {
	rel          *relation[T]
	table        string
	byRow, byKey statement
	key          func(*T) sought
}

func newNear[T any](rel *relation[T], table, columns string, key func(*T) sought) *near[T] {
	of := strings.Fields(columns)
	selected := "SELECT " + rel.list("r") + ", r.rowid FROM @list CROSS JOIN @" + statement(table) + " AS r WHERE "
	n := &near[T]{rel: rel, table: table, key: key, byRow: selected + "r.rowid = p.v AND +r.organization = ?", byKey: selected + "r.organization = ?"}
	for i, column := range of {
		n.byKey += statement(" AND r." + column + " = p.v ->> " + string(rune('0'+i)))
	}
	return n
}

var (
	nearKeys   = newNear(keyRelation, "keys", "id", func(k *storage.Key) sought { return sought{k.ID} })
	nearAgents = newNear(agentRelation, "agents", "id", func(a *storage.Agent) sought { return sought{a.ID} })
	nearGrants = newNear(grantRelation, "grants", "agent_id tool_id", func(g *grants.Grant) sought { return sought{g.Agent, g.Tool} })
)

// read reads each record once: by its row if one is remembered, and by its key if
// none is, or if it is another's by now.
func (n *near[T]) read(ctx context.Context, r *reader, wanted []sought) ([]T, error) {
	missing, rows := make(map[sought]bool, len(wanted)), make([]int64, 0, len(wanted))
	for _, s := range wanted {
		missing[s] = true
		if row := r.store.rowids.find(n.table, r.organization, s); row != 0 {
			rows = append(rows, row)
		}
	}
	found := make([]T, 0, len(missing))
	record, empty, row := new(T), *new(T), int64(0)
	fields := append(n.rel.fields(record), &row)
	take := func(from Row) error {
		*record = empty
		if err := scan(from, fields...); err != nil {
			return err
		}
		s := n.key(record)
		if missing[s] {
			delete(missing, s)
			r.store.rowids.keep(n.table, r.organization, s, row)
			found = append(found, *record)
		}
		return nil
	}
	err := readList(ctx, r, n.byRow, rows, take)
	if errors.Is(err, storage.ErrCorrupt) { // maybe of whatever stands there now
		found, err = found[:0], nil
		for _, s := range wanted {
			missing[s] = true
		}
	}
	if err != nil || len(missing) == 0 {
		return found, err
	}
	return found, readList(ctx, r, n.byKey, slices.DeleteFunc(unique(wanted), func(s sought) bool { return !missing[s] }), take)
}

// readList reads what a list names.
func readList[T any](ctx context.Context, r *reader, q statement, items []T, take func(Row) error) error {
	if len(items) == 0 {
		return nil
	}
	text, err := list(items)
	if err != nil {
		return err
	}
	return r.each(ctx, q, []any{text, r.organization}, take)
}

// nearby is a reader that finds what a vend needs of many by their rows, and has
// no other power.
type nearby struct {
	storage.ReadTx
	r *reader
}

func (n nearby) Keys(ctx context.Context, q storage.KeyQuery) ([]storage.Key, error) {
	return nearKeys.read(ctx, n.r, byID(q.IDs))
}

func (n nearby) Agents(ctx context.Context, q storage.AgentQuery) (p storage.AgentPage, err error) {
	p.Agents, err = nearAgents.read(ctx, n.r, byID(q.IDs))
	return p, err
}

func (n nearby) Grants(ctx context.Context, q storage.GrantQuery) (p storage.GrantPage, err error) {
	wanted := make([]sought, len(q.Pairs))
	for i, pair := range q.Pairs {
		wanted[i] = sought{pair.Agent, pair.Tool}
	}
	p.Grants, err = nearGrants.read(ctx, n.r, wanted)
	return p, err
}

func byID(ids []string) []sought {
	wanted := make([]sought, len(ids))
	for i, id := range ids {
		wanted[i] = sought{id}
	}
	return wanted
}
