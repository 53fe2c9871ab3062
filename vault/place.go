package vault

import (
	"encoding/binary"
	"fmt"
	"math"
)

// maxPart bounds each name in a Place, a Row or a Context, in bytes.
const maxPart = 1024

// Place is the identity of a sealed value: the field of the revision of the record
// it belongs to. It comes from the query that looks for the value, never from the
// row that was found, because the row is what is being checked.
//
// Every name has 1 to 1024 bytes; they are compared byte for byte.
type Place struct {
	// Installation is the id of the installation.
	Installation string
	// Organization is the id of the tenant.
	Organization string
	// Kind is the kind of record, such as "credential".
	Kind string
	// Record is the id of the record.
	Record string
	// Field names the sealed field within the record.
	Field string
	// Revision is the record's revision that the value was sealed for.
	Revision int64
}

func (p Place) check() error {
	return checkParts([]string{"installation", "organization", "kind", "record", "field"},
		p.Installation, p.Organization, p.Kind, p.Record, p.Field)
}

// associatedData binds a sealed value to its place; FORMAT.md draws it.
func (p Place) associatedData(header []byte) []byte {
	b := make([]byte, 0, 128+len(p.Installation)+len(p.Organization)+len(p.Kind)+len(p.Record)+len(p.Field))
	b = appendPart(b, sealedLabel)
	b = appendPart(b, header[:1])
	b = appendPart(b, header[1:2])
	b = appendPart(b, header[2:sealedHeader])
	b = appendPart(b, p.Installation)
	b = appendPart(b, p.Organization)
	b = appendPart(b, p.Kind)
	b = appendPart(b, p.Record)
	b = appendPart(b, p.Field)
	return appendInt(b, p.Revision)
}

// checkParts wants every part to be named and of bounded length. The error tells
// which part it is and never what it holds.
func checkParts(names []string, parts ...string) error {
	for i, part := range parts {
		if part == "" || len(part) > maxPart {
			return fmt.Errorf("%w: %s", ErrPlace, names[i])
		}
	}
	return nil
}

// appendPart appends the length of part as four bytes, big endian, and part. With
// each part so prefixed no two different sequences of parts give the same bytes.
func appendPart[T string | []byte](b []byte, part T) []byte {
	if uint64(len(part)) > math.MaxUint32 {
		panic("vault: a part of 4 GiB or more has no encoding")
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}

// appendInt appends v as a part of eight bytes, two's complement, big endian.
func appendInt(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(b, 8), uint64(v))
}

// appendCount appends n as a part of four bytes, big endian.
func appendCount(b []byte, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, 4), n)
}
