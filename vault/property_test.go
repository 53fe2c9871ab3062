package vault_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// name draws short names over few letters, so that joined ones would collide.
func name() *rapid.Generator[string] {
	return rapid.StringOfN(rapid.SampledFrom([]rune("ab")), 1, 3, -1)
}

func anyPlace() *rapid.Generator[vault.Place] {
	return rapid.Custom(func(t *rapid.T) vault.Place {
		return vault.Place{
			Installation: name().Draw(t, "installation"),
			Organization: name().Draw(t, "organization"),
			Kind:         name().Draw(t, "kind"),
			Record:       name().Draw(t, "record"),
			Field:        name().Draw(t, "field"),
			Revision:     rapid.Int64().Draw(t, "revision"),
		}
	})
}

// What is sealed at one place opens there, and at any other place only if it is
// the same one.
func TestPropertySealedToItsPlace(t *testing.T) {
	t.Parallel()
	k := newKey(t, vault.PurposeSeal)
	sealer, opener := newSealer(t, k), newOpener(t, k)
	rapid.Check(t, func(t *rapid.T) {
		p, q := anyPlace().Draw(t, "sealed at"), anyPlace().Draw(t, "opened at")
		plain := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "plain")
		sealed, err := sealer.Seal(p, vault.NewSecret(bytes.Clone(plain)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := opener.Open(p, sealed)
		if err != nil || !bytes.Equal(got.Bytes(), plain) {
			t.Fatalf("does not open at its place: %v", err)
		}
		if got, err := opener.Open(q, sealed); (err == nil) != (p == q) || (got != nil) != (p == q) {
			t.Fatalf("sealed at %+v, opened at %+v: %v", p, q, err)
		}
	})
}

// Any edit of sealed bytes is refused.
func TestPropertyEditedValueNeverOpens(t *testing.T) {
	t.Parallel()
	k := newKey(t, vault.PurposeSeal)
	sealer, opener := newSealer(t, k), newOpener(t, k)
	rapid.Check(t, func(t *rapid.T) {
		sealed, err := sealer.Seal(place(), secret("lin_api_test_property"))
		if err != nil {
			t.Fatal(err)
		}
		from := rapid.IntRange(0, len(sealed)).Draw(t, "from")
		to := rapid.IntRange(from, len(sealed)).Draw(t, "to")
		edit := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "edit")
		edited := append(append(bytes.Clone(sealed[:from]), edit...), sealed[to:]...)
		if bytes.Equal(edited, sealed) {
			t.Skip("not an edit")
		}
		if plain, err := opener.Open(place(), edited); err == nil || plain != nil {
			t.Fatal("an edited value opened")
		}
	})
}

// column is a drawn column in a comparable form.
type column struct {
	add func(*vault.Columns)
	key string
}

func anyColumn() *rapid.Generator[column] {
	return rapid.Custom(func(t *rapid.T) column {
		n := name().Draw(t, "name")
		switch rapid.IntRange(0, 4).Draw(t, "type") {
		case 0:
			v := rapid.StringN(0, 3, -1).Draw(t, "string")
			return column{func(c *vault.Columns) { c.String(n, v) }, fmt.Sprintf("%q string %q", n, v)}
		case 1:
			v := rapid.Int64Range(-2, 2).Draw(t, "int")
			return column{func(c *vault.Columns) { c.Int(n, v) }, fmt.Sprintf("%q int %d", n, v)}
		case 2:
			v := rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 8).Draw(t, "bytes")
			return column{func(c *vault.Columns) { c.Bytes(n, v) }, fmt.Sprintf("%q bytes %x", n, v)}
		case 3:
			v := rapid.Bool().Draw(t, "bool")
			return column{func(c *vault.Columns) { c.Bool(n, v) }, fmt.Sprintf("%q bool %t", n, v)}
		default:
			v := rapid.SliceOfN(rapid.StringN(0, 2, -1), 0, 3).Draw(t, "strings")
			return column{func(c *vault.Columns) { c.Strings(n, v) }, fmt.Sprintf("%q strings %q", n, v)}
		}
	})
}

// Rows have equal seals and states if and only if they are equal.
func TestPropertyRowEncodingIsInjective(t *testing.T) {
	t.Parallel()
	s := newRowSealer(t, newKey(t, vault.PurposeRow))
	identity := func(t *rapid.T, label string) vault.Row {
		return vault.Row{
			Installation: name().Draw(t, label+" installation"),
			Organization: name().Draw(t, label+" organization"),
			Kind:         name().Draw(t, label+" kind"),
			Record:       name().Draw(t, label+" record"),
			Revision:     rapid.Int64Range(0, 1).Draw(t, label+" revision"),
		}
	}
	// key returns what tells rows apart, in another way than by encoding them.
	key := func(r vault.Row, columns []column) string {
		k := fmt.Sprintf("%q %q %q %q %d", r.Installation, r.Organization, r.Kind, r.Record, r.Revision)
		for _, c := range columns {
			k += " | " + c.key
		}
		return k
	}
	rapid.Check(t, func(t *rapid.T) {
		a := identity(t, "a")
		b := a
		if rapid.Bool().Draw(t, "other identity") {
			b = identity(t, "b")
		}
		columnsA := rapid.SliceOfN(anyColumn(), 0, 3).Draw(t, "columns of a")
		columnsB := rapid.SliceOfN(anyColumn(), 0, 3).Draw(t, "columns of b")
		if rapid.Bool().Draw(t, "same columns") {
			columnsB = columnsA
		}
		for _, c := range columnsA {
			c.add(&a.Columns)
		}
		for _, c := range columnsB {
			c.add(&b.Columns)
		}
		same := key(a, columnsA) == key(b, columnsB)
		seal, err := s.Seal(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(a, seal); err != nil {
			t.Fatalf("does not verify: %v", err)
		}
		if err := s.Verify(b, seal); (err == nil) != same {
			t.Fatalf("seal of %s on %s: %v", key(a, columnsA), key(b, columnsB), err)
		}
		if salt := []byte("salt"); (a.State(salt) == b.State(salt)) != same {
			t.Fatalf("states of %s and %s", key(a, columnsA), key(b, columnsB))
		}
	})
}
