package main

import (
	"database/sql"

	"github.com/rogpeppe/go-internal/testscript"
)

// sqlite FILE STATEMENT... changes a database behind the program's back. The last
// statement must change a row.
func sqlite(ts *testscript.TestScript, _ bool, args []string) {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	defer func() { _ = db.Close() }()
	for i, statement := range args[1:] {
		result, err := db.Exec(statement)
		ts.Check(err)
		if n, err := result.RowsAffected(); err != nil || n == 0 && i == len(args)-2 {
			ts.Fatalf("sqlite: %s changed nothing (%v)", statement, err)
		}
	}
}
