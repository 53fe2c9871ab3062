package agentkey_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/matryer/is"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
)

// Data keys decide on everything, so that an edit of one stops its organization.
// What can't be written into the organization's own log is in the reserved one.
func TestEditedDataKeys(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		free := map[string]bool{"reserved": true, "updated_at": true}
		values := map[string]string{
			"organization": "'" + s.other + "'", "state": "'decrypt_only'", "purpose": "'seal'", "provider": "'local:none'",
		}
		c := s.copy(t).keep()
		c.exec("DROP INDEX agentkey_data_keys_active_key")
		columns := c.columns("data_keys")
		for _, purpose := range []string{"row", "seal"} {
			for _, col := range columns {
				for _, cold := range []bool{false, true} {
					if c.spared() {
						continue
					}
					a := target{value: values}
					if purpose == "seal" && col.name == "purpose" {
						a.value = map[string]string{"purpose": "'row'"}
					}
					t.Run(fmt.Sprintf("%s/%s/cold=%v", purpose, col.name, cold), func(t *testing.T) {
						c.reset(t)
						c.editDataKey(a, col, purpose, cold, free[col.name])
					})
				}
			}
		}
	})
}

func (c *burglary) editDataKey(a target, col column, purpose string, cold, free bool) {
	c.t.Helper()
	if !cold {
		c.warm()
	}
	c.change(fmt.Sprintf("UPDATE agentkey_data_keys SET %s = CAST(%s AS %s) WHERE organization = ? AND purpose = ?", col.name, a.edit(col), col.kind),
		c.org, purpose)
	if cold {
		noErr(c.t, c.start())
	}
	calls := map[string]func() error{
		"vend": func() error { return c.vend(c.bot, c.shared) },
		"seal": func() error {
			_, err := c.m.AddTool(c.t.Context(), c.owner, agentkey.AddToolInput{
				Name: "new", AuthType: "other", Mode: "shared", Credential: agentkey.NewSecret([]byte("new_test_credential")),
			})
			return err
		},
		"read": func() error { _, err := c.m.Agents(c.t.Context(), c.owner, agentkey.ListInput{}); return err },
	}
	switch {
	case free:
		for name, call := range calls {
			if err := call(); err != nil {
				c.t.Errorf("%s: %v", name, err)
			}
		}
	case cold && purpose == "row" && col.name == "provider":
		// Nothing proves that row: it looks like a key that is not at hand.
		for name, call := range calls {
			if err := call(); !errors.Is(err, agentkey.ErrKeys) {
				c.t.Errorf("%s: got %v, want ErrKeys", name, err)
			}
		}
	case col.name == "organization" && purpose == "seal":
		if err := calls["vend"](); err == nil {
			c.t.Error("vended without the key")
		}
	default:
		c.refused(audit.KindDataKey, calls)
		if len(c.logged(c.org, audit.ActionIntegrityFailed)) > 0 {
			c.t.Error("a log was written on with data keys that are not proven")
		}
	}
}

// A call that seals before it decides says so too when the keys were edited.
func TestEditedDataKeyIsRecordedWhenSealing(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newSite(t).copy(t)
	c.change("UPDATE agentkey_data_keys SET state = 'decrypt_only' WHERE organization = ? AND purpose = 'seal'", c.org)
	noErr(t, c.start())
	_, err := c.m.AddTool(t.Context(), c.owner, agentkey.AddToolInput{
		Name: "new", AuthType: "other", Mode: "shared", Credential: agentkey.NewSecret([]byte("new_test_credential")),
	})
	is.True(errors.Is(err, agentkey.ErrIntegrity))
	is.Equal(len(c.logged(systemLog, audit.ActionIntegrityFailed)), 1)
}

// The installation's own record is read by New, which refuses, and by the replay
// of the reserved log.
func TestEditedInstallation(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		values := map[string]string{"payload": "replace(payload, '-7', '-6')", "entries": `'[["id","x"]]'`}
		c := s.copy(t).keep()
		for _, col := range c.columns("records") {
			t.Run(col.name, func(t *testing.T) {
				is := is.New(t)
				c.reset(t)
				c.warm()
				c.change(fmt.Sprintf("UPDATE agentkey_records SET %s = CAST(%s AS %s) WHERE kind = 'installation'",
					col.name, target{value: values}.edit(col), col.kind))
				report, _ := c.m.Reconcile(t.Context(), agentkey.Operator("test"))
				err := c.start()
				if col.name == "updated_at" {
					is.NoErr(err)
					is.True(report.OK())
					return
				}
				is.True(errors.Is(err, agentkey.ErrIntegrity)) // New answers nothing else
				is.True(!report.OK())
				is.Equal(report.Findings[0].Kind, audit.KindInstallation)
			})
		}
	})
}

