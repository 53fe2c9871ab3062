package cli

import (
	"context"
	"errors"
	"strconv"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/storage"
)

type auditAcceptRestore struct {
	databaseFlags
	encryptionFlags
	anchorFlags
	Reason     string   `placeholder:"TEXT" help:"Why the database was put back; it stands in every log."`
	PublicKeys []string `name:"public-key" placeholder:"KEY" help:"A key that signed what the anchors keep and that the database does not know, because the signing key was rotated after the backup; may be given several times. The server printed it when it started."`
	Yes        bool     `short:"y" help:"Do it; without this nothing is changed."`
	JSON       bool     `name:"json" env:"AGENTKEY_JSON" help:"Print JSON."`
}

// Run lets an installation go on whose database was put back.
func (c *auditAcceptRestore) Run(ctx context.Context, s *session) (err error) {
	at, err := c.locate(s)
	if err != nil {
		return err
	}
	anchors, err := c.anchorFlags.open(s)
	if err != nil {
		return err
	}
	if len(anchors) == 0 {
		return usagef("give the anchors that the server has, by --anchor")
	}
	if !c.Yes {
		return usagef("what was revoked after the backup is approved again: stop all servers, then say --yes")
	}
	in, err := openInstallation(ctx, s, at, c.encryptionFlags, agentkey.Config{Clock: s.options.Clock, Anchors: anchors, Restoring: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.close()) }()
	logs, err := in.manager.AcceptRestore(ctx, operator(), agentkey.AcceptRestoreInput{Reason: c.Reason, PublicKeys: c.PublicKeys})
	if len(logs) > 0 { // also those before something failed
		err = errors.Join(err, c.print(s, logs))
	}
	return err
}

func (c *auditAcceptRestore) print(s *session, logs []agentkey.RestoredLog) error {
	if c.JSON {
		return s.emit(map[string]any{"data": logs})
	}
	t := table{titles: []string{"LOG", "NAME", "EPOCH", "LOST", "LEFT"}}
	for _, l := range logs {
		t.add(l.Organization, l.Name, strconv.FormatInt(l.Epoch, 10), plural(l.LostSize, "event"), plural(l.Size, "event"))
	}
	if err := t.print(s); err != nil {
		return err
	}
	for _, l := range logs {
		if l.Organization == storage.System {
			continue
		}
		if err := s.say("\n%s (%s) is locked until an owner has reviewed %s and unlocks it", clean(l.Name), l.Organization, plural(int64(len(l.Review)), "grant")); err != nil {
			return err
		}
		for _, g := range l.Review {
			if err := s.say("  %s  %s may use %s", g.Grant, clean(g.Agent), clean(g.Tool)); err != nil {
				return err
			}
		}
	}
	return nil
}
