package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/audit"
	"github.com/agentkey-dev/agentkey-go/refserver/client"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/files"
	"github.com/agentkey-dev/agentkey-go/vault"
)

type keysStatus struct {
	readFlags
	Count bool `help:"Count what is sealed with each key, which reads all of it."`
}

// Run shows the data keys.
func (c *keysStatus) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	k, err := admin.Keys(ctx, c.Count)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(k)
	}
	return s.keys(k)
}

func (s *session) keys(k client.Keys) error {
	t := table{titles: []string{"ID", "PURPOSE", "STATE", "CREATED", "SEALS", "WRAPPED BY"}}
	if k.Counted {
		t.titles = append(t.titles, "VALUES", "ROWS")
	}
	for _, d := range k.Keys {
		row := []string{d.ID, d.Purpose, d.Lifecycle, shortTime(&d.CreatedAt), fmt.Sprint(d.Seals), clean(d.Provider)}
		if k.Counted {
			row = append(row, fmt.Sprint(d.Values), fmt.Sprint(d.Rows))
		}
		t.add(row...)
	}
	if err := t.print(s); err != nil {
		return err
	}
	if k.Rewrap > 0 {
		if err := s.say("%s of them to be wrapped anew; the key provider's current key is %s: agentkey keys rotate-kek", plural(int64(k.Rewrap), "key"), clean(k.Provider)); err != nil {
			return err
		}
	}
	if k.Counted && k.Reseal > 0 {
		if err := s.say("%s to be sealed anew: agentkey keys reseal", plural(k.Reseal, "row or value")); err != nil {
			return err
		}
	}
	if r := k.Resealing; r != nil {
		if err := s.say("sealing anew, as asked for at %s: %d of %d", shortTime(&r.RequestedAt), r.Done, r.Total); err != nil {
			return err
		}
	}
	if k.Destruction != nil {
		return s.destruction(*k.Destruction)
	}
	return nil
}

func (s *session) destruction(d client.Destruction) error {
	if !d.Pending {
		return s.say("destroyed at %s; the key provider has none of the keys left that could open a backup", shortTime(&d.DestroyedAt))
	}
	lines := []string{fmt.Sprintf("destroyed at %s; pending: backups can still be opened, until these keys are gone:", shortTime(&d.DestroyedAt))}
	for _, k := range d.OuterKeys {
		switch {
		case k.State == agentkey.OuterGone:
			continue
		case k.InUse:
			lines = append(lines, clean(k.ID)+": still wraps data keys; make another key current, run agentkey keys rotate-kek, then remove this one and every copy of it")
		case k.State == agentkey.OuterHeld:
			lines = append(lines, clean(k.ID)+": remove it from the key provider, and every copy of it")
		default:
			lines = append(lines, clean(k.ID)+": the key provider does not tell whether it is there; see there")
		}
	}
	return s.say("%s", strings.Join(lines, "\n  "))
}

type keysRotateDEK struct {
	readFlags
	Purpose []string `enum:"seal,row" placeholder:"PURPOSE" help:"Rotate only the key that seals values (seal), or only the one that seals rows (row)."`
}

// Run rotates the data keys.
func (c *keysRotateDEK) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	k, err := admin.RotateDataKeys(ctx, c.Purpose...)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(k)
	}
	if err := s.keys(k); err != nil {
		return err
	}
	return s.say("what was sealed before stays under the keys before: agentkey keys reseal")
}

type keysReseal struct {
	readFlags
	NoWait bool `help:"Don't wait until it is done; agentkey keys status says how far it is."`
}

// Run asks for the re-sealing and follows it.
func (c *keysReseal) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	k, err := admin.Reseal(ctx)
	if err != nil {
		return err
	}
	shown := s.progress("the server seals anew")
	defer shown.end()
	for !c.NoWait && k.Resealing != nil {
		shown.set(bar(k.Resealing.Done, k.Resealing.Total))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rotationStep):
		}
		if k, err = admin.Keys(ctx, false); err != nil {
			return err
		}
	}
	shown.end()
	if c.JSON {
		return s.emit(k)
	}
	return s.keys(k)
}

// rotationStep is how often it is looked how far a rotation is.
const rotationStep = 500 * time.Millisecond