// The head of a log, edited, put back or taken away: nothing is written on it,
// the reserved log says so, and Verify finds it.
func TestEditedHead(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		attacks := map[string]string{
			"edge":         "UPDATE agentkey_logs SET edge = CAST(CASE substr(edge, 1, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(edge, 2) AS BLOB) WHERE organization = ?",
			"edge emptied": "UPDATE agentkey_logs SET edge = x'' WHERE organization = ?",
			"signed":       "UPDATE agentkey_logs SET signed = CAST(substr(signed, 1, length(signed) - 9) || CASE substr(signed, length(signed) - 8, 1) WHEN x'41' THEN x'42' ELSE x'41' END || substr(signed, length(signed) - 7) AS BLOB) WHERE organization = ?",
			"of another":   "UPDATE agentkey_logs SET (size, edge, signed, time, seal) = (SELECT size, edge, signed, time, seal FROM agentkey_logs WHERE organization = '" + s.other + "') WHERE organization = ?",
			"time later":   "UPDATE agentkey_logs SET time = time + 1 WHERE organization = ?",
			"time earlier": "UPDATE agentkey_logs SET time = time - 1 WHERE organization = ?",
			"epoch":        "UPDATE agentkey_logs SET epoch = epoch + 1 WHERE organization = ?",
			"size less":    "UPDATE agentkey_logs SET size = size - 1 WHERE organization = ?",
			"size more":    "UPDATE agentkey_logs SET size = size + 1 WHERE organization = ?",
			"seal":         "UPDATE agentkey_logs SET seal = CAST(" + lastByte("seal") + " AS BLOB) WHERE organization = ?",
			"begun anew":   "UPDATE agentkey_logs SET size = 0, edge = x'', signed = x'', time = 0, kept_size = 0 WHERE organization = ?",
			"taken away":   "DELETE FROM agentkey_logs WHERE organization = ?",
		}
		c := s.copy(t).keep()
		for name, attack := range attacks {
			for _, cold := range []bool{false, true} {
				if c.spared() {
					continue
				}
				t.Run(fmt.Sprintf("%s/cold=%v", name, cold), func(t *testing.T) {
					c.reset(t)
					if !cold {
						c.warm()
					}
					c.change(attack, c.org)
					if cold {
						noErr(t, c.start())
					}
					c.headless()
				})
			}
		}
	})
}

// headless wants no call to write on the log of the organization any more.
func (c *burglary) headless() {
	c.t.Helper()
	c.refused(audit.KindLog, map[string]func() error{
		"vend":   func() error { return c.vend(c.bot, c.shared) },
		"revoke": func() error { _, err := c.m.Revoke(c.t.Context(), c.owner, c.bot, c.shared); return err },
		"refuse": func() error { return c.vend(c.bystander, c.shared) },
	})
	report, err := c.m.Verify(c.t.Context(), c.owner)
	noErr(c.t, err)
	if report.OK() {
		c.t.Error("Verify found nothing")
	}
	if _, err := c.m.Reconcile(c.t.Context(), c.owner); !errors.Is(err, agentkey.ErrIntegrity) {
		c.t.Errorf("Reconcile: got %v, want an integrity failure", err)
	}
}

// A whole log put back to an older state, rows and all, is noticed by the process
// that wrote the newer one.
func TestOlderLogPutBack(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t)
		tables := slices.DeleteFunc(c.tables(), func(table string) bool { return table == "agentkey_organizations" })
		c.warm()
		for _, table := range tables {
			c.exec(fmt.Sprintf("CREATE TABLE old_%s AS SELECT * FROM %s WHERE organization = ?", table, table), c.org)
		}
		_, err := c.m.Revoke(t.Context(), c.owner, c.bot, c.shared)
		noErr(t, err)
		for _, table := range tables {
			c.exec(fmt.Sprintf("DELETE FROM %s WHERE organization = ?", table), c.org)
			c.exec(fmt.Sprintf("INSERT INTO %s SELECT * FROM old_%s", table, table))
		}
		err = c.vend(c.bot, c.shared)
		if !errors.Is(err, agentkey.ErrIntegrity) {
			t.Errorf("vend: got %v, want an integrity failure", err)
		}
		if len(c.logged(systemLog, audit.ActionIntegrityFailed)) != 1 {
			t.Error("no integrity.failed in the reserved log")
		}
	})
}

