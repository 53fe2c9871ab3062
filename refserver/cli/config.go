package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/agentkey-dev/agentkey-go/refserver/client"
)

type configCommands struct {
	Export configExport `cmd:"" help:"Write the catalog of tools as a document, without credentials."`
	Plan   configPlan   `cmd:"" help:"Show what importing a document would do."`
	Import configImport `cmd:"" help:"Make the catalog what a document says."`
}

type configExport struct {
	serverFlags
	Format string `enum:"yaml,json" default:"yaml" help:"Form of the document: ${enum}."`
	Out    string `short:"o" placeholder:"FILE" help:"Write to this file instead of standard output."`
}

// Run exports the catalog.
func (c *configExport) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	if c.Out == "" {
		return admin.ExportCatalog(ctx, c.Format, s.stdout)
	}
	return writeWhole(c.Out, func(w io.Writer) error { return admin.ExportCatalog(ctx, c.Format, w) })
}

// documentArg is a catalog document as an argument.
type documentArg struct {
	File  string `arg:"" help:"The document, or - for standard input."`
	Prune bool   `help:"Delete the tools that the document lacks, with their credentials and grants."`
}

// maxDocument is how much of a document is read: one byte more than the server
// takes, so that it is the server that refuses a longer one.
const maxDocument = 262144 + 1

func (d documentArg) read(s *session) (client.CatalogDocument, error) {
	from, media := s.stdin, ""
	if d.File != "-" {
		file, err := os.Open(d.File)
		if err != nil {
			return client.CatalogDocument{}, fmt.Errorf("document: %w", cause(err))
		}
		defer func() { _ = file.Close() }()
		from = file
		switch strings.ToLower(filepath.Ext(d.File)) {
		case ".yaml", ".yml":
			media = "application/yaml"
		case ".json":
			media = "application/json"
		}
	}
	text, err := io.ReadAll(io.LimitReader(from, maxDocument))
	if err != nil {
		return client.CatalogDocument{}, fmt.Errorf("document: %w", cause(err))
	}
	return client.CatalogDocument{Text: text, Type: media}, nil
}

type configPlan struct {
	readFlags
	documentArg
}

// Run shows a plan. It fails when the document can't be imported.
func (c *configPlan) Run(ctx context.Context, s *session) error {
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	doc, err := c.read(s)
	if err != nil {
		return err
	}
	plan, err := admin.PlanImport(ctx, doc, c.Prune)
	if err != nil {
		return err
	}
	if c.JSON {
		err = s.emit(plan)
	} else if err = showPlan(s, plan); err == nil {
		err = s.say("plan %s", plan.Digest)
	}
	if err != nil {
		return err
	}
	return importable(plan)
}

type configImport struct {
	readFlags
	documentArg
	Plan string `placeholder:"DIGEST" help:"Import only if this is still the plan, as agentkey config plan showed it."`
	Yes  bool   `short:"y" help:"Don't ask before importing."`
}

// Run shows the plan, asks, and imports exactly what it showed.
func (c *configImport) Run(ctx context.Context, s *session) error {
	_, asks := terminal(s.stdin)
	asks = asks && c.File != "-"
	if !c.Yes && c.Plan == "" && !asks {
		return usagef("nobody can be asked here: give --yes, or --plan with the digest of a plan that was looked at")
	}
	admin, err := c.connect(s)
	if err != nil {
		return err
	}
	doc, err := c.read(s)
	if err != nil {
		return err
	}
	digest := c.Plan
	if digest == "" {
		plan, err := admin.PlanImport(ctx, doc, c.Prune)
		if err != nil {
			return err
		}
		if digest, err = c.agree(s, plan); err != nil {
			return err
		}
	}
	done, err := admin.ImportCatalog(ctx, doc, c.Prune, digest)
	if err != nil {
		return err
	}
	if c.JSON {
		return s.emit(done)
	}
	return s.say("imported: %s", counted(done))
}

// agree shows a plan and gives its digest if it may be carried out.
func (c *configImport) agree(s *session, plan client.ImportPlan) (string, error) {
	if !c.JSON || importable(plan) != nil {
		if err := showPlan(s, plan); err != nil {
			return "", err
		}
	}
	if err := importable(plan); err != nil || c.Yes {
		return plan.Digest, err
	}
	if _, err := fmt.Fprint(s.stderr, "Import this? Only yes does: "); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(io.LimitReader(s.stdin, 100)).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return "", fmt.Errorf("nothing was imported")
	}
	return plan.Digest, nil
}

func importable(plan client.ImportPlan) error {
	if plan.Counts.Invalid == 0 {
		return nil
	}
	return fmt.Errorf("%s can't be imported; nothing was", several(int64(plan.Counts.Invalid), "entry of the document", "entries of the document"))
}

func several(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// showPlan shows what a plan does, and says of the rest how many there are.
func showPlan(s *session, plan client.ImportPlan) error {
	t := table{titles: []string{"ACTION", "KEY", "NAME", "DETAILS"}, wrap: true}
	for _, item := range plan.Items {
		if item.Action == "unchanged" {
			continue
		}
		action := item.Action
		if item.Kept {
			action = "keep"
		}
		t.add(action, item.Key, item.Name, detail(item))
	}
	if len(t.rows) > 0 {
		if err := t.print(s); err != nil {
			return err
		}
	}
	return s.say("%s", counted(plan))
}

// detail says in words what an item is about.
func detail(item client.ImportItem) string {
	var parts []string
	switch {
	case len(item.Errors) > 0:
		parts = append(parts, item.Errors...)
	case len(item.Changes) > 0:
		parts = append(parts, "changes "+strings.Join(item.Changes, ", "))
	case item.Kept:
		parts = append(parts, "not in the document; --prune would delete it")
	}
	g := item.Grants
	if g.ApprovedEnd > 0 {
		parts = append(parts, "ends "+plural(g.ApprovedEnd, "grant"))
	}
	if g.PendingEnd > 0 {
		parts = append(parts, "drops "+plural(g.PendingEnd, "request"))
	}
	if g.PendingMore > 0 {
		parts = append(parts, several(g.PendingMore, "request needs", "requests need")+" more approvals")
	}
	if len(g.Items) > 0 {
		names := make([]string, len(g.Items))
		for i, a := range g.Items {
			names[i] = a.AgentName
		}
		more := ""
		if all := g.ApprovedEnd + g.PendingEnd + g.PendingMore; int(all) > len(names) {
			more = fmt.Sprintf(" and %d more", int(all)-len(names))
		}
		parts = append(parts, "of "+strings.Join(names, ", ")+more)
	}
	return strings.Join(parts, "; ")
}

func counted(plan client.ImportPlan) string {
	removed, kept := plan.Counts.Remove, 0
	if !plan.Prune {
		removed, kept = 0, removed
	}
	text := fmt.Sprintf("%d to create, %d to update, %d to delete, %d unchanged", plan.Counts.Create, plan.Counts.Update, removed, plan.Counts.Unchanged)
	if kept > 0 {
		text += fmt.Sprintf(", %d kept", kept)
	}
	if plan.Counts.Invalid > 0 {
		text += fmt.Sprintf(", %d invalid", plan.Counts.Invalid)
	}
	return text
}
