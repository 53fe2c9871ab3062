package vaulttest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/agentkey-dev/agentkey-go/vault"
)

// clause is one rule of vault.KeyProvider.
type clause struct {
	name     string
	sentence string
	run      func(*check)
	needs    func(*suite) string // why it is skipped, if it is
}

func (c clause) skip(s *suite) string {
	if c.needs == nil {
		return ""
	}
	return c.needs(s)
}

var clauses = []clause{
	{name: "CurrentKey", sentence: "CurrentKey names the key that WrapKey uses, in 1 to 128 printable characters, and keeps to it", run: currentKey},
	{name: "RoundTrip", sentence: "UnwrapKey returns the 32 bytes that were given to WrapKey with an equal context", run: roundTrip},
	{name: "Ownership", sentence: "keys and blobs that are handed over are neither changed nor kept", run: ownership},
	{name: "KeyLength", sentence: "WrapKey refuses a key that does not have 32 bytes with ErrKeyLength", run: keyLength},
	{name: "ContextBound", sentence: "UnwrapKey with a context that differs anywhere fails with ErrUnwrap", run: contextBound},
	{name: "Authenticated", sentence: "UnwrapKey of a blob that was changed, cut, extended or emptied fails with ErrUnwrap", run: authenticated},
	{name: "UnknownKey", sentence: "UnwrapKey under the name of a key that is not held fails with ErrUnknownKey and names the key", run: unknownKey},
	{name: "CrossKey", sentence: "what another key wrapped fails with ErrUnknownKey, and with ErrUnwrap under the name of a key that is held", run: crossKey,
		needs: func(s *suite) string { return missing(s.other == nil, "WithOther") }},
	{name: "Bounded", sentence: "a blob has 1 to 4096 bytes", run: bounded},
	{name: "Concurrent", sentence: "all methods may be called from many goroutines at once", run: concurrent},
	{name: "Cancelled", sentence: "with a context that is done, every method fails with the context's error", run: cancelled},
	{name: "Unavailable", sentence: "when the service can't be reached, every method that needs it fails with ErrUnavailable, in bounded time", run: unavailable,
		needs: func(s *suite) string { return missing(s.outage == nil, "WithOutage") }},
	{name: "Redacted", sentence: "errors, the printed or encoded provider and the blob show no key", run: redacted},
}

func missing(absent bool, option string) string {
	if absent {
		return "not tested: needs the option " + option
	}
	return ""
}

// sample is the context that clauses wrap with.
func sample() vault.Context {
	return vault.Context{
		Installation: "installation-1",
		Organization: "organization-1",
		Purpose:      string(vault.PurposeSeal),
		Key:          "00112233445566778899aabbccddeeff",
	}
}

// sampleKey returns 32 distinct bytes; n makes different keys.
func sampleKey(n byte) []byte {
	key := make([]byte, vault.KeySize)
	for i := range key {
		key[i] = byte(i)*7 + n*31 + 129
	}
	return key
}

// wrap wraps key or ends the clause.
func (c *check) wrap(p vault.KeyProvider, key []byte, kc vault.Context) vault.Wrapped {
	c.Helper()
	w, err := p.WrapKey(c.ctx, key, kc)
	if err != nil {
		c.fatalf("WrapKey: %v", err)
	}
	return w
}

// refused wants UnwrapKey to fail with target and to give no key.
func (c *check) refused(p vault.KeyProvider, w vault.Wrapped, kc vault.Context, target error, what string) {
	c.Helper()
	key, err := p.UnwrapKey(c.ctx, w, kc)
	if !errors.Is(err, target) {
		c.errorf("%s: UnwrapKey gave the error %v, want %v", what, err, target)
	}
	if key != nil {
		c.errorf("%s: UnwrapKey gave a key", what)
	}
}

