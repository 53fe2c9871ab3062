package adminapi_test

import (
	"testing"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

// A list that lacks what retention has removed says so, with its last page.
func TestListsTellWhatWasRemoved(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	f := servertest.New(t, servertest.Options{Policies: servertest.Unlimited()})
	owner, err := f.Manager.Authenticate(t.Context(), agentkey.NewSecret([]byte(f.Owner)), agentkey.RequestContext{})
	is.NoErr(err)
	for range 5 {
		_, err := f.Manager.Record(t.Context(), owner, agentkey.RecordInput{Action: "x.test.noted"})
		is.NoErr(err)
	}
	get := func(query string) (removed, below, next string) {
		res := f.Do("GET", "/api/admin/audit-log"+query, f.Owner, "")
		is.Equal(res.Status, 200)
		return res.Header.Get("AgentKey-Removed"), res.Header.Get("AgentKey-Removed-Below"), res.Header.Get("Link")
	}
	removed, below, next := get("")
	is.Equal(removed+below+next, "")
	f.Clock.Add(40 * 24 * time.Hour)
	_, err = f.Manager.SetRetention(t.Context(), owner, agentkey.RetentionPolicy{ContentDays: 30})
	is.NoErr(err)
	is.NoErr(f.Manager.Retain(t.Context()))
	removed, below, _ = get("")
	is.Equal(removed, "5")
	is.True(below != "")
	removed, _, next = get("?limit=1")
	is.Equal(removed, "")
	is.True(next != "")
}
