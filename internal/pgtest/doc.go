// Package pgtest gives tests a Postgres database.
//
// [DSN] answers the database that AGENTKEY_TEST_POSTGRES_URL names. Without it,
// it starts a throwaway cluster from the binaries that are installed, once for
// each test process and only when a test asks: in a temporary directory, on a
// Unix socket in it and on no port, with fsync on as in production. The cluster
// ends with the test process, however that ends: a shell beside it waits for a
// pipe that the test process holds open, and stops it when the pipe closes.
//
// Where Postgres is not installed the test is skipped, and fails when CI is set.
package pgtest

// Variable names the environment variable with the URL of a database to use
// instead of a throwaway cluster. Tests make schemas of their own in it.
const Variable = "AGENTKEY_TEST_POSTGRES_URL"
