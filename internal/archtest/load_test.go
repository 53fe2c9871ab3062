package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/agentkey-dev/agentkey-go"

// pkg is what go list says of a package.
type pkg struct {
	ImportPath, Name, Dir, Export string
	GoFiles, Imports, Deps        []string
	Standard                      bool
	Module                        *struct{ Path string }
}

// own reports whether the package is of this module.
func (p *pkg) own() bool { return p.Module != nil && p.Module.Path == module }

// short is the path within the module; "." is the root.
func (p *pkg) short() string { return short(p.ImportPath) }

func short(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// build is everything that the module's packages are made of, without tests.
type build struct {
	root  string
	all   map[string]*pkg
	own   []*pkg // in the order of their paths
	files *token.FileSet
}

// load asks go list, once.
var load = sync.OnceValues(func() (*build, error) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		return nil, err
	}
	list := exec.Command("go", "list", "-deps", "-export", "-json=ImportPath,Name,Dir,Export,GoFiles,Imports,Deps,Standard,Module", "./...")
	list.Dir = root
	var stderr bytes.Buffer
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	b := &build{root: root, all: map[string]*pkg{}, files: token.NewFileSet()}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return nil, err
		}
		b.all[p.ImportPath] = p
		if p.own() {
			b.own = append(b.own, p)
		}
	}
})

func loaded(t *testing.T) *build {
	t.Helper()
	b, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// modules are those that a program links which imports the package, but ours.
func (b *build) modules(p *pkg) map[string]bool {
	linked := map[string]bool{}
	for _, dep := range p.Deps {
		if d := b.all[dep]; d != nil && d.Module != nil && !d.own() {
			linked[d.Module.Path] = true
		}
	}
	return linked
}

// checked is a package with its syntax and types.
type checked struct {
	*pkg
	syntax []*ast.File
	types  *types.Package
	info   *types.Info
}

var (
	checking sync.Mutex // parsing and importing share a file set
	known    = map[string]*checked{}
)

// check parses and types a package of ours.
func (b *build) check(t *testing.T, p *pkg) *checked {
	t.Helper()
	checking.Lock()
	defer checking.Unlock()
	if c := known[p.ImportPath]; c != nil {
		return c
	}
	c := &checked{pkg: p, info: &types.Info{Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{}}}
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(b.files, filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		c.syntax = append(c.syntax, f)
	}
	config := types.Config{Importer: importer.ForCompiler(b.files, "gc", func(path string) (io.ReadCloser, error) {
		dep := b.all[path]
		if dep == nil || dep.Export == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(dep.Export)
	})}
	var err error
	if c.types, err = config.Check(p.ImportPath, b.files, c.syntax, c.info); err != nil {
		t.Fatal(err)
	}
	known[p.ImportPath] = c
	return c
}

// at is a position, from the module's root.
func (b *build) at(pos token.Pos) string {
	p := b.files.Position(pos)
	if name, err := filepath.Rel(b.root, p.Filename); err == nil {
		p.Filename = filepath.ToSlash(name)
	}
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// file is the file of a position, from the module's root.
func (b *build) file(pos token.Pos) string {
	name, _, _ := strings.Cut(b.at(pos), ":")
	return name
}
