package main

import (
	"context"
	"os"
	"time"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
)

// skewVariable says how far the clock of the program agentkey-skewed is off.
const skewVariable = "AGENTKEY_TEST_SKEW"

// skewed is the program on a machine whose clock is wrong.
func skewed() {
	by, err := time.ParseDuration(os.Getenv(skewVariable))
	if err != nil {
		os.Exit(2)
	}
	clock := func() time.Time { return time.Now().Add(by) }
	os.Exit(cli.Main(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr, cli.Options{Clock: clock}))
}
