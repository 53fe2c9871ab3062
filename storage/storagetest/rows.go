package storagetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/grants"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// The organizations of the tests. Rows of both have the same ids.
const (
	acme   = "acme"
	globex = "globex"
)

// clock is the time of the tests.
const clock = int64(1_750_000_000_000_000)

// odd is text that databases and their drivers like to change: other alphabets,
// quotes, placeholders, wildcards, controls, a byte order mark, spaces at the end.
const odd = "ß☃𝄞 'a' \"b\" \\ ? $1 :x %_ \x01\x1f\x7f\u0085\u2028\ufeff\ufffd é e\u0301 \r\n\t "

// fill gives every field that isn't set a value. Variant 0 leaves the empty
// values, 1 takes the greatest and odd ones, 2 the least, 3 empty slices.
func fill(row any, variant int) { fillValue(reflect.ValueOf(row).Elem(), variant) }

func fillValue(v reflect.Value, variant int) {
	switch {
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fillValue(v.Field(i), variant)
		}
		return
	case !v.IsZero():
		return
	}
	if words := vocabulary(v.Type()); words != nil {
		v.SetString(words[variant%len(words)])
		return
	}
	if variant == 3 && v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	}
	if variant != 1 && variant != 2 {
		return
	}
	switch v.Interface().(type) {
	case string:
		v.SetString(fmt.Sprint(odd, variant))
	case int64:
		v.SetInt([]int64{math.MaxInt64, math.MinInt64}[variant-1])
	case bool:
		v.SetBool(variant == 1)
	case []byte:
		v.SetBytes(everyByte(variant))
	case []string:
		v.Set(reflect.ValueOf([]string{odd, "", strconv.Itoa(variant), `["]`}))
	default:
		failf("the suite can't fill a column of type %v", v.Type())
	}
}

// vocabulary are the words of a column that doesn't take any other.
func vocabulary(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[storage.AgentStatus]():
		return []string{string(storage.AgentActive), string(storage.AgentSuspended)}
	case reflect.TypeFor[storage.KeyStatus]():
		return []string{string(storage.KeyActive), string(storage.KeyRevoked), string(storage.KeyExpired)}
	case reflect.TypeFor[storage.CredentialMode]():
		return []string{string(storage.Shared), string(storage.PerAgent)}
	case reflect.TypeFor[storage.CredentialStatus]():
		return []string{string(storage.CredentialActive), string(storage.CredentialExpired)}
	case reflect.TypeFor[storage.DeliveryState]():
		return []string{string(storage.DeliveryPending), string(storage.DeliveryDead)}
	case reflect.TypeFor[vault.Purpose]():
		return []string{string(vault.PurposeSeal), string(vault.PurposeRow), string(vault.PurposeSign)}
	case reflect.TypeFor[vault.KeyState]():
		return []string{string(vault.KeyActive), string(vault.KeyDecryptOnly), string(vault.KeyDestroyed)}
	case reflect.TypeFor[grants.Verdict]():
		return []string{string(grants.VerdictApprove), string(grants.VerdictDeny)}
	case reflect.TypeFor[grants.Status]():
		var words []string
		for _, s := range grants.Statuses() {
			words = append(words, string(s))
		}
		return words
	}
	return nil
}

func everyByte(turn int) []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i + turn)
	}
	return b
}

// same reports whether two rows are equal, empty slices and nil alike.
func same(a, b any) bool {
	return reflect.DeepEqual(plain(reflect.ValueOf(a)), plain(reflect.ValueOf(b)))
}

// plain is a copy in which every empty slice is nil.
func plain(v reflect.Value) any {
	if !v.IsValid() {
		return nil
	}
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	level(c)
	return c.Interface()
}

func level(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			level(v.Field(i))
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.SetZero()
			return
		}
		c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(c, v)
		v.Set(c)
		if k := v.Type().Elem().Kind(); k == reflect.Struct || k == reflect.Slice {
			for i := range v.Len() {
				level(v.Index(i))
			}
		}
	}
}

// differences names the columns in which two rows differ.
func differences(got, want any) string {
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	if g.Kind() != reflect.Struct || g.Type() != w.Type() {
		return fmt.Sprintf("%+v, not %+v", got, want)
	}
	var list []string
	for i := range g.NumField() {
		if a, b := g.Field(i).Interface(), w.Field(i).Interface(); !same(a, b) {
			list = append(list, fmt.Sprintf("%s is %#v, not %#v", g.Type().Field(i).Name, a, b))
		}
	}
	return strings.Join(list, "; ")
}

// scribble writes over every slice of a row, as a caller might who owns it.
func scribble(row any) { scribbleValue(reflect.ValueOf(row).Elem()) }

func scribbleValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			scribbleValue(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			scribbleValue(v.Index(i))
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			for i := range v.Len() {
				v.Index(i).SetUint(0xEE)
			}
		}
		if v.Type().Elem().Kind() == reflect.String {
			for i := range v.Len() {
				v.Index(i).SetString("scribbled")
			}
		}
	}
}

