package ratelimit_test

import (
	"errors"
	"testing"
	"time"

	"github.com/agentkey-dev/agentkey-go/ratelimit"
	"github.com/matryer/is"
	"pgregory.net/rapid"
)

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]ratelimit.Policy{
		"off":        {},
		"60/1m":      {Limit: 60, Window: time.Minute},
		"10/1h":      {Limit: 10, Window: time.Hour},
		"600/60s":    {Limit: 600, Window: time.Minute},
		"1/1s":       {Limit: 1, Window: time.Second},
		"100000/24h": {Limit: 100_000, Window: 24 * time.Hour},
		"5/1h0m5s":   {Limit: 5, Window: time.Hour + 5*time.Second},
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := ratelimit.ParsePolicy(text)
			is.NoErr(err)
			is.Equal(p, want)
		})
	}
	for _, text := range []string{
		"", "/", "60", "60/", "/1m", "0/1m", "-1/1m", "+1/1m", " 60/1m", "60 /1m", "60/ 1m", "60/1m ", "60/1m/1m", "6O/1m",
		"100001/1m", "99999999999999999999/1m", "60/0s", "0/0s", "60/-1m", "60/999ms", "60/1500ms", "60/25h", "60/1", "60/m", "Off", "none", "unlimited",
	} {
		t.Run("bad "+text, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			p, err := ratelimit.ParsePolicy(text)
			is.True(errors.Is(err, ratelimit.ErrPolicy))
			is.Equal(p, ratelimit.Policy{}) // callers check the error: the zero policy is off
		})
	}
}

func TestPolicyString(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	for text, window := range map[string]time.Duration{
		"60/1m": time.Minute, "60/10s": 10 * time.Second, "60/10m": 10 * time.Minute, "60/1h": time.Hour, "60/20h": 20 * time.Hour,
		"60/1h0m5s": time.Hour + 5*time.Second, "60/1h10m": 70 * time.Minute, "60/1m10s": 70 * time.Second,
	} {
		is.Equal(ratelimit.Policy{Limit: 60, Window: window}.String(), text)
	}
	is.Equal(ratelimit.Policy{}.String(), "off")
	rapid.Check(t, func(t *rapid.T) {
		p := ratelimit.Policy{
			Limit:  rapid.IntRange(1, ratelimit.MaxLimit).Draw(t, "limit"),
			Window: time.Duration(rapid.IntRange(1, 86400).Draw(t, "seconds")) * time.Second,
		}
		if back, err := ratelimit.ParsePolicy(p.String()); err != nil || back != p {
			t.Fatalf("%s came back as %s: %v", p, back, err)
		}
	})
}

func TestPolicyValidate(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	is.NoErr(ratelimit.Policy{}.Validate())
	for _, p := range []ratelimit.Policy{
		{Limit: 1}, {Window: time.Minute}, {Limit: -1, Window: time.Minute}, {Limit: ratelimit.MaxLimit + 1, Window: time.Minute},
		{Limit: 1, Window: time.Second - 1}, {Limit: 1, Window: time.Second + 1}, {Limit: 1, Window: 24*time.Hour + time.Second}, {Limit: 1, Window: -time.Minute},
	} {
		is.True(errors.Is(p.Validate(), ratelimit.ErrPolicy))
		is.True(errors.Is(ratelimit.Policies{ratelimit.TierRead: p}.Validate(), ratelimit.ErrPolicy))
		_, err := ratelimit.NewMemory(ratelimit.Policies{ratelimit.TierRead: p}, 1)
		is.True(errors.Is(err, ratelimit.ErrPolicy))
	}
	is.True(errors.Is(ratelimit.Policies{"raed": {}}.Validate(), ratelimit.ErrTier))
}

// The figures of the contract and of deviation 25.
func TestDefaultPolicies(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	p := ratelimit.DefaultPolicies()
	is.NoErr(p.Validate())
	is.Equal(len(p), len(ratelimit.Tiers()))
	for tier, want := range map[ratelimit.Tier]string{
		"preauth": "600/1m", "read": "120/1m", "credential": "60/1m", "request": "10/1h", "admin": "30/1m", "admin_read": "300/1m",
	} {
		is.Equal(p[tier].String(), want)
	}
	p[ratelimit.TierCredential] = ratelimit.Policy{}
	is.Equal(ratelimit.DefaultPolicies()[ratelimit.TierCredential].Limit, 60) // each call makes a fresh map
}
