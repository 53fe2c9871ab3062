package anchor_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/agentkey-dev/agentkey-go/refserver/anchor"
	"github.com/agentkey-dev/agentkey-go/storage/memstore"
)

// BenchmarkOrganizations measures a directory of heads with 500 organizations or,
// with AGENTKEY_PROVE set, 10,000: how long a start takes to compare all (s-start), what
// is held for each (bytes/log), and how long it takes from a commit until its head is kept,
// while all logs are looked at over and over (longest-ms).
func BenchmarkOrganizations(b *testing.B) {
	n := 500
	if os.Getenv("AGENTKEY_PROVE") != "" {
		n = 10_000
	}
	in := &installation{memstore.New(), agentkeytest.Keys(b)}
	a := must(anchor.NewFile(b.TempDir() + "/heads"))
	config := agentkey.Config{Storage: in.store, Keys: in.keys, Policies: agentkeytest.Unlimited(), ReconcileInterval: -1}
	m := must(agentkey.New(b.Context(), config))
	var owner agentkey.Actor
	for i := range n {
		made := must(m.CreateOrganization(b.Context(), agentkey.Operator("test"), agentkey.CreateOrganizationInput{Name: fmt.Sprint("org ", i), Owner: "ann"}))
		owner = agentkey.Actor{Organization: made.Organization.ID, Kind: "human", ID: "ann", Role: agentkey.RoleOwner, Auth: "host"}
	}
	if err := m.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	config.Anchors, config.InitAnchors, config.AnchorInterval = []agentkey.Anchor{a}, true, 100*time.Millisecond
	m = must(agentkey.New(b.Context(), config)) // which makes the files
	if err := m.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
	before := held()
	begun := time.Now()
	config.InitAnchors = false
	m = must(agentkey.New(b.Context(), config))
	start, bytes := time.Since(begun), held()-before
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	var longest time.Duration
	path := a.Dir() + "/" + owner.Organization + ".head"
	for b.Loop() {
		must(m.Record(b.Context(), owner, agentkey.RecordInput{Action: "x.example.happened"}))
		signed := string(must(m.LatestCheckpoint(b.Context(), owner)).Signed)
		begun := time.Now()
		for text := ""; text != signed; text = string(must(os.ReadFile(path))) {
			time.Sleep(time.Millisecond)
		}
		longest = max(longest, time.Since(begun))
	}
	b.ReportMetric(float64(longest.Microseconds())/1000, "longest-ms")
	b.ReportMetric(start.Seconds(), "s-start")
	b.ReportMetric(float64(bytes)/float64(n), "bytes/log")
	stop()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	if err := m.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// held is how much memory is in use.
func held() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
