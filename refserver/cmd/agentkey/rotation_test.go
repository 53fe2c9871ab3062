//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/pgtest"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/storage"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// A server that is killed again and again while it seals everything anew goes on
// where it was: no vend fails but by the kill itself, and at the end everything is
// readable and nothing is left under the keys before.
func TestResealingIsKilledOnSQLite(t *testing.T) {
	t.Parallel()
	resealThroughKills(t, onSQLite(t), rounds(1, 50))
}

func TestResealingIsKilledOnPostgres(t *testing.T) {
	t.Parallel()
	database, err := createDatabase(pgtest.DSN(t))
	is.New(t).NoErr(err)
	resealThroughKills(t, newInstallation(t, database), rounds(1, 50))
}

func resealThroughKills(t *testing.T, in installed, kills int) {
	is := is.New(t)
	binary, address := program(t), freeAddress(t)
	random := rand.New(rand.NewPCG(3, uint64(kills)))
	p, _ := in.start(t, binary, address)
	admin, err := client.NewAdmin(p.url(), in.token, client.Options{})
	is.NoErr(err)
	for range rounds(20, 500) {
		_, err := admin.AddTool(t.Context(),
			client.NewTool{Name: nameOf("Tool"), AuthType: "api_key", Mode: string(storage.Shared)}, vault.NewSecret([]byte("oth_api_test_1")))
		is.NoErr(err)
	}
	l := newLoad(t, in.token, crashClients, p.url())
	stop := l.run(t)
	for range kills {
		_, err := admin.RotateDataKeys(t.Context())
		is.NoErr(err)
		_, err = admin.Reseal(t.Context())
		is.NoErr(err)
		pause(t.Context(), time.Duration(random.Int64N(int64(2*time.Second))))
		p.kill()
		p, _ = in.start(t, binary, address)
	}
	l.advance(t, 20)
	until(t, 5*time.Minute, "everything is sealed anew", func() bool {
		k, err := admin.Keys(context.Background(), false)
		return err == nil && k.Resealing == nil
	})
	stop()
	l.check(t)
	k, err := admin.Keys(t.Context(), true)
	is.NoErr(err)
	is.Equal(k.Reseal, int64(0))
	for _, d := range k.Keys {
		is.True(d.Purpose != "seal" || d.Lifecycle != "deactivated")
	}
	doctor := exec.Command(binary, "doctor", "crypto", "--all")
	doctor.Env = in.environment
	out, err := doctor.CombinedOutput()
	if err != nil {
		t.Errorf("doctor crypto: %v\n%s", err, out)
	}
}
