package vault_test

import (
	"bytes"
	"testing"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// row1 returns a grant's row with a column of each type.
func row1() vault.Row {
	r := vault.Row{
		Installation: "installation-1", Organization: "organization-1",
		Kind: "grant", Record: "record-1", Revision: 7,
	}
	r.Columns.String("status", "approved")
	r.Columns.Int("expires", 1_767_225_600_000_000)
	r.Columns.Bytes("digest", []byte{0, 1, 2})
	r.Columns.Bool("locked", true)
	r.Columns.Strings("scopes", []string{"read", "write"})
	return r
}

// rowOf returns row1's identity with other columns.
func rowOf(fill func(*vault.Columns)) vault.Row {
	r := row1()
	r.Columns = vault.Columns{}
	fill(&r.Columns)
	return r
}

func TestRowSealVerify(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	old, active := newKey(t, vault.PurposeRow), newKey(t, vault.PurposeRow)
	before, err := newRowSealer(t, old).Seal(row1())
	is.NoErr(err)
	s := newRowSealer(t, active, old)
	is.Equal(s.KeyID(), active.ID())
	seal, err := s.Seal(row1())
	is.NoErr(err)
	is.Equal(len(seal), 49)
	id, err := vault.RowSealKeyID(seal)
	is.NoErr(err)
	is.Equal(id, active.ID())
	is.NoErr(s.Verify(row1(), seal))
	is.NoErr(s.Verify(row1(), before)) // an older key still verifies
	again, err := s.Seal(row1())
	is.NoErr(err)
	is.Equal(seal, again) // nothing random in it

	// A seal of a key that is not held is an integrity failure with a reason.
	err = newRowSealer(t, old).Verify(row1(), seal)
	is.True(isErr(err, vault.ErrIntegrity))
	is.True(isErr(err, vault.ErrUnknownKey))
	is.True(!isErr(err, vault.ErrRowSeal))
	is.True(bytes.Contains([]byte(err.Error()), []byte(active.ID())))
}

// Each of these rows differs from row1 in one thing that counts.
func alteredRows() map[string]vault.Row {
	with := func(change func(*vault.Row)) vault.Row {
		r := row1()
		change(&r)
		return r
	}
	type columns = vault.Columns
	all := func(c *columns, status string, expires int64, digest []byte, locked bool, scopes ...string) {
		c.String("status", status)
		c.Int("expires", expires)
		c.Bytes("digest", digest)
		c.Bool("locked", locked)
		c.Strings("scopes", scopes)
	}
	const at = 1_767_225_600_000_000
	digest := []byte{0, 1, 2}
	return map[string]vault.Row{
		"installation":  with(func(r *vault.Row) { r.Installation = "installation-2" }),
		"organization":  with(func(r *vault.Row) { r.Organization = "organization-2" }),
		"kind":          with(func(r *vault.Row) { r.Kind = "agent" }),
		"record":        with(func(r *vault.Row) { r.Record = "record-2" }),
		"revision":      with(func(r *vault.Row) { r.Revision = 8 }),
		"shifted":       with(func(r *vault.Row) { r.Kind, r.Record = "grantr", "ecord-1" }),
		"no columns":    with(func(r *vault.Row) { r.Columns = columns{} }),
		"one more":      with(func(r *vault.Row) { r.Columns.String("", "") }),
		"text":          rowOf(func(c *columns) { all(c, "approved!", at, digest, true, "read", "write") }),
		"int":           rowOf(func(c *columns) { all(c, "approved", at+1, digest, true, "read", "write") }),
		"bytes":         rowOf(func(c *columns) { all(c, "approved", at, digest[:2], true, "read", "write") }),
		"bool":          rowOf(func(c *columns) { all(c, "approved", at, digest, false, "read", "write") }),
		"list":          rowOf(func(c *columns) { all(c, "approved", at, digest, true, "read", "writes") }),
		"list order":    rowOf(func(c *columns) { all(c, "approved", at, digest, true, "write", "read") }),
		"list joined":   rowOf(func(c *columns) { all(c, "approved", at, digest, true, "readwrite") }),
		"list extended": rowOf(func(c *columns) { all(c, "approved", at, digest, true, "read", "write", "") }),
		"column name": rowOf(func(c *columns) {
			c.String("state", "approved")
			c.Int("expires", at)
			c.Bytes("digest", digest)
			c.Bool("locked", true)
			c.Strings("scopes", []string{"read", "write"})
		}),
		"column order": rowOf(func(c *columns) {
			c.Int("expires", at)
			c.String("status", "approved")
			c.Bytes("digest", digest)
			c.Bool("locked", true)
			c.Strings("scopes", []string{"read", "write"})
		}),
		"column type": rowOf(func(c *columns) {
			c.Bytes("status", []byte("approved"))
			c.Int("expires", at)
			c.Bytes("digest", digest)
			c.Bool("locked", true)
			c.Strings("scopes", []string{"read", "write"})
		}),
		"column missing": rowOf(func(c *columns) {
			c.String("status", "approved")
			c.Int("expires", at)
			c.Bytes("digest", digest)
			c.Bool("locked", true)
		}),
	}
}

func TestAlteredRowIsRefused(t *testing.T) {
	t.Parallel()
	s := newRowSealer(t, newKey(t, vault.PurposeRow))
	seal, err := s.Seal(row1())
	if err != nil {
		t.Fatal(err)
	}
	salt := []byte("salt")
	for name, r := range alteredRows() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			err := s.Verify(r, seal)
			is.True(isErr(err, vault.ErrRowSeal))
			is.True(isErr(err, vault.ErrIntegrity))
			is.True(r.State(salt) != row1().State(salt)) // and its state shows it too
		})
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.Equal(row1().State([]byte("salt")), row1().State([]byte("salt")))
	is.True(row1().State([]byte("salt")) != row1().State([]byte("other")))
	is.True(row1().State(nil) != row1().State([]byte{0}))
}

