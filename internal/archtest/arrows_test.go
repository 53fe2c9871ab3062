package archtest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// allowed says what a package may import: packages of ours, and packages of
// other modules. What is not named here is forbidden, and so is a package that
// has no line.
type allowed struct{ own, others []string }

var (
	leaves  = []string{"audit", "grants", "ratelimit", "vault"}
	kept    = append(slices.Clone(leaves), "storage") // what a backend knows
	library = append(slices.Clone(kept), ".")         // what a server over the library knows
	bun     = []string{"github.com/uptrace/bun", "github.com/uptrace/bun/dialect", "github.com/uptrace/bun/dialect/pgdialect", "github.com/uptrace/bun/dialect/sqlitedialect"}
)

// arrows are the directions of imports, the innermost first.
var arrows = map[string]allowed{
	// Leaves: types and pure logic. None imports another.
	"vault":     {own: []string{"vault/internal/primitive"}},
	"grants":    {},
	"ratelimit": {},
	"audit":     {others: []string{"golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog"}},

	"vault/internal/primitive": {},

	"vault/localkey":       {own: []string{"vault"}},
	"vault/internal/bound": {own: []string{"vault"}},
	"vault/transit":        {own: []string{"vault", "vault/internal/bound"}},
	"vault/vaulttest":      {own: []string{"vault"}},

	// The contract, in terms of the leaves, and its backends.
	"storage":             {own: leaves},
	"storage/memstore":    {own: kept},
	"storage/storagetest": {own: kept},
	"storage/bunstore": {own: kept, others: append([]string{
		"github.com/pressly/goose/v3", "github.com/pressly/goose/v3/database", "github.com/pressly/goose/v3/lock",
	}, bun...)},

	"storage/bunstore/pgxpipe": {own: []string{"storage/bunstore"}, others: []string{"github.com/jackc/pgx/v5"}},

	".": {own: kept, others: []string{
		"github.com/go-playground/validator/v10", "github.com/google/uuid", "golang.org/x/net/idna", "golang.org/x/text/cases", "golang.org/x/text/unicode/norm",
	}},
	"agentkeytest": {own: append([]string{"storage/memstore", "vault/localkey"}, library...)},

	// The reference server. Databases and drivers begin at its command line.
	"refserver/internal/strictjson": {},
	"refserver/internal/exchange": {
		own: append([]string{"refserver/internal/strictjson"}, library...), others: []string{"github.com/google/uuid"},
	},
	"refserver/agentapi": {own: append([]string{"refserver/internal/exchange"}, library...)},
	"refserver/adminapi": {own: append([]string{"refserver/internal/catalogfile", "refserver/internal/exchange", "refserver/internal/outgoing"}, library...)},
	"refserver/internal/catalogfile": {
		own: append([]string{"refserver/internal/strictjson"}, library...), others: []string{"go.yaml.in/yaml/v3"},
	},
	"refserver/openapi":           {},
	"refserver/internal/files":    {others: []string{"golang.org/x/sys/unix"}},
	"refserver/internal/outgoing": {},
	"refserver/anchor":            {own: append([]string{"refserver/internal/files", "refserver/internal/outgoing"}, library...)},
	"refserver/sink":              {own: []string{"audit", "refserver/internal/files", "refserver/internal/outgoing", "vault"}},
	"refserver": {own: append([]string{
		"refserver/adminapi", "refserver/agentapi", "refserver/internal/exchange", "refserver/internal/strictjson", "refserver/openapi",
	}, library...)},
	"refserver/internal/servertest": {
		own:    append([]string{"refserver", "refserver/openapi", "storage/memstore", "vault/localkey"}, library...),
		others: []string{"github.com/getkin/kin-openapi/openapi3"},
	},
	"refserver/internal/contract": {}, // tests only
	"refserver/client":            {own: []string{"vault"}},

	// What agentkey bench measures, and how.
	"refserver/internal/seed": {own: library, others: []string{"github.com/google/uuid"}},
	"refserver/internal/load": {},
	"refserver/cli": {
		own: append([]string{"refserver", "refserver/anchor", "refserver/client", "refserver/internal/files", "refserver/internal/load", "refserver/internal/seed", "refserver/sink", "storage/bunstore", "storage/bunstore/pgxpipe", "vault/localkey", "vault/transit"}, library...),
		others: append([]string{
			"github.com/alecthomas/kong", "golang.org/x/sys/unix", "golang.org/x/term", "golang.org/x/text/width",
		}, bun...),
	},
	"refserver/cmd/agentkey": {
		own: []string{"refserver/cli"}, others: []string{"github.com/jackc/pgx/v5/stdlib", "modernc.org/sqlite"},
	},
}