func currentKey(c *check) {
	p := c.suite.open(c.t)
	first, err := p.CurrentKey(c.ctx)
	if err != nil {
		c.fatalf("CurrentKey: %v", err)
	}
	if first == "" || len(first) > vault.MaxProviderKeyID {
		c.errorf("CurrentKey gave a name of %d bytes", len(first))
	}
	if strings.ContainsFunc(first, func(r rune) bool { return r <= ' ' || r > '~' }) {
		c.errorf("CurrentKey gave the name %q", first)
	}
	if w := c.wrap(p, sampleKey(1), sample()); w.Provider != first {
		c.errorf("WrapKey used key %q, CurrentKey named %q", w.Provider, first)
	}
	again, err := p.CurrentKey(c.ctx)
	if err != nil || again != first {
		c.errorf("CurrentKey gave %q (error %v) after %q", again, err, first)
	}
}

func roundTrip(c *check) {
	p := c.suite.open(c.t)
	for n := range byte(8) {
		kc := sample()
		kc.Organization = fmt.Sprintf("organization-%d", n)
		w := c.wrap(p, sampleKey(n), kc)
		got, err := p.UnwrapKey(c.ctx, w, kc)
		if err != nil {
			c.fatalf("UnwrapKey: %v", err)
		}
		if !bytes.Equal(got, sampleKey(n)) {
			c.errorf("UnwrapKey gave other bytes than were wrapped (%d bytes)", len(got))
		}
	}
}

func ownership(c *check) {
	p := c.suite.open(c.t)
	key := sampleKey(1)
	w := c.wrap(p, key, sample())
	if !bytes.Equal(key, sampleKey(1)) {
		c.errorf("WrapKey changed the key it was given")
	}
	clear(key) // as the caller does; a provider that kept it now holds zeroes
	blob := slices.Clone(w.Blob)
	for range 2 {
		got, err := p.UnwrapKey(c.ctx, w, sample())
		if err != nil {
			c.fatalf("UnwrapKey: %v", err)
		}
		if !bytes.Equal(got, sampleKey(1)) {
			c.errorf("UnwrapKey gave other bytes after the caller zeroed its own")
		}
		if !bytes.Equal(blob, w.Blob) {
			c.fatalf("UnwrapKey changed the blob")
		}
		clear(got)
	}
	if !bytes.Equal(blob, w.Blob) {
		c.errorf("the key that UnwrapKey gave shares memory with the blob")
	}
}

func keyLength(c *check) {
	p := c.suite.open(c.t)
	for _, n := range []int{0, 1, 16, 31, 33, 64} {
		key := bytes.Repeat([]byte{0xa5}, n)
		if _, err := p.WrapKey(c.ctx, key, sample()); !errors.Is(err, vault.ErrKeyLength) {
			c.errorf("WrapKey of %d bytes gave the error %v, want ErrKeyLength", n, err)
		}
	}
}

func contextBound(c *check) {
	p := c.suite.open(c.t)
	w := c.wrap(p, sampleKey(1), sample())
	for what, change := range map[string]func(*vault.Context){
		"other installation": func(k *vault.Context) { k.Installation = "installation-2" },
		"other organization": func(k *vault.Context) { k.Organization = "organization-2" },
		"other purpose":      func(k *vault.Context) { k.Purpose = string(vault.PurposeRow) },
		"other key":          func(k *vault.Context) { k.Key = "ffeeddccbbaa99887766554433221100" },
		"other letter case":  func(k *vault.Context) { k.Organization = "Organization-1" },
		"longer":             func(k *vault.Context) { k.Organization += "\x00" },
		"no organization":    func(k *vault.Context) { k.Organization = "" },
		"fields shifted": func(k *vault.Context) {
			k.Installation, k.Organization = k.Installation+k.Organization[:1], k.Organization[1:]
		},
		"fields swapped": func(k *vault.Context) { k.Installation, k.Organization = k.Organization, k.Installation },
	} {
		kc := sample()
		change(&kc)
		c.refused(p, w, kc, vault.ErrUnwrap, what)
	}
}