func organization(id string) storage.Organization {
	return storage.Organization{ID: id, Name: "Organization", CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal")}
}

func agent(org, id string) storage.Agent {
	return storage.Agent{
		Organization: org, ID: id, Name: "Agent " + id, Status: storage.AgentActive,
		CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

// agentKey is a key whose digest is that of its organization and id.
func agentKey(org, id, agent string) storage.Key {
	digest := sha256.Sum256([]byte(org + "/" + id))
	return storage.Key{
		Organization: org, ID: id, Agent: agent, Digest: digest[:], Status: storage.KeyActive,
		CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func tool(org, id string) storage.Tool {
	return storage.Tool{
		Organization: org, ID: id, ConfigKey: "config-" + id, Name: "Tool " + id, AuthType: "bearer",
		Mode: storage.Shared, RequiredApprovals: 1, CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func credential(org, id, tool, grant string) storage.Credential {
	return storage.Credential{
		Organization: org, ID: id, Tool: tool, Grant: grant, AuthType: "bearer", Status: storage.CredentialActive,
		Sealed: []byte("sealed"), CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func grant(org, id, agent, tool string) grants.Grant {
	return grants.Grant{
		Organization: org, ID: id, Agent: agent, Tool: tool, Cycle: 1, Status: grants.StatusPending, Reason: "because",
		RequiredApprovals: 1, RequestedAt: clock, CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func approval(org, grant, actor string) grants.Approval {
	return grants.Approval{
		Organization: org, Grant: grant, Cycle: 1, Actor: actor, ActorKind: "human", Verdict: grants.VerdictApprove,
		Time: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func dataKey(org, id string, p vault.Purpose) storage.DataKey {
	return storage.DataKey{
		Organization: org, ID: id, Purpose: p, State: vault.KeyActive, Provider: "local:test", Wrapped: []byte("wrapped"),
		CreatedAt: clock, UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func record(org, kind, id string, index ...storage.IndexEntry) storage.Record {
	return storage.Record{
		Organization: org, Kind: kind, ID: id, Index: index, Payload: []byte("payload of " + id),
		UpdatedAt: clock, Revision: 1, Seal: []byte("seal"),
	}
}

func delivery(org, id string, due int64) storage.Delivery {
	return storage.Delivery{
		Organization: org, ID: id, Topic: "topic", Payload: []byte("payload of " + id),
		State: storage.DeliveryPending, CreatedAt: clock, NextAt: due,
	}
}

// base are the rows that the others refer to.
func base(ctx context.Context, tx storage.Tx, org string) {
	yes(tx.PutOrganization(ctx, organization(org)))
	yes(tx.PutAgent(ctx, agent(org, "agent-0")))
	yes(tx.PutTool(ctx, tool(org, "tool-0")))
	yes(tx.PutTool(ctx, tool(org, "tool-1")))
	yes(tx.PutGrant(ctx, grant(org, "grant-0", "agent-0", "tool-0")))
}

// event is one to append; number, time and organization are set then.
func event(action audit.Action) audit.Event {
	return audit.Event{
		Actor: audit.Actor{Kind: audit.ActorHuman, ID: "actor-0"}, Action: action,
		Outcome: audit.OutcomeOK, Salt: make([]byte, 16),
	}
}

// appendTo adds events at the end of the log and answers the lines.
func appendTo(ctx context.Context, tx storage.Tx, org string, keep bool, events ...audit.Event) []audit.Line {
	a := following(got(tx.Head(ctx)), org, events...)
	a.Keep = keep
	ok(tx.Append(ctx, a))
	return a.Lines
}

// following is what adds events to a log with that head.
func following(head storage.Head, org string, events ...audit.Event) storage.Append {
	tree, err := audit.ParseTree(head.Size, head.Edge)
	ok(err)
	var a storage.Append
	at := max(head.Time, clock)
	for i, e := range events {
		e.Organization, e.Seq = org, head.Size+int64(i)
		at = max(at+1, e.Time)
		e.Time = at
		content, err := e.Encode()
		ok(err)
		leaf := audit.LeafHash(content)
		tree.Append(leaf)
		a.Lines = append(a.Lines, audit.Line{Seq: e.Seq, Content: content, Personal: everyByte(i), Leaf: leaf})
	}
	a.Head = audit.Head{Epoch: max(head.Epoch, 1), Size: tree.Size(), Edge: tree.Edge(), Time: at}
	a.Head.Signed = fmt.Appendf(nil, "signed head of %d", tree.Size())
	a.Seal = fmt.Appendf(nil, "seal of %d", tree.Size())
	return a
}

func ids[R any](rows []R, id func(R) string) []string {
	var list []string
	for _, r := range rows {
		list = append(list, id(r))
	}
	return list
}

func descending(list []string) []string {
	sorted := slices.Sorted(slices.Values(list))
	slices.Reverse(sorted)
	return sorted
}