func TestImportsFollowTheArrows(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	for name := range arrows {
		path := module + "/" + name
		if name == "." {
			path = module
		}
		if b.all[path] == nil {
			t.Errorf("%s is gone: remove its line from arrows", name)
		}
	}
	for _, p := range b.own {
		rule, ok := arrows[p.short()]
		if strings.HasPrefix(p.short(), "internal/") {
			continue // tests alone import what is there: no line above names it
		}
		if strings.HasPrefix(p.short(), "examples/") {
			// Examples show what an embedder can write.
			for _, path := range p.Imports {
				if strings.HasPrefix(path, module) && strings.Contains(path, "/internal/") {
					t.Errorf("%s must not import %s: an embedder can't", p.short(), short(path))
				}
			}
			continue
		}
		if !ok {
			t.Errorf("%s: decide where it belongs and add its line to arrows", p.short())
			continue
		}
		for _, path := range p.Imports {
			dep := b.all[path]
			switch {
			case dep == nil || dep.Standard:
			case dep.own() && !slices.Contains(rule.own, short(path)):
				t.Errorf("%s must not import %s", p.short(), short(path))
			case !dep.own() && !slices.Contains(rule.others, path):
				t.Errorf("%s must not import %s", p.short(), path)
			}
		}
	}
}

// TestLeavesDoNoIO: what decides and what seals can't reach a database, a network
// or a process. The suites and key sources beside vault may.
func TestLeavesDoNoIO(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	forbidden := []string{"database/sql", "net", "net/http", "os", "os/exec", "log", "log/slog", "math/rand", "math/rand/v2", "unsafe"}
	for _, leaf := range leaves {
		p := b.all[module+"/"+leaf]
		for _, path := range p.Imports {
			if leaf == "vault" && path == "log/slog" {
				continue // a Secret logs itself as [redacted]
			}
			if slices.Contains(forbidden, path) {
				t.Errorf("%s must not import %s", leaf, path)
			}
		}
	}
}

// rootModules is all that a program links which imports the root package: at
// most 12. A new one is a decision, to be written into docs/design.md.
var rootModules = []string{
	"github.com/gabriel-vasile/mimetype", // of validator
	"github.com/go-playground/locales",   // of validator
	"github.com/go-playground/universal-translator",
	"github.com/go-playground/validator/v10",
	"github.com/google/uuid",
	"github.com/leodido/go-urn", // of validator
	"golang.org/x/crypto",       // of validator
	"golang.org/x/mod",
	"golang.org/x/net",
	"golang.org/x/sys",  // of crypto
	"golang.org/x/text", // of validator
}

func TestRootLinksFewModules(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	linked := slices.Sorted(maps.Keys(b.modules(b.all[module])))
	if !slices.Equal(linked, rootModules) || len(linked) > 12 {
		t.Errorf("the root package links\n%s\nand not just\n%s", strings.Join(linked, "\n"), strings.Join(rootModules, "\n"))
	}
	for _, path := range b.all[module].Deps {
		if path == "database/sql" || path == "net/http" {
			t.Errorf("the root package links %s", path)
		}
	}
}

// TestHandlersLinkWhatTheLibraryLinks: mounting the reference server's handlers
// brings no module that the library did not bring already, but the parser of YAML
// for what administrators import, which needs no other.
func TestHandlersLinkWhatTheLibraryLinks(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	for _, name := range []string{"refserver", "refserver/agentapi", "refserver/adminapi", "refserver/client", "storage/memstore", "storage/storagetest", "vault/localkey", "vault/transit", "agentkeytest"} {
		for m := range b.modules(b.all[module+"/"+name]) {
			yaml := m == "go.yaml.in/yaml/v3" && (name == "refserver" || name == "refserver/adminapi")
			if !yaml && !slices.Contains(rootModules, m) {
				t.Errorf("%s links %s", name, m)
			}
		}
	}
}

// TestBunstoreLinksNoDriver: a program brings its own.
func TestBunstoreLinksNoDriver(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	for m := range b.modules(b.all[module+"/storage/bunstore"]) {
		for _, driver := range []string{"modernc.org/", "github.com/jackc/", "github.com/lib/pq", "github.com/mattn/go-sqlite3", "github.com/uptrace/bun/driver"} {
			if strings.HasPrefix(m, driver) {
				t.Errorf("storage/bunstore links the driver %s", m)
			}
		}
	}
}
