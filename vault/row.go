package vault

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

const (
	rowLabel   = "agentkey/row/v1"
	stateLabel = "agentkey/state/v1"
)

// Row is a database row as far as it decides something: its identity, which comes
// from the query, and the deciding columns that were read. Names have 1 to 1024
// bytes.
type Row struct {
	// Installation is the id of the installation.
	Installation string
	// Organization is the id of the tenant.
	Organization string
	// Kind is the kind of record, such as "grant".
	Kind string
	// Record is the id of the record.
	Record string
	// Revision is the record's revision.
	Revision int64
	// Columns are the deciding columns, always in the same order.
	Columns Columns
}

// Columns collects the deciding columns of a Row in order. Names, types, values
// and order all count: the same values in another order are other columns.
//
// The zero Columns is empty and ready to use. A copy is independent of what it was
// copied from. Columns is not safe for concurrent use while columns are added. A
// value of 4 GiB or more panics; storage bounds rows far below that.
type Columns struct {
	count   uint32
	encoded []byte
	owner   *Columns // who may append to encoded in place: no copy may
}

// The type bytes keep equal bytes of different types apart.
const (
	typeString  = 's'
	typeInt     = 'i'
	typeBytes   = 'b'
	typeBool    = 't'
	typeStrings = 'l'
)

// Grow makes room for columns of n more bytes. It changes nothing but how often
// adding them allocates.
func (c *Columns) Grow(n int) {
	c.encoded, c.owner = append(make([]byte, 0, len(c.encoded)+n), c.encoded...), c
}

// String adds a column of text.
func (c *Columns) String(name, v string) { add(c, name, typeString, v) }

// Int adds a column of a signed integer; times are microseconds.
func (c *Columns) Int(name string, v int64) {
	var value [8]byte
	binary.BigEndian.PutUint64(value[:], uint64(v))
	add(c, name, typeInt, value[:])
}

// Bytes adds a column of bytes. Nil and empty are the same value: where absent
// means something else than empty, add a Bool that says which.
func (c *Columns) Bytes(name string, v []byte) { add(c, name, typeBytes, v) }

// Bool adds a column of a truth value.
func (c *Columns) Bool(name string, v bool) {
	value := []byte{0}
	if v {
		value[0] = 1
	}
	add(c, name, typeBool, value)
}

// Strings adds a column of a list of texts, whose order counts. Nil and empty are
// the same value.
func (c *Columns) Strings(name string, v []string) {
	list := binary.BigEndian.AppendUint32(nil, uint32(len(v)))
	for _, s := range v {
		list = appendPart(list, s)
	}
	add(c, name, typeStrings, list)
}

func add[T string | []byte](c *Columns, name string, kind byte, value T) {
	if c.owner != c {
		// Two copies of a Columns never append into the same array.
		c.Grow(max(512, len(c.encoded)))
	}
	b := slices.Grow(c.encoded, 13+len(name)+len(value))
	b = appendPart(b, name)
	b = appendPart(b, []byte{kind})
	c.encoded = appendPart(b, value)
	c.count++
}

// State returns the hash of the row's identity and columns that the audit log
// keeps: SHA-256 under the label "agentkey/state/v1" and the event's salt. It has
// no key, so that a log can be checked without one; the salt keeps equal rows from
// showing as equal.
func (r Row) State(salt []byte) [32]byte {
	b := appendPart(nil, stateLabel)
	b = appendPart(b, salt)
	return sha256.Sum256(append(r.identity(b), r.Columns.encoded...))
}

func (r Row) check() error {
	return checkParts([]string{"installation", "organization", "kind", "record"},
		r.Installation, r.Organization, r.Kind, r.Record)
}

// identity writes what stands before the columns; FORMAT.md draws it.
func (r Row) identity(b []byte) []byte {
	b = appendPart(b, r.Installation)
	b = appendPart(b, r.Organization)
	b = appendPart(b, r.Kind)
	b = appendPart(b, r.Record)
	b = appendInt(b, r.Revision)
	return appendCount(b, r.Columns.count)
}
