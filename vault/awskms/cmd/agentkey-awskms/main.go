// Command agentkey-awskms is agentkey, the reference server of AgentKey and its
// client, with the key provider awskms: keys in AWS KMS.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	_ "github.com/jackc/pgx/v5/stdlib" // registers "pgx"
	_ "modernc.org/sqlite"             // registers "sqlite"

	"github.com/agentkey-dev/agentkey-go/refserver/cli"
	"github.com/agentkey-dev/agentkey-go/vault/awskms"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr, cli.Options{
		Providers: map[string]cli.Provider{"awskms": awskms.Open},
	})
}