func authenticated(c *check) {
	p := c.suite.open(c.t)
	w := c.wrap(p, sampleKey(1), sample())
	with := func(blob []byte) vault.Wrapped { return vault.Wrapped{Provider: w.Provider, Blob: blob} }
	for bit := range 8 * len(w.Blob) {
		blob := slices.Clone(w.Blob)
		blob[bit/8] ^= 1 << (bit % 8)
		c.refused(p, with(blob), sample(), vault.ErrUnwrap, fmt.Sprintf("bit %d of the blob flipped", bit))
	}
	for n := range len(w.Blob) {
		c.refused(p, with(slices.Clone(w.Blob[:n])), sample(), vault.ErrUnwrap, fmt.Sprintf("blob cut to %d bytes", n))
	}
	c.refused(p, with(nil), sample(), vault.ErrUnwrap, "no blob")
	c.refused(p, with(append(slices.Clone(w.Blob), 0)), sample(), vault.ErrUnwrap, "blob extended")
	c.refused(p, with(append(slices.Clone(w.Blob), w.Blob...)), sample(), vault.ErrUnwrap, "blob doubled")
}

func unknownKey(c *check) {
	p := c.suite.open(c.t)
	w := c.wrap(p, sampleKey(1), sample())
	const stranger = "vaulttest:no-such-key"
	w.Provider = stranger
	c.refused(p, w, sample(), vault.ErrUnknownKey, "key not held")
	if _, err := p.UnwrapKey(c.ctx, w, sample()); err != nil && !strings.Contains(err.Error(), stranger) {
		c.errorf("the error does not name the key that is needed: %v", err)
	}
}

func crossKey(c *check) {
	p, other := c.suite.open(c.t), c.suite.other(c.t)
	w := c.wrap(other, sampleKey(1), sample())
	c.refused(p, w, sample(), vault.ErrUnknownKey, "wrapped by another key")
	current, err := p.CurrentKey(c.ctx)
	if err != nil {
		c.fatalf("CurrentKey: %v", err)
	}
	w.Provider = current
	c.refused(p, w, sample(), vault.ErrUnwrap, "wrapped by another key, under the name of ours")
}

func bounded(c *check) {
	p := c.suite.open(c.t)
	kc := sample()
	kc.Organization = strings.Repeat("o", 1024)
	kc.Installation = strings.Repeat("i", 1024)
	if w := c.wrap(p, sampleKey(1), kc); len(w.Blob) == 0 || len(w.Blob) > vault.MaxBlob {
		c.errorf("WrapKey gave a blob of %d bytes", len(w.Blob))
	}
}

func concurrent(c *check) {
	p := c.suite.open(c.t)
	var wg sync.WaitGroup
	problems := make(chan string, 8)
	for n := range byte(cap(problems)) {
		wg.Go(func() {
			for range 4 {
				if problem := roundTripOnce(c.ctx, p, n); problem != "" {
					problems <- problem
					return
				}
			}
		})
	}
	wg.Wait()
	close(problems)
	for problem := range problems {
		c.errorf("%s", problem)
	}
}

// roundTripOnce returns what went wrong, if anything.
func roundTripOnce(ctx context.Context, p vault.KeyProvider, n byte) string {
	if _, err := p.CurrentKey(ctx); err != nil {
		return fmt.Sprintf("CurrentKey: %v", err)
	}
	w, err := p.WrapKey(ctx, sampleKey(n), sample())
	if err != nil {
		return fmt.Sprintf("WrapKey: %v", err)
	}
	got, err := p.UnwrapKey(ctx, w, sample())
	if err != nil {
		return fmt.Sprintf("UnwrapKey: %v", err)
	}
	if !bytes.Equal(got, sampleKey(n)) {
		return "UnwrapKey gave another goroutine's key"
	}
	return ""
}

func cancelled(c *check) {
	p := c.suite.open(c.t)
	w := c.wrap(p, sampleKey(1), sample())
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	_, err := p.CurrentKey(ctx)
	c.wantError("CurrentKey", err, context.Canceled)
	_, err = p.WrapKey(ctx, sampleKey(1), sample())
	c.wantError("WrapKey", err, context.Canceled)
	_, err = p.UnwrapKey(ctx, w, sample())
	c.wantError("UnwrapKey", err, context.Canceled)
}

