package archtest_test

import (
	"go/ast"
	"go/token"
	"go/types"
	"strings"
	"testing"
)

// each calls visit for every node of every package of ours but the tests.
func each(t *testing.T, visit func(c *checked, n ast.Node)) *build {
	t.Helper()
	b := loaded(t)
	for _, p := range b.own {
		c := b.check(t, p)
		for _, f := range c.syntax {
			ast.Inspect(f, func(n ast.Node) bool {
				if n != nil {
					visit(c, n)
				}
				return true
			})
		}
	}
	return b
}

// function is the full name of a package's function that n calls or passes on,
// such as time.Now; empty for everything else.
func function(c *checked, n ast.Node) string {
	id, ok := n.(*ast.Ident)
	if !ok {
		return ""
	}
	f, ok := c.info.Uses[id].(*types.Func)
	if !ok || f.Signature().Recv() != nil || f.Pkg() == nil {
		return ""
	}
	return f.Pkg().Path() + "." + f.Name()
}

// TestTheClockIsInjected: what tells the time by itself is the default of a
// clock that can be given, or makes a deadline, and nothing else.
func TestTheClockIsInjected(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"config.go":                             "the default of Config.Clock",
		"refserver/cli/session.go":              "the default of cli.Options.Clock",
		"deadline.go":                           "a deadline is of real time, as a context's is",
		"refserver/internal/exchange/router.go": "the default of the handlers' Clock, and a request's deadlines",
		"vault/transit/client.go":               "the default of transit.Config.Clock",
		"storage/storagetest/contention.go":     "measures how long a backend makes others wait",
		"internal/steady/main.go":               "measures how long the machine stands still",
	}
	b := loaded(t)
	each(t, func(c *checked, n ast.Node) {
		switch name := function(c, n); name {
		case "time.Now", "time.Since", "time.Sleep":
			if may[b.file(n.Pos())] == "" || name == "time.Sleep" {
				t.Errorf("%s: %s; take the time from the clock that was given", b.at(n.Pos()), name)
			}
		}
	})
}

// TestALibraryIsSilent: nothing ends the process, prints, or logs other than to a
// logger that it was given.
func TestALibraryIsSilent(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	each(t, func(c *checked, n ast.Node) {
		name := function(c, n)
		switch path, _, _ := cutLast(name, "."); {
		case c.Name == "main":
		case name == "os.Exit", name == "runtime.Goexit", path == "log",
			name == "fmt.Print", name == "fmt.Printf", name == "fmt.Println":
			t.Errorf("%s: %s belongs into programs only", b.at(n.Pos()), name)
		case path == "log/slog" && !strings.HasPrefix(name, "log/slog.New"):
			switch name {
			case "log/slog.Default", "log/slog.SetDefault", "log/slog.Debug", "log/slog.Info", "log/slog.Warn", "log/slog.Error",
				"log/slog.DebugContext", "log/slog.InfoContext", "log/slog.WarnContext", "log/slog.ErrorContext", "log/slog.Log", "log/slog.LogAttrs":
				t.Errorf("%s: %s; log to the logger that was given", b.at(n.Pos()), name)
			}
		}
	})
}

// TestRandomnessIsCrypto: math/rand is for jitter and for tests. Keys, nonces and
// ids come from crypto/rand, whose source nobody replaces.
func TestRandomnessIsCrypto(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		".":                       "the jitter of deliveries",
		"refserver/internal/seed": "which of many made up grants is vended, and when",
		"refserver/cli":           "which of them the bench vends",
		"storage/memstore":        "the balance of a tree",
		"storage/storagetest":     "seeded test data",
		"vault/transit":           "the jitter of attempts",
	}
	b := loaded(t)
	for _, p := range b.own {
		for _, path := range p.Imports {
			random := path == "math/rand/v2" && may[p.short()] == "" && !strings.HasPrefix(p.short(), "internal/")
			if random || path == "math/rand" || path == "unsafe" {
				t.Errorf("%s imports %s", p.short(), path)
			}
		}
	}
	each(t, func(c *checked, n ast.Node) {
		if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Reader" {
			if v, ok := c.info.Uses[s.Sel].(*types.Var); ok && v.Pkg() != nil && v.Pkg().Path() == "crypto/rand" {
				t.Errorf("%s: rand.Reader is a variable; call rand.Read", b.at(n.Pos()))
			}
		}
	})
}

// TestNoInit: importing a package of ours does nothing.
func TestNoInit(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	each(t, func(_ *checked, n ast.Node) {
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
			t.Errorf("%s: no package has an init function", b.at(n.Pos()))
		}
	})
}

// TestGlobalsDoNotChange: no function assigns to a variable of a package, to a
// part of one, or hands out its address.
func TestGlobalsDoNotChange(t *testing.T) {
	t.Parallel()
	may := map[string]string{
		"internal/pgtest.held": "the cluster's pipe lives as long as the test process",
	}
	b := loaded(t)
	report := func(c *checked, e ast.Expr) {
		v := global(c, e)
		if v == nil || v.Pkg() == nil || may[short(v.Pkg().Path())+"."+v.Name()] != "" {
			return
		}
		t.Errorf("%s: %s is a variable of package %s, and must not change", b.at(e.Pos()), v.Name(), short(v.Pkg().Path()))
	}
	each(t, func(c *checked, n ast.Node) {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, e := range n.Lhs {
				report(c, e)
			}
		case *ast.IncDecStmt:
			report(c, n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				report(c, n.Key)
				report(c, n.Value)
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				report(c, n.X)
			}
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 && (id.Name == "delete" || id.Name == "clear" || id.Name == "copy") {
				report(c, n.Args[0])
			}
		}
	})
}

// global is the package's variable that e is, or is a part of.
func global(c *checked, e ast.Expr) *types.Var {
	for {
		switch x := e.(type) {
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.SelectorExpr:
			if v, ok := c.info.Uses[x.Sel].(*types.Var); ok && !v.IsField() {
				return v // another package's
			}
			e = x.X
		case *ast.Ident:
			if v, ok := c.info.Uses[x].(*types.Var); ok && v.Pkg() != nil && v.Parent() == v.Pkg().Scope() {
				return v
			}
			return nil
		default:
			return nil
		}
	}
}

// cutLast cuts s around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(s, separator); i >= 0 {
		return s[:i], s[i+len(separator):], true
	}
	return s, "", false
}
