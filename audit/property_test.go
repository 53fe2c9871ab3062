package audit_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/agentkey-dev/agentkey-go/audit"
)

var (
	ids     = rapid.StringMatching(`[!-~]{1,128}`)
	codes   = rapid.StringMatching(`[a-z0-9_]{1,64}`)
	names   = rapid.StringMatching(`[A-Za-z0-9._-]{1,128}`)
	keys    = rapid.StringMatching(`[a-z][a-z0-9_]{0,63}`)
	numbers = rapid.OneOf(rapid.Int64Range(1, 3), rapid.Int64Range(1, audit.MaxInteger))
	hashes  = rapid.SliceOfN(rapid.Byte(), 32, 32)
	salts   = rapid.SliceOfN(rapid.Byte(), 16, 16)
)

// texts returns texts of at most limit bytes over an alphabet that JSON writers disagree on, or over ASCII alone.
func texts(ascii bool, limit int) *rapid.Generator[string] {
	alphabet := []rune{'a', 'Z', '"', '\\', '/', '<', '>', '&', ' ', '~', '\u007f', '\t', '\n', '\r', '\b', '\f', 1, 0x1f}
	if !ascii {
		alphabet = append(alphabet, 'é', '\u2028', '\u2029', '\ufeff', '\ufffd', '\uffff', '😀', '\u202e')
	}
	return rapid.StringOfN(rapid.SampledFrom(alphabet), 0, limit/4, limit)
}

func maybe[T any](t *rapid.T, g *rapid.Generator[T], label string) T {
	var zero T
	if !rapid.Bool().Draw(t, "has "+label) {
		return zero
	}
	return g.Draw(t, label)
}

func drawEvent(t *rapid.T, ascii bool) audit.Event {
	e := audit.Event{
		Seq: rapid.Int64Range(0, audit.MaxInteger).Draw(t, "seq"), Time: rapid.Int64Range(0, audit.MaxInteger).Draw(t, "time"),
		Organization: names.Draw(t, "organization"), Action: audit.Action("x." + codes.Draw(t, "host") + "." + codes.Draw(t, "verb")),
		Outcome: rapid.SampledFrom([]audit.Outcome{audit.OutcomeOK, audit.OutcomeRefused, audit.OutcomeFailed}).Draw(t, "outcome"),
		Reason:  codes.Draw(t, "reason"), Agent: maybe(t, ids, "agent"), Tool: maybe(t, ids, "tool"),
		Actor: audit.Actor{Kind: codes.Draw(t, "kind"), ID: ids.Draw(t, "id"), Auth: maybe(t, codes, "auth"),
			Credential: maybe(t, ids, "key"), Behalf: maybe(t, ids, "behalf")},
		From: maybe(t, codes, "from"), To: maybe(t, codes, "to"), Ticket: maybe(t, texts(ascii, 200), "ticket"),
		Request: maybe(t, ids, "request"), ClientRequest: maybe(t, ids, "client request"), Trace: maybe(t, ids, "trace"),
		Node: maybe(t, ids, "node"), Software: maybe(t, ids, "software"), Count: maybe(t, numbers, "count"),
		Salt: salts.Draw(t, "salt"), Personal: maybe(t, hashes, "personal"),
	}
	if e.Count > 0 {
		e.Span = maybe(t, numbers, "span")
	}
	if rapid.Bool().Draw(t, "refs") {
		e.Target = audit.Ref{Kind: codes.Draw(t, "kind"), ID: ids.Draw(t, "id")}
		e.Grant = audit.GrantRef{ID: ids.Draw(t, "grant"), Revision: maybe(t, numbers, "revision"), Cycle: maybe(t, numbers, "cycle")}
		e.Credential = audit.CredentialRef{ID: ids.Draw(t, "credential"), Revision: maybe(t, numbers, "revision")}
	}
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		c := audit.Change{Kind: codes.Draw(t, "kind"), ID: ids.Draw(t, "id"), Revision: numbers.Draw(t, "revision")}
		if c.State = maybe(t, hashes, "state"); c.State == nil {
			c.Removed = true
		}
		e.Changes = append(e.Changes, c)
		e.Sealed = append(e.Sealed, audit.SealedRef{Kind: c.Kind, ID: c.ID, Digest: hashes.Draw(t, "digest")})
		e.Approvals = append(e.Approvals, audit.Approval{Actor: audit.Ref{Kind: c.Kind, ID: c.ID}, Verdict: codes.Draw(t, "verdict")})
	}
	e.Details = maybe(t, rapid.MapOfN(keys, texts(ascii, 200), 1, 5), "details")
	return e
}

func TestEventProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t, false)
		content, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := audit.Parse(content)
		if err != nil {
			t.Fatalf("%v: %s", err, content)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(again, content) {
			t.Fatalf("%v: %s\n%s", err, content, again)
		}
		if !json.Valid(content) {
			t.Fatalf("not JSON: %s", content)
		}
	})
}