func unavailable(c *check) {
	p, fail := c.suite.outage(c.t)
	w := c.wrap(p, sampleKey(1), sample())
	fail()
	_, err := p.WrapKey(c.ctx, sampleKey(1), sample())
	c.wantError("WrapKey", err, vault.ErrUnavailable)
	key, err := p.UnwrapKey(c.ctx, w, sample())
	c.wantError("UnwrapKey", err, vault.ErrUnavailable)
	if key != nil {
		c.errorf("UnwrapKey gave a key")
	}
	// A provider may know the name of its key without asking.
	if _, err := p.CurrentKey(c.ctx); err != nil {
		c.wantError("CurrentKey", err, vault.ErrUnavailable)
	}
	if c.ctx.Err() != nil {
		c.errorf("the provider did not answer within %v", clauseTimeout)
	}
}

func (c *check) wantError(method string, err, target error) {
	c.Helper()
	if !errors.Is(err, target) {
		c.errorf("%s gave the error %v, want %v", method, err, target)
	}
}

func redacted(c *check) {
	p := c.suite.open(c.t)
	key := sampleKey(1)
	w := c.wrap(p, key, sample())
	secrets := append([][]byte{key}, c.suite.secrets...)
	seen := map[string]string{"blob": string(w.Blob), "id of the key": w.Provider}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		seen["provider with "+verb] = fmt.Sprintf(verb, p)
		seen["holder of a provider with "+verb] = fmt.Sprintf(verb, struct{ p vault.KeyProvider }{p})
	}
	if encoded, err := json.Marshal(p); err == nil {
		seen["provider as JSON"] = string(encoded)
	}
	for what, err := range c.provoke(p, w) {
		seen["error of "+what] = fmt.Sprintf("%v %+v %#v", err, err, err)
	}
	for what, text := range seen {
		for _, secret := range secrets {
			if shows(text, secret) {
				c.errorf("%s shows a key", what)
			}
		}
	}
}

// provoke collects errors of calls that were given or had opened key bytes.
func (c *check) provoke(p vault.KeyProvider, w vault.Wrapped) map[string]error {
	errs := make(map[string]error)
	_, errs["wrapping a short key"] = p.WrapKey(c.ctx, sampleKey(1)[:31], sample())
	_, errs["wrapping a long key"] = p.WrapKey(c.ctx, append(sampleKey(1), 0), sample())
	wrong := sample()
	wrong.Organization = "organization-2"
	_, errs["another context"] = p.UnwrapKey(c.ctx, w, wrong)
	flipped := slices.Clone(w.Blob)
	flipped[len(flipped)-1] ^= 1
	_, errs["a changed blob"] = p.UnwrapKey(c.ctx, vault.Wrapped{Provider: w.Provider, Blob: flipped}, sample())
	_, errs["an unknown key"] = p.UnwrapKey(c.ctx, vault.Wrapped{Provider: "vaulttest:no-such-key", Blob: w.Blob}, sample())
	ctx, cancel := context.WithCancel(c.ctx)
	cancel()
	_, errs["a cancelled call"] = p.WrapKey(ctx, sampleKey(1), sample())
	return errs
}

// shows reports whether text has eight bytes in a row of secret, in one of the
// forms that fmt and encoders write bytes in.
func shows(text string, secret []byte) bool {
	lower := strings.ToLower(text)
	for i := 0; i+8 <= len(secret); i++ {
		part := secret[i : i+8]
		decimal := strings.Trim(fmt.Sprint(part), "[]")
		source := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}")
		quoted := strings.Trim(fmt.Sprintf("%q", part), `"`)
		if strings.Contains(text, string(part)) || strings.Contains(text, quoted) ||
			strings.Contains(lower, hex.EncodeToString(part)) ||
			strings.Contains(text, decimal) || strings.Contains(text, source) ||
			strings.Contains(text, strings.ReplaceAll(decimal, " ", ",")) {
			return true
		}
	}
	// Base64 depends on where in a group of three a byte falls; whole secrets and
	// those with one byte before them cover what encoders write.
	return len(secret) >= 12 && (strings.Contains(text, base64.RawStdEncoding.EncodeToString(secret[:12])) ||
		strings.Contains(text, base64.RawURLEncoding.EncodeToString(secret[:12])))
}