// bar shows how much of something is done.
func bar(done, total int64) string {
	const width = 30
	full := int64(width)
	if total > 0 {
		full = min(done*width/total, width)
	}
	return fmt.Sprintf("[%s%s] %d of %d", strings.Repeat("#", int(full)), strings.Repeat(".", int(width-full)), done, total)
}

type keysDestroy struct {
	readFlags
	Confirm string `required:"" placeholder:"NAME" help:"The organization's name, which says that you mean it."`
	Reason  string `placeholder:"TEXT" help:"Why, for the log."`
}

// Run destroys the organization's keys.
func (c *keysDestroy) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	p, err := admin.PlanDestruction(ctx)
	if err != nil {
		return err
	}
	if p.Name != c.Confirm {
		return usagef("--confirm is not the name of the organization that the token belongs to; nothing was destroyed")
	}
	d, err := admin.DestroyOrganization(ctx, p.Name, p.Confirmation, c.Reason)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(d)
	}
	return s.destruction(d)
}

// localInstallation are the settings of serve, for what is the installation's.
type localInstallation struct {
	databaseFlags
	encryptionFlags
	JSON bool `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// with gives fn a Manager over the database that is there. It migrates nothing.
func (c *localInstallation) with(ctx context.Context, s *session, fn func(m *agentkey.Manager) error) (err error) {
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	keys, _, err := c.present(ctx, s, at)
	if err != nil {
		return err
	}
	store, closeStore, err := at.existing()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	m, err := agentkey.New(ctx, agentkey.Config{Storage: store, Keys: keys, Clock: s.options.Clock})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
		defer cancel()
		err = errors.Join(err, m.Close(closing))
	}()
	return fn(m)
}

type keysRotateKEK struct{ localInstallation }

// Run has every data key wrapped by the provider's current key.
func (c *keysRotateKEK) Run(ctx context.Context, s *session) error {
	return c.with(ctx, s, func(m *agentkey.Manager) error {
		status, err := m.RewrapDataKeys(ctx, operator())
		if err != nil {
			return err
		}
		status, err = s.rotated(ctx, m, "wrapping data keys", status, func(k agentkey.KeysStatus) *agentkey.RotationProgress { return k.Rewrapping })
		if err != nil {
			return err
		}
		if c.JSON {
			return s.emit(map[string]string{"provider": status.Provider})
		}
		own := ""
		if c.Transit.OwnKeys {
			own = ", and what seals an organization's values by its own key"
		}
		return s.say("every data key is wrapped by %s%s; the keys before are needed for backups only", clean(status.Provider), own)
	})
}

// rotated carries out a rotation of the installation, or waits for the server that
// does, and shows how far it is.
func (s *session) rotated(ctx context.Context, m *agentkey.Manager, what string, status agentkey.KeysStatus,
	left func(agentkey.KeysStatus) *agentkey.RotationProgress,
) (agentkey.KeysStatus, error) {
	shown := s.progress(what)
	defer shown.end()
	for left(status) != nil {
		_, err := m.ContinueRotations(ctx)
		if err == nil {
			status, err = m.KeysStatus(ctx, operator(), agentkey.KeysStatusInput{})
		}
		if err != nil {
			return status, err
		}
		p := left(status)
		if p == nil {
			break
		}
		shown.set(bar(p.Done, p.Total))
		select {
		case <-ctx.Done():
			return status, ctx.Err()
		case <-time.After(rotationStep):
		}
	}
	return status, nil
}

type keysRotateInstall struct{ localInstallation }

// Run rotates the data keys of the reserved organization, whose administrator is
// who runs the server.
func (c *keysRotateInstall) Run(ctx context.Context, s *session) error {
	return c.with(ctx, s, func(m *agentkey.Manager) error {
		_, err := m.RotateDataKeys(ctx, operator(), agentkey.RotateDataKeysInput{})
		if err != nil {
			return err
		}
		status, err := m.Reseal(ctx, operator())
		if err != nil {
			return err
		}
		status, err = s.rotated(ctx, m, "sealing the installation's records anew", status, func(k agentkey.KeysStatus) *agentkey.RotationProgress { return k.Resealing })
		if err != nil {
			return err
		}
		out := client.Keys{Provider: status.Provider, Rewrap: status.Rewrap}
		for _, k := range status.Keys {
			out.Keys = append(out.Keys, client.DataKey{
				ID: k.ID, Purpose: string(k.Purpose), State: string(k.State), Lifecycle: k.Lifecycle, CreatedAt: k.CreatedAt,
				Provider: k.Provider, Rewrap: k.Rewrap, Seals: k.Seals, MaxSeals: k.MaxSeals,
			})
		}
		if c.JSON {
			return s.emit(out)
		}
		return s.keys(out)
	})
}

type keysRotateSigning struct {
	localInstallation
	Out string `placeholder:"FILE" help:"Write the proof of the handover to this new file: whoever trusts the former key can check it with agentkey keys check-handover."`
}

// handover is the proof in its file.
type handover struct {
	Event   string        `json:"event"`
	Receipt audit.Receipt `json:"receipt"`
}

// Run rotates the key that signs the logs.
func (c *keysRotateSigning) Run(ctx context.Context, s *session) error {
	return c.with(ctx, s, func(m *agentkey.Manager) error {
		var out *os.File
		if c.Out != "" {
			var err error
			if out, err = newFile(c.Out); err != nil {
				return fmt.Errorf("nothing was rotated: the file of the proof: %w", err)
			}
		}
		r, err := m.RotateSigningKey(ctx, operator())
		if err != nil && out != nil {
			err = errors.Join(err, out.Close(), os.Remove(out.Name()))
		}
		if err != nil {
			return err
		}
		if out != nil {
			if err := s.handOver(out, handover{string(r.Event), r.Receipt}); err != nil {
				return fmt.Errorf("the key was rotated, to %s, and the proof, which is printed here, could not be written: %w", r.Present, err)
			}
		}
		if c.JSON {
			return s.emit(map[string]string{"former": r.Former, "present": r.Present})
		}
		return s.say("the log was signed by %s\nand is signed by      %s\nkeep both: what was signed before is checked with the former", r.Former, r.Present)
	})
}

// handOver writes the proof, which is made once: where its file takes it no more, to
// standard output.
func (s *session) handOver(out *os.File, h handover) error {
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if err = fill(out, text); err != nil {
		_, printed := s.stdout.Write(text)
		err = errors.Join(err, printed)
	}
	return err
}

// newFile makes a file that is not there yet. What must not fail after the deed is
// done before it.
func newFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return f, cause(err)
}

// fill writes a file of newFile, and sees that it lasts.
func fill(f *os.File, text []byte) error {
	_, err := f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = files.SyncDirectory(filepath.Dir(f.Name()))
	}
	return cause(err)
}

type keysCheckHandover struct {
	trustFlags
	File string `arg:"" help:"The proof, as keys rotate-signing-key --out wrote it."`
}

// Run checks a handover, without any server.
func (c *keysCheckHandover) Run(s *session) error {
	v, err := c.verifiers()
	if err != nil {
		return err
	}
	text, err := readSmall(c.File, "handover", 2*audit.MaxProof)
	if err != nil {
		return err
	}
	var h handover
	if err := json.Unmarshal(text, &h); err != nil {
		return fmt.Errorf("handover: it is not what keys rotate-signing-key wrote")
	}
	present, err := agentkey.CheckHandover(v, []byte(h.Event), h.Receipt)
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	return s.say("ok, the log's key was handed over to %s", present)
}

// former is the provider of the keys before, for a move from one to another.
func (f encryptionFlags) former(ctx context.Context, s *session) (vault.KeyProvider, error) {
	if f.OldKeyProvider != "local" {
		if f.OldKeyFile != "" {
			return nil, usagef("--old-key-file is for --old-key-provider local only")
		}
		keys, _, err := encryptionFlags{KeyProvider: f.OldKeyProvider, Transit: f.Transit, moving: true}.other(ctx, s)
		return keys, err
	}
	if f.OldKeyFile == "" {
		return nil, usagef("--old-key-provider local needs --old-key-file")
	}
	keys, _, err := local(f.OldKeyFile, localFile(f.OldKeyFile))
	return keys, err
}
