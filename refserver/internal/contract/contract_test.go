package contract_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/agentkey-dev/agentkey-go/internal/dbtest"
	"github.com/agentkey-dev/agentkey-go/refserver/internal/servertest"
)

const unknownID = "0190f7a2-3f7e-7c55-9a31-5d6f4f0c2b10"

// each runs a test with a server on a new database of each kind.
func each(t *testing.T, o servertest.Options, test func(t *testing.T, f *servertest.Fixture)) {
	t.Helper()
	dbtest.Each(t, func(t *testing.T, open dbtest.Database) {
		o := o
		o.Store = dbtest.Clockless{Store: open(t)}
		test(t, servertest.New(t, o))
	})
}

// keys are the names of an object's members, sorted.
func keys(o map[string]any) string { return strings.Join(slices.Sorted(maps.Keys(o)), " ") }

func words(values ...any) string { return strings.TrimSuffix(fmt.Sprintln(values...), "\n") }

// sections are the parts of the contract, what replaces some of it, and what is
// added.
func sections() (all []string) {
	for i := range 9 {
		all = append(all, fmt.Sprintf("1.%d", i+1))
	}
	for i := range 6 {
		all = append(all, fmt.Sprintf("2.%d", i+1), fmt.Sprintf("4.%d", i+1))
	}
	all = append(all, "3", "3.1", "5", "6", "8")
	for i := range 28 {
		all = append(all, fmt.Sprintf("D%d", i+1))
	}
	for i := range 9 {
		all = append(all, fmt.Sprintf("A%d", i+1))
	}
	return all
}

// TestEverySectionHasItsTest: docs/contract.md has a row for every section of the
// contract and everything that differs from it, and every test that it names is
// there. A section of §§1–5 is shown by one on both databases besides others.
func TestEverySectionHasItsTest(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "contract.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := testsIn(t, root)
	row := regexp.MustCompile(`(?m)^\| ([0-9.]+|[DA][0-9]+) \| .+ \| ([^|]+) \|$`)
	name := regexp.MustCompile("`(Test[A-Za-z0-9_]+|Example[A-Za-z0-9_]+|[a-z_]+\\.txtar)`")
	found := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		section, cell := m[1], m[2]
		if found[section] {
			t.Errorf("docs/contract.md has two rows for %s", section)
		}
		found[section] = true
		names := name.FindAllStringSubmatch(cell, -1)
		both := false
		for _, n := range names {
			databases, found := there[n[1]]
			if !found {
				t.Errorf("docs/contract.md, %s: there is no test %s", section, n[1])
			}
			both = both || databases
		}
		switch {
		case len(names) == 0 && cell != "not served":
			t.Errorf("docs/contract.md, %s: no test", section)
		case strings.ContainsAny(section[:1], "12345") && !both && cell != "not served":
			t.Errorf("docs/contract.md, %s: no test on both databases", section)
		}
	}
	for _, section := range sections() {
		if !found[section] {
			t.Errorf("docs/contract.md has no row for %s", section)
		}
	}
}

// testsIn are the names of the tests and scripts in a folder and below, and
// whether they stand among tests over HTTP on databases of both kinds.
func testsIn(t *testing.T, folder string) map[string]bool {
	t.Helper()
	function := regexp.MustCompile(`(?m)^func ((?:Test|Example)[A-Za-z0-9_]+)\(`)
	found := map[string]bool{}
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case strings.HasSuffix(path, ".txtar"):
			found[filepath.Base(path)] = false
		case strings.HasSuffix(path, "_test.go"):
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			here := filepath.Base(filepath.Dir(path)) == "contract"
			both := here || bytes.Contains(content, []byte("servertest.")) && bytes.Contains(content, []byte("dbtest."))
			for _, m := range function.FindAllSubmatch(content, -1) {
				found[string(m[1])] = found[string(m[1])] || both
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