func TestDamagedRowSeal(t *testing.T) {
	t.Parallel()
	s := newRowSealer(t, newKey(t, vault.PurposeRow))
	seal, err := s.Seal(row1())
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(seal) {
		b := bytes.Clone(seal)
		b[bit/8] ^= 1 << (bit % 8)
		if err := s.Verify(row1(), b); !isErr(err, vault.ErrIntegrity) {
			t.Errorf("flip of bit %d: %v", bit, err)
		}
	}
	for n := range seal {
		if err := s.Verify(row1(), seal[:n]); !isErr(err, vault.ErrFormat) {
			t.Errorf("truncation to %d: %v", n, err)
		}
	}
	for version := range 256 {
		b := bytes.Clone(seal)
		b[0] = byte(version)
		if err := s.Verify(row1(), b); version != 1 && !isErr(err, vault.ErrFormat) {
			t.Errorf("version %d: %v", version, err)
		}
	}
	if err := s.Verify(row1(), append(bytes.Clone(seal), 0)); !isErr(err, vault.ErrFormat) {
		t.Errorf("extension: %v", err)
	}
}

func TestRowWithoutIdentity(t *testing.T) {
	t.Parallel()
	s := newRowSealer(t, newKey(t, vault.PurposeRow))
	for name, change := range map[string]func(*vault.Row){
		"installation": func(r *vault.Row) { r.Installation = "" },
		"organization": func(r *vault.Row) { r.Organization = "" },
		"kind":         func(r *vault.Row) { r.Kind = "" },
		"record":       func(r *vault.Row) { r.Record = "" },
		"long":         func(r *vault.Row) { r.Record = string(make([]byte, 1025)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			r := row1()
			change(&r)
			b, err := s.Seal(r)
			is.True(isErr(err, vault.ErrPlace))
			is.Equal(b, nil)
			is.True(isErr(s.Verify(r, make([]byte, 49)), vault.ErrPlace))
		})
	}
}

// Two rows that grew from one must not write into each other's columns, whatever
// spare room the allocator gave the one.
func TestColumnsCopyIsIndependent(t *testing.T) {
	t.Parallel()
	for n := range 1000 { // larger arrays have room to spare
		base := rowOf(func(c *vault.Columns) { c.Bytes("status", make([]byte, n)) })
		a, b := base, base
		a.Columns.String("actor", "alice")
		state := a.State(nil)
		b.Columns.String("actor", "mallo")
		if a.State(nil) != state {
			t.Fatalf("a copy changed the other, after %d bytes", n)
		}
		if a.State(nil) == b.State(nil) || base.State(nil) == state {
			t.Fatalf("different columns give equal states, after %d bytes", n)
		}
	}
}
