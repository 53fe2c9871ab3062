package agentkey_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryMethodIsExplained: each method of the Manager has a comment that begins
// with its name, and is called by an example whose output is checked.
func TestEveryMethodIsExplained(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	comments, called := map[string]string{}, map[string]bool{}
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, example := range doc.Examples(file) {
			if example.Output == "" {
				t.Errorf("%s: nobody checks the output of Example%s", path, example.Name)
			}
			ast.Inspect(example.Code, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if method, ok := call.Fun.(*ast.SelectorExpr); ok {
						called[method.Sel.Name] = true
					}
				}
				return true
			})
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && ofManager(f) && f.Name.IsExported() {
				comments[f.Name.Name] = f.Doc.Text()
			}
		}
	}
	if len(comments) < 100 {
		t.Fatalf("only %d methods were found", len(comments))
	}
	for name, comment := range comments {
		if !strings.HasPrefix(comment, name+" ") {
			t.Errorf("the comment of Manager.%s does not begin with its name", name)
		}
		if !called[name] {
			t.Errorf("no example calls Manager.%s", name)
		}
	}
}

func ofManager(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return false
	}
	p, ok := f.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return false
	}
	name, ok := p.X.(*ast.Ident)
	return ok && name.Name == "Manager"
}
