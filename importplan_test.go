package agentkey_test

import (
	"errors"
	"testing"

	agentkey "github.com/agentkey-dev/agentkey-go"
	"github.com/agentkey-dev/agentkey-go/agentkeytest"
	"github.com/matryer/is"
)

// TestImportKeepsWhatIsNotInTheDocument: without Prune a missing tool stays as it
// is, with its credential and who has access.
func TestImportKeepsWhatIsNotInTheDocument(t *testing.T) {
	t.Parallel()
	is := is.New(t)
	ctx := t.Context()
	k := agentkeytest.New(t)
	bot, key := k.Agent("bot")
	tool := k.Tool("Linear", "lin_api_test_1")
	k.Allow(bot, tool)
	plan, err := k.ImportCatalog(ctx, k.Owner, document(entry("fresh", "Fresh")), agentkey.ImportOptions{})
	is.NoErr(err)
	is.Equal(lines(plan), []string{"create 1 fresh", "remove 0 linear kept"})
	v, err := k.Vend(ctx, key, tool.ID)
	is.NoErr(err)
	v.Credential.Destroy()

	_, err = k.ImportCatalog(ctx, k.Owner, document(entry("fresh", "Fresh")), agentkey.ImportOptions{Prune: true})
	is.NoErr(err)
	_, err = k.Vend(ctx, key, tool.ID)
	is.True(errors.Is(err, agentkey.ErrNoTool))
}

func TestImportIsThePlannedOneOrNone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for name, meanwhile := range map[string]func(k *agentkeytest.Kit, bot agentkey.Agent, asking agentkey.Caller, tool agentkey.Tool) error{
		"a tool is changed": func(k *agentkeytest.Kit, _ agentkey.Agent, _ agentkey.Caller, tool agentkey.Tool) error {
			name := "Renamed"
			return second(k.UpdateTool(ctx, k.Owner, tool.ID, agentkey.UpdateToolInput{Name: &name}))
		},
		"a tool is added": func(k *agentkeytest.Kit, _ agentkey.Agent, _ agentkey.Caller, _ agentkey.Tool) error {
			k.Tool("Another", "ano_api_test_1")
			return nil
		},
		"a tool is deleted": func(k *agentkeytest.Kit, _ agentkey.Agent, _ agentkey.Caller, tool agentkey.Tool) error {
			return second(k.DeleteTool(ctx, k.Owner, tool.ID))
		},
		"a request is made": func(k *agentkeytest.Kit, _ agentkey.Agent, asking agentkey.Caller, tool agentkey.Tool) error {
			return second(k.RequestAccess(ctx, asking, agentkey.RequestInput{Tool: tool.ID, Reason: "to test"}))
		},
		"a grant is revoked": func(k *agentkeytest.Kit, bot agentkey.Agent, _ agentkey.Caller, tool agentkey.Tool) error {
			return second(k.Revoke(ctx, k.Owner, bot.ID, tool.ID))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			is := is.New(t)
			k := agentkeytest.New(t)
			bot, _ := k.Agent("bot")
			_, asking := k.Agent("asking")
			tool := k.Tool("Linear", "lin_api_test_1")
			k.Allow(bot, tool)
			doc := document(entry("fresh", "Fresh"))
			o := agentkey.ImportOptions{Prune: true}
			p, err := k.PlanImport(ctx, k.Owner, doc, o)
			is.NoErr(err)
			is.NoErr(meanwhile(k, bot, asking, tool))
			now := exported(t, k)
			o.Plan = p.Digest
			_, err = k.ImportCatalog(ctx, k.Owner, doc, o)
			is.True(errors.Is(err, agentkey.ErrChanged))
			is.Equal(exported(t, k), now)

			p, err = k.PlanImport(ctx, k.Owner, doc, o)
			is.NoErr(err)
			o.Plan = p.Digest
			done, err := k.ImportCatalog(ctx, k.Owner, doc, o)
			is.NoErr(err)
			is.Equal(lines(done), lines(p))
		})
	}
}
