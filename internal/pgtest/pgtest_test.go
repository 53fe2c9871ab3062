package pgtest_test

import (
	"context"
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
)

func TestDSN(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	db, err := sql.Open("pgx", pgtest.DSN(t))
	is.NoErr(err)
	defer db.Close()
	var fsync, encoding string
	is.NoErr(db.QueryRowContext(context.Background(), `SELECT current_setting('fsync'), current_setting('server_encoding')`).Scan(&fsync, &encoding))
	is.Equal(fsync, "on")
	is.Equal(encoding, "UTF8")
	is.Equal(pgtest.DSN(t), pgtest.DSN(t)) // one for the process
}
