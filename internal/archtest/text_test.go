package archtest_test

import (
	"bytes"
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEverythingExportedIsDocumented: packages, types, functions, methods,
// constants, variables, and fields of interfaces' kind: methods. A group's
// comment speaks for the constants and variables in it, not for types.
func TestEverythingExportedIsDocumented(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	for _, p := range b.own {
		c := b.check(t, p)
		described := false
		for _, f := range c.syntax {
			described = described || f.Doc.Text() != ""
			for _, d := range f.Decls {
				for _, name := range undocumented(d) {
					t.Errorf("%s: %s has no comment", b.at(d.Pos()), name)
				}
			}
		}
		if !described {
			t.Errorf("package %s has no comment", p.short())
		}
	}
}

// undocumented are the exported names of a declaration that have no comment.
func undocumented(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && (d.Recv == nil || exportedReceiver(d.Recv)) && d.Doc.Text() == "" && !expected[d.Name.Name] {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc.Text() == "" && (d.Doc.Text() == "" || len(d.Specs) > 1) {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc.Text() == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

// expected are methods whose meaning is that of the interface they are for.
var expected = map[string]bool{"Error": true, "Unwrap": true, "Is": true}

func exportedReceiver(l *ast.FieldList) bool {
	e := l.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// texts calls visit for every file that people write: code, documents, schemas,
// scripts.
func texts(t *testing.T, visit func(name string, content []byte)) {
	t.Helper()
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == ".git" || d.Name() == "rapid" || d.Name() == "fuzz" {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".md", ".sql", ".txtar", ".conf", ".yml", ".yaml", ".sh":
		default:
			if d.Name() != "Makefile" && filepath.Base(filepath.Dir(name)) != ".ci" {
				return nil
			}
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		visit(filepath.ToSlash(name), content)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

const maxLines = 600

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, content []byte) {
		if n := bytes.Count(content, []byte("\n")); strings.HasSuffix(name, ".go") && n > maxLines {
			t.Errorf("%s has %d lines, more than %d", name, n, maxLines)
		}
	})
}

// TestNothingIsLeftToDo: what is not done is not there, and what has to be done
// is an issue.
func TestNothingIsLeftToDo(t *testing.T) {
	t.Parallel()
	marker := regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	texts(t, func(name string, content []byte) {
		if found := marker.Find(content); found != nil {
			t.Errorf("%s says %s", name, found)
		}
	})
}

// TestNoMachineIsNamed: no path of somebody's home directory and no name in a
// private network.
func TestNoMachineIsNamed(t *testing.T) {
	t.Parallel()
	path := regexp.MustCompile(`(?:^|[\s"'` + "`" + `(=:])/(?:home|Users|root|work|workspace|mnt|tmp)/[A-Za-z0-9_.-]+`)
	host := regexp.MustCompile(`\b[a-z0-9-]+\.(?:internal|intranet|lan|corp|localdomain)\b`)
	texts(t, func(name string, content []byte) {
		if strings.HasPrefix(name, "internal/archtest/") {
			return
		}
		for _, pattern := range []*regexp.Regexp{path, host} {
			if found := pattern.Find(content); found != nil {
				t.Errorf("%s names %q", name, bytes.TrimSpace(found))
			}
		}
	})
}

// TestDependenciesAreExplained: docs/design.md has a line of reason for every
// module that the code imports, at the version that go.mod has.
func TestDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	b := loaded(t)
	design, err := os.ReadFile(filepath.Join(b.root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	required := requirements(t, b.root)
	explained := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`[^|]*\\| ([0-9.]+) \\| [A-Z][A-Za-z0-9.-]+ \\| .+ \\|$").FindAllSubmatch(design, -1) {
		explained[string(row[1])] = true
		if line := "\t" + string(row[1]) + " v" + string(row[2]); !bytes.Contains(required, []byte(line)) {
			t.Errorf("docs/design.md: go.mod does not require %s %s", row[1], row[2])
		}
	}
	for name, rule := range arrows {
		for _, path := range rule.others {
			p := b.all[path]
			if p == nil || p.Module == nil {
				t.Errorf("arrows: nothing imports %s, which %s may", path, name)
			} else if !explained[p.Module.Path] && !strings.HasPrefix(p.Module.Path, "github.com/uptrace/bun/dialect/") {
				t.Errorf("docs/design.md has no line for %s", p.Module.Path)
			}
		}
	}
}

// requirements are the go.mod of this module and of those nested in it, one after
// the other.
func requirements(t *testing.T, root string) (all []byte) {
	t.Helper()
	paths := []string{filepath.Join(root, "go.mod")}
	for _, pattern := range []string{"vault/*/go.mod", "vault/internal/*/*/go.mod"} {
		nested, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(nested) == 0 {
			t.Fatalf("%s: %d, %v", pattern, len(nested), err)
		}
		paths = append(paths, nested...)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

// TestNestedDependenciesAreExplained: what a nested module requires directly has its
// line in docs/design.md too.
func TestNestedDependenciesAreExplained(t *testing.T) {
	t.Parallel()
	root := loaded(t).root
	design, err := os.ReadFile(filepath.Join(root, "docs", "design.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`(?m)^\t(\S+) v\S+$`)
	for _, found := range direct.FindAllSubmatch(requirements(t, root), -1) {
		path := string(found[1])
		if path != module && !strings.HasPrefix(path, "github.com/uptrace/bun/dialect/") && !bytes.Contains(design, []byte("`"+path+"`")) {
			t.Errorf("docs/design.md has no line for %s", path)
		}
	}
}

// TestLinksLeadSomewhere: every relative link of a document is to a file or
// folder that is there.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	code := regexp.MustCompile("(?ms)^```.*?^```$")
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	texts(t, func(name string, content []byte) {
		if filepath.Ext(name) != ".md" {
			return
		}
		for _, found := range link.FindAllSubmatch(code.ReplaceAll(content, nil), -1) {
			target := filepath.Join("..", "..", filepath.Dir(name), string(found[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, found[1])
			}
		}
	})
}
