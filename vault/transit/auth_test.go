package transit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/matryer/is"

	"github.com/agentkey-dev/agentkey-go/internal/transittest"
	"github.com/agentkey-dev/agentkey-go/vault"
	"github.com/agentkey-dev/agentkey-go/vault/transit"
)

const (
	roleID   = "role-of-the-tests"
	secretID = "secret-id-of-the-tests"
)

// asRole is a provider that logs in by AppRole, with tokens that live an hour and
// four at the longest.
func asRole(t *testing.T, now func() time.Time) (*transittest.Server, *transit.Provider) {
	t.Helper()
	s := service(now)
	s.RevokeTokens()
	s.AddRole(roleID, secretID, time.Hour, 4*time.Hour)
	c := config(s, now)
	c.Auth = transit.AppRole("", roleID, fixed(secretID))
	return s, open(t, c)
}

func used(t *testing.T, p *transit.Provider) {
	t.Helper()
	if _, err := p.CurrentKey(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAppRole(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock()
	s, p := asRole(t, now.Now)
	logins := func(login, renew int) {
		t.Helper()
		used(t, p)
		is.Equal([]int{s.Calls("login"), s.Calls("renew")}, []int{login, renew})
	}
	logins(1, 0)
	logins(1, 0) // the token is kept
	now.Advance(29 * time.Minute)
	logins(1, 0)
	now.Advance(time.Minute) // half of its life
	logins(1, 1)
	for n := range 6 {
		now.Advance(30 * time.Minute)
		logins(1, 2+n)
	}
	// Renewed at the end of its longest life it would have ten minutes left.
	now.Advance(20 * time.Minute)
	used(t, p)
	now.Advance(15 * time.Minute)
	logins(2, 8)
	now.Advance(5 * time.Hour) // ended while nobody asked
	logins(3, 8)
}

func TestRevokedTokenIsReplaced(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock()
	s, p := asRole(t, now.Now)
	used(t, p)
	s.RevokeTokens()
	_, err := p.CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnavailable)) // a new token that is refused lacks a right
	is.Equal(s.Calls("login"), 1)
	now.Advance(time.Minute)
	used(t, p)
	is.Equal(s.Calls("login"), 2)
}

func TestRefusedRole(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock().Now
	s, _ := asRole(t, now)
	c := config(s, now)
	c.Auth = transit.AppRole("approle/", roleID, fixed("not-"+secretID))
	_, err := open(t, c).WrapKey(t.Context(), dataKey(), sample())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(strings.Contains(err.Error(), "log in was answered with status 400"))
	is.True(!strings.Contains(err.Error(), secretID))
	is.Equal(s.Calls("login"), 1)
}

func TestTokenIsRenewed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		renewable     bool
		denied        []string
		renewals      int
		worksAfterTwo bool
	}{
		{"renewable", true, nil, 6, true},
		{"not renewable", false, nil, 0, false},
		{"may not ask", true, []string{"lookup"}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			now := newClock()
			s := transittest.New(now.Now)
			s.AddKey(ourKey, "aes256-gcm96", false)
			s.AddToken(token, time.Hour, 0, c.renewable, c.denied...)
			p := open(t, config(s, now.Now))
			used(t, p)
			for range 6 {
				now.Advance(30 * time.Minute)
				_, _ = p.CurrentKey(t.Context())
			}
			is.Equal(s.Calls("renew"), c.renewals)
			_, err := p.CurrentKey(t.Context())
			is.Equal(err == nil, c.worksAfterTwo)
		})
	}
}

// TestTokenFileIsReadAgain: what an agent of the service has put into the file since.
func TestTokenFileIsReadAgain(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	now := newClock()
	s := service(now.Now)
	file := filepath.Join(t.TempDir(), "token")
	is.NoErr(os.WriteFile(file, []byte(token+"\n"), 0o600))
	c := config(s, now.Now)
	c.Auth = transit.Token(transit.FromFile(file))
	p := open(t, c)
	used(t, p)

	s.RevokeTokens()
	s.AddToken("hvs.test.the-next", 0, 0, false)
	is.NoErr(os.WriteFile(file, []byte("hvs.test.the-next"), 0o600))
	now.Advance(time.Minute)
	used(t, p)

	s.RevokeTokens()
	now.Advance(time.Minute)
	for _, content := range []string{"", "two words", strings.Repeat("x", 5000), "control\x01"} {
		is.NoErr(os.WriteFile(file, []byte(content), 0o600))
		_, err := p.CurrentKey(t.Context())
		is.True(errors.Is(err, vault.ErrUnavailable))
		is.True(content == "" || !strings.Contains(err.Error(), content))
	}
	is.NoErr(os.Remove(file))
	_, err := p.CurrentKey(t.Context())
	is.True(errors.Is(err, vault.ErrUnavailable))
	is.True(!strings.Contains(err.Error(), file)) // the token may have been given in its place
}

// TestRunKeepsTheTokenAlive while nobody needs a key for a day.
func TestRunKeepsTheTokenAlive(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprint(running), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				is := is.New(t)
				s := transittest.New(time.Now)
				s.AddKey(ourKey, "aes256-gcm96", false)
				s.AddToken(token, time.Hour, 0, true)
				p := open(t, config(s, time.Now))
				used(t, p)
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				if running {
					is.NoErr(p.Run(ctx))
				}
				<-ctx.Done()
				_, err := p.CurrentKey(t.Context())
				is.Equal(err == nil, running)
				is.Equal(s.Calls("renew") > 40, running)
			})
		})
	}
}

// TestRenewalOutlivesAnOutage: a token that can't be renewed now is used on, and
// renewed later.
func TestRenewalOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		is := is.New(t)
		s := transittest.New(time.Now)
		s.AddKey(ourKey, "aes256-gcm96", false)
		s.AddToken(token, time.Hour, 0, true)
		p := open(t, config(s, time.Now))
		used(t, p)
		<-time.After(40 * time.Minute)
		s.Fail(func(w http.ResponseWriter, r *http.Request) bool {
			return strings.HasSuffix(r.URL.Path, "/renew-self") && status(503)(w, r)
		})
		used(t, p)
		is.Equal(s.Calls("renew"), 0)
		s.Fail(nil)
		<-time.After(10 * time.Minute)
		used(t, p)
		<-time.After(50 * time.Minute)
		used(t, p)
		is.Equal([]int{s.Calls("lookup"), s.Calls("renew")}, []int{1, 2})
	})
}