// TestCanonicalAgainstJSON compares the bytes with what encoding/json writes for a map, which sorts keys by itself. It is asked
// about ASCII only, since it escapes U+2028 where RFC 8785 does not.
func TestCanonicalAgainstJSON(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := drawEvent(t, true)
		content, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(asMap(e)); err != nil {
			t.Fatal(err)
		}
		if got := append(content, '\n'); !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("got  %s\nwant %s", got, want.Bytes())
		}
	})
}

// asMap writes FORMAT.md down a second time, without the package.
func asMap(e audit.Event) map[string]any {
	ref := func(kind, id string) map[string]any { return object("kind", kind, "id", id) }
	var approvals, changes, sealed []any
	for _, a := range e.Approvals {
		approvals = append(approvals, object("kind", a.Actor.Kind, "id", a.Actor.ID, "verdict", a.Verdict))
	}
	for _, c := range e.Changes {
		m := ref(c.Kind, c.ID)
		m["revision"] = c.Revision
		if c.Removed {
			m["removed"] = 1
		} else {
			m["state"] = hex.EncodeToString(c.State)
		}
		changes = append(changes, m)
	}
	for _, s := range e.Sealed {
		sealed = append(sealed, object("kind", s.Kind, "id", s.ID, "digest", hex.EncodeToString(s.Digest)))
	}
	m := object(
		"action", string(e.Action), "agent", e.Agent, "tool", e.Tool, "organization", e.Organization, "outcome", string(e.Outcome),
		"reason", e.Reason, "from", e.From, "to", e.To, "ticket", e.Ticket, "request", e.Request, "client_request", e.ClientRequest,
		"trace", e.Trace, "node", e.Node, "software", e.Software, "salt", hex.EncodeToString(e.Salt),
		"personal", hex.EncodeToString(e.Personal),
	)
	m["actor"] = object("kind", e.Actor.Kind, "id", e.Actor.ID, "auth", e.Actor.Auth, "credential", e.Actor.Credential, "behalf", e.Actor.Behalf)
	m["seq"], m["time"], m["version"] = e.Seq, e.Time, 1
	optional(m, "count", e.Count)
	optional(m, "span", e.Span)
	if e.Target.ID != "" {
		m["target"] = ref(e.Target.Kind, e.Target.ID)
		grant, credential := object("id", e.Grant.ID), object("id", e.Credential.ID)
		optional(grant, "revision", e.Grant.Revision)
		optional(grant, "cycle", e.Grant.Cycle)
		optional(credential, "revision", e.Credential.Revision)
		m["grant"], m["credential"] = grant, credential
	}
	for key, list := range map[string][]any{"approvals": approvals, "changes": changes, "sealed": sealed} {
		if list != nil {
			m[key] = list
		}
	}
	if len(e.Details) > 0 {
		m["details"] = e.Details
	}
	return m
}

// object returns a map of the non-empty values among key and value pairs.
func object(pairs ...string) map[string]any {
	m := make(map[string]any)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			m[pairs[i]] = pairs[i+1]
		}
	}
	return m
}

func optional(m map[string]any, key string, n int64) {
	if n != 0 {
		m[key] = n
	}
}

// TestVerifyProperty damages a log in several ways at once and holds Verify to its promise: something is found, and the first bad
// line is before neither the first finding nor what is proven.
func TestVerifyProperty(t *testing.T) {
	sound := newLogbook(t, organization, 60, 20, 40)
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		b := sound.clone()
		for range rapid.IntRange(1, 4).Draw(rt, "damages") {
			i := rapid.IntRange(0, len(b.lines)-1).Draw(rt, "line")
			seq := b.lines[i].Seq
			switch rapid.IntRange(0, 3).Draw(rt, "damage") {
			case 0: // content
				content := bytes.Clone(b.lines[i].Content)
				content[rapid.IntRange(0, len(content)-1).Draw(rt, "byte")] ^= 0x55
				b.lines[i].Content = content
			case 1: // forged with its leaf
				e := sampleEvent(organization, seq)
				e.Trace = "forged"
				b.lines[i].Content, _ = e.Encode()
				b.lines[i].Leaf, b.lines[i].Personal = audit.LeafHash(b.lines[i].Content), nil
			case 2: // deleted
				b.lines = append(b.lines[:i:i], b.lines[i+1:]...)
			case 3: // leaf
				b.lines[i].Leaf[5] ^= 0x55
			}
		}
		first := int64(0) // the first line that is not what it was; twice the same damage may undo itself
		for i, l := range b.lines {
			if l.Seq != sound.lines[i].Seq || l.Leaf != sound.lines[i].Leaf || !bytes.Equal(l.Content, sound.lines[i].Content) {
				break
			}
			first++
		}
		damaged := first < 60
		r := b.verify(t)
		if r.OK() == damaged {
			rt.Fatalf("damaged %v, found %+v", damaged, r.Findings)
		}
		if damaged && r.Findings[0].From > first && r.Proven > first {
			rt.Fatalf("first bad line is %d: %+v", first, r)
		}
	})
}