// What stands in the log, edited in any of its parts, is found by Verify at its
// number.
func TestEditedLog(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		for _, test := range []struct{ name, attack string }{
			{"content", "UPDATE agentkey_events SET content = CAST(replace(content, '\"outcome\":\"ok\"', '\"outcome\":\"refused\"') AS BLOB) WHERE organization = ? AND seq = 5"},
			{"content erased", "UPDATE agentkey_events SET content = NULL WHERE organization = ? AND seq = 5"},
			{"content of another", "UPDATE agentkey_events SET content = (SELECT content FROM agentkey_events WHERE organization = ?1 AND seq = 4) WHERE organization = ?1 AND seq = 5"},
			{"personal", "UPDATE agentkey_events SET personal = CAST(replace(personal, 'ann', 'bob') AS BLOB) WHERE organization = ? AND seq = 5"},
			{"leaf", "UPDATE agentkey_leaves SET hash = CAST(CASE substr(hash, 1, 1) WHEN x'00' THEN x'01' ELSE x'00' END || substr(hash, 2) AS BLOB) WHERE organization = ? AND seq = 5"},
			{"deleted", "DELETE FROM agentkey_events WHERE organization = ? AND seq = 5"},
			{"leaf deleted", "DELETE FROM agentkey_leaves WHERE organization = ? AND seq = 5"},
			{"kept checkpoint", "UPDATE agentkey_checkpoints SET signed = (SELECT signed FROM agentkey_checkpoints WHERE organization <> ?1 LIMIT 1) WHERE organization = ?1"},
		} {
			t.Run(test.name, func(t *testing.T) {
				is := is.New(t)
				c.reset(t)
				c.change(test.attack, c.org)
				noErr(t, c.start())
				report, err := c.m.Verify(t.Context(), c.owner)
				is.NoErr(err)
				is.True(!report.OK())
				if test.name != "kept checkpoint" {
					is.True(report.Findings[0].From <= 5 && report.Findings[0].To >= 5)
				}
				var export bytes.Buffer
				if err := c.m.Export(t.Context(), c.owner, &export); err == nil { // what was exported doesn't hide it
					reader, err := audit.NewExportReader(&export)
					is.NoErr(err)
					is.Equal(reader.Header().PublicKeys, []string{c.m.PublicKey()})
					verifiers, err := audit.NewVerifiers(c.m.PublicKey())
					is.NoErr(err)
					report, err := audit.Verify(t.Context(), audit.Log{
						Installation: c.m.Installation(), Organization: c.org, Entries: reader, Verifiers: verifiers,
					})
					is.NoErr(err)
					is.True(!report.OK())
				}
			})
		}
	})
}

// A log that was edited to agree with an edited row is not believed by Reconcile
// either.
func TestReconcileBelievesNoEditedLog(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, s *site) {
		c := s.copy(t).keep()
		for name, attack := range map[string]string{
			"erased":  "UPDATE agentkey_events SET content = NULL WHERE organization = ? AND seq >= (SELECT max(seq) FROM agentkey_events WHERE organization = ?1)",
			"deleted": "DELETE FROM agentkey_events WHERE organization = ? AND seq >= (SELECT max(seq) FROM agentkey_events WHERE organization = ?1)",
			"edited":  "UPDATE agentkey_events SET content = CAST(replace(content, '\"action\":\"grant.revoked\"', '\"action\":\"grant.expired\"') AS BLOB) WHERE organization = ? AND instr(content, 'grant.revoked') > 0",
		} {
			t.Run(name, func(t *testing.T) {
				is := is.New(t)
				c.reset(t)
				c.warm()
				c.exec("DROP TABLE IF EXISTS old")
				c.exec("CREATE TABLE old AS SELECT * FROM agentkey_grants WHERE id = ?", c.grant)
				_, err := c.m.Revoke(t.Context(), c.owner, c.bot, c.shared)
				noErr(t, err)
				c.putBack("agentkey_grants", "old")
				c.change(attack, c.org)
				report, err := c.m.Reconcile(t.Context(), c.owner)
				is.NoErr(err)
				is.True(!report.OK())
				found := false
				for _, f := range report.Findings {
					found = found || f.Kind == audit.KindLog
				}
				is.True(found) // the log itself is named
			})
		}
	})
}

// The clock of the machine may go back; the time in the log does not.
func TestTimeInTheLog(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	c := newSite(t).copy(t)
	c.warm()
	c.clock.Advance(-time.Hour)
	is.NoErr(c.vend(c.bot, c.shared))
	page, err := c.m.Events(t.Context(), c.owner, agentkey.EventsInput{Limit: 2})
	is.NoErr(err)
	is.True(page.Events[0].Time >= page.Events[1].Time)
}
