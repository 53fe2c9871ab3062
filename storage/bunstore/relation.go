package bunstore

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
)

// relation says how a record stands in its table: the names of the columns, and
// where in the record their values are, in the same order.
type relation[T any] struct {
	columns []string
	fields  func(*T) []any
	insert  statement
	update  statement
	// stands finds the row that an update with another identity would hit.
	stands statement
	// identity is how many of the first columns never change, and revision
	// follows them; primary is how many of those are the primary key.
	primary, identity int
}

func newRelation[T any](table, columns string, primary, identity int, fields func(*T) []any) *relation[T] {
	c := strings.Fields(columns)
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(c)), ", ")
	at := statement("@" + table)
	return &relation[T]{
		columns: c, fields: fields, primary: primary, identity: identity,
		insert: "INSERT INTO " + at + " (" + statement(strings.Join(c, ", ")) + ") VALUES (" + statement(marks) + ") ON CONFLICT DO NOTHING",
		update: "UPDATE " + at + " SET " + equals(c[identity:], ", ") + " WHERE " + equals(c[:primary], " AND ") +
			same(c[primary:identity]) + " AND revision = ?",
		stands: "SELECT 1 FROM " + at + " WHERE " + equals(c[:primary], " AND ") + " AND revision = ?",
	}
}

func equals(columns []string, between string) statement {
	var terms []string
	for _, c := range columns {
		terms = append(terms, c+" = ?")
	}
	return statement(strings.Join(terms, between))
}

// same compares columns that may be NULL.
func same(columns []string) (terms statement) {
	for _, c := range columns {
		terms += statement(" AND " + c + " IS NOT DISTINCT FROM ?")
	}
	return terms
}

// list is the list of columns, each of the table that is called by this alias.
func (rel *relation[T]) list(alias string) statement {
	return statement(alias + "." + strings.Join(rel.columns, ", "+alias+"."))
}

// args are the values of a record as a driver takes them.
func (rel *relation[T]) args(record *T) ([]any, error) {
	fields := rel.fields(record)
	for i, f := range fields {
		v, err := argument(f)
		if err != nil {
			return nil, err
		}
		fields[i] = v
	}
	return fields, nil
}

// collect returns a function that reads a row and adds it to found. All rows are
// read through one record.
func (rel *relation[T]) collect(found *[]T) func(Row) error {
	record, empty := new(T), *new(T)
	fields := rel.fields(record)
	return func(rows Row) error {
		*record = empty
		if err := scan(rows, fields...); err != nil {
			return err
		}
		*found = append(*found, *record)
		return nil
	}
}

// argument is the value that a field points to, as one of the four types that
// every driver takes. No byte slice is NULL: where a NULL means something, the
// field says so by its type.
func argument(field any) (any, error) {
	switch f := field.(type) {
	case *string:
		return *f, nil
	case *int64:
		return *f, nil
	case *bool:
		return *f, nil
	case *[]byte:
		return octets(*f), nil
	case driver.Valuer:
		return f.Value()
	}
	if v := reflect.ValueOf(field).Elem(); v.Kind() == reflect.String {
		return v.String(), nil
	}
	return nil, errors.New("bunstore: field of an unknown type")
}

// octets is b, and never nil.
func octets(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// texts is a list of strings in a column that the database never looks into.
type texts struct{ list *[]string }

func (t texts) Value() (driver.Value, error) { return list(*t.list) }

func (t texts) Scan(column any) error {
	*t.list = nil
	if column == "[]" { // as nearly always
		return nil
	}
	if err := decode(column, t.list); err != nil {
		return err
	}
	if len(*t.list) == 0 {
		*t.list = nil
	}
	return nil
}

// decode reads a column of JSON, which a driver may hand over as either type.
func decode(column, into any) error {
	switch c := column.(type) {
	case string:
		return json.Unmarshal([]byte(c), into)
	case []byte:
		return json.Unmarshal(c, into)
	}
	return errors.New("bunstore: column is no text")
}

// optional is a string whose empty value is a NULL, which refers to nothing.
type optional struct{ text *string }

func (o optional) Value() (driver.Value, error) {
	if *o.text == "" {
		return nil, nil
	}
	return *o.text, nil
}

func (o optional) Scan(column any) error {
	var n sql.NullString
	err := n.Scan(column)
	*o.text = n.String
	return err
}
