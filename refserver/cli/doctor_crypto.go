package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage/bunstore"
	"github.com/agentkey-dev/agentkey-go/vault"
)

// doctorCommands are the two examinations; without a name it is the general one.
type doctorCommands struct {
	Installation doctorCommand `cmd:"" default:"withargs" help:"Check settings, files, database, key, clock and every log; what doctor does without more."`
	Crypto       doctorCrypto  `cmd:"" help:"Check that the key provider answers, that data keys unwrap, rows fit their seals and sealed values open in their place only."`
}

// doctorCrypto examines keys and seals with the settings of serve. That it did is
// recorded in every log.
type doctorCrypto struct {
	databaseFlags
	encryptionFlags
	Organization string `placeholder:"ID" help:"Look at this organization only. Default: all."`
	Sample       int    `default:"100" placeholder:"N" help:"How many sealed values of each organization are opened for a moment, 1 to 10000, picked at random."`
	All          bool   `help:"Open all of them."`
	JSON         bool   `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Validate refuses a sample that is none.
func (c *doctorCrypto) Validate() error {
	if c.Sample < 1 || c.Sample > 10_000 {
		return usagef("--sample must be 1 to 10000; --all opens every value")
	}
	return nil
}

// Run examines and prints.
func (c *doctorCrypto) Run(ctx context.Context, s *session) error {
	x := &examination{}
	d, err := c.examine(ctx, s, x)
	if err != nil {
		x.fail("examination", "it did not come to its end: %v", err)
	}
	if c.JSON {
		err = s.emit(map[string]any{"ok": !x.failed(), "checks": x.checks, "counts": counts(d), "findings": findings(d)})
	} else {
		err = x.print(s, false)
	}
	if err != nil {
		return err
	}
	if x.failed() {
		return errUnwell
	}
	return ctx.Err()
}

// examine goes as far as it can; what keeps it from the keys is a failed check.
func (c *doctorCrypto) examine(ctx context.Context, s *session, x *examination) (d agentkey.Diagnosis, err error) {
	at, err := c.locate(s)
	if err != nil {
		return d, err
	}
	keys, where, err := c.present(ctx, s, at)
	if err != nil {
		x.fail("key", "%v", err)
		return d, nil
	}
	store, closeStore, err := at.existing()
	if err != nil {
		x.fail("database", "%v", err)
		return d, nil
	}
	defer func() {
		if err := closeStore(); err != nil {
			x.fail("database", "close: %v", err)
		}
	}()
	if !x.schema(ctx, store, at) || !x.begun(ctx, store, keys, where) {
		return d, nil
	}
	return c.diagnose(ctx, s, store, keys, x)
}

func (c *doctorCrypto) diagnose(ctx context.Context, s *session, store *bunstore.Store, keys vault.KeyProvider, x *examination) (d agentkey.Diagnosis, err error) {
	m, err := agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Clock: s.options.Clock})
	if err != nil {
		x.fail("key", "%v", err)
		return d, nil
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		if err := m.Close(closing); err != nil {
			x.fail("log", "%v", err)
		}
	}()
	var organizations int64
	if err := eachOrganization(ctx, store, func(string) error { organizations++; return ctx.Err() }); err != nil {
		return d, err
	}
	shown := s.progress("looking at keys and seals")
	d, err = m.Diagnose(ctx, operator(), agentkey.DiagnoseInput{
		Organization: c.Organization, Sample: c.Sample, All: c.All,
		Progress: func(d agentkey.Diagnosis) {
			shown.set(fmt.Sprintf("%s organizations, %s, %s", bar(d.Organizations-1, organizations), plural(d.Rows, "row"), plural(d.Values, "value")))
		},
	})
	shown.end()
	x.diagnosed(d, err == nil)
	return d, err
}

// diagnosed makes checks of what was found. What went well is only said of an
// examination that came to its end.
func (x *examination) diagnosed(d agentkey.Diagnosis, whole bool) {
	listed := map[string]int{}
	for _, f := range d.Findings {
		name := checkOf(f)
		if listed[name]++; listed[name] > maxListed {
			continue
		}
		where := ""
		if f.Organization != "" {
			where = "organization " + f.Organization + ": "
		}
		x.fail(name, "%s%s %s: %s", where, strings.ReplaceAll(f.Kind, "_", " "), f.ID, f.Problem)
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if n := listed[name]; n > maxListed {
			x.fail(name, "and %d more; --json lists a thousand", n-maxListed)
		}
	}
	if d.Found > int64(len(d.Findings)) {
		x.fail("examination", "%d findings in all, of which the first %d are told", d.Found, len(d.Findings))
	}
	if !whole {
		return
	}
	x.clear("provider", "it wraps, unwraps, and binds what it wraps to its place; its key is %s", d.Provider)
	if d.DataKeys == 0 && !d.OK() {
		return // it did not come to them
	}
	x.clear("data keys", "%s of %s unwrap to what their ids say, and none sealed more than it may", plural(d.DataKeys, "key"), plural(d.Organizations, "organization"))
	if d.Rewrap > 0 {
		x.warn("data keys", "%s wrapped by another key than the provider's present one, which is still needed: agentkey keys rotate-kek", are(d.Rewrap))
	}
	x.clear("row seals", "%s fit their seals", plural(d.Rows, "row"))
	x.clear("values", "%s under keys that are there; %d of them were opened: in their place, and nowhere else", are(d.Values), d.Opened)
	if d.Older > 0 {
		x.warn("values", "%s under data keys that seal no more: agentkey keys reseal", are(d.Older))
	}
	if d.Destroyed > 0 {
		x.ok("destroyed", "the values of %s can't be opened, as was decided", plural(d.Destroyed, "organization"))
	}
}

// are begins a sentence about some of many.
func are(n int64) string {
	if n == 1 {
		return "1 is"
	}
	return fmt.Sprintf("%d are", n)
}

// checkOf says which check a finding belongs to.
func checkOf(f agentkey.Finding) string {
	switch {
	case f.Kind == agentkey.KindKeyProvider:
		return "provider"
	case strings.HasPrefix(f.Problem, "row ") || strings.HasPrefix(f.Problem, "head "):
		return "row seals"
	case strings.HasPrefix(f.Problem, "value "):
		return "values"
	}
	return "data keys"
}

func counts(d agentkey.Diagnosis) map[string]int64 {
	return map[string]int64{
		"organizations": d.Organizations, "destroyed": d.Destroyed, "data_keys": d.DataKeys, "to_rewrap": d.Rewrap,
		"rows": d.Rows, "values": d.Values, "to_reseal": d.Older, "opened": d.Opened, "findings": d.Found,
	}
}

// finding is one as JSON.
type finding struct {
	Organization string `json:"organization,omitempty"`
	Kind         string `json:"kind"`
	ID           string `json:"id"`
	Problem      string `json:"problem"`
}

func findings(d agentkey.Diagnosis) []finding {
	out := make([]finding, len(d.Findings))
	for i, f := range d.Findings {
		out[i] = finding(f)
	}
	return out
}
