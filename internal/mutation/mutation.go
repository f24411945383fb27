// Package mutation puts mistakes into source, one at a time, and has tests find
// them. A test that no mistake can fail proves nothing.
//
// The tree is not touched: the go command is told to read one file from
// elsewhere (go help build, -overlay), so what is not changed comes from the
// build cache.
package mutation

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A Mistake is one, and who must notice it.
type Mistake struct {
	Name     string // and in which program it was made
	Package  string // whose tests run, relative to the test's directory
	File     string // relative to the test's directory
	Old, New string // Old is in the file once
	Import   string // a package that New names and the file does not
	Run      string // the tests, as go test -run
	Caught   string // in the output: "--- FAIL: TestName", or the compiler's words
}

// Run makes every mistake and fails those that nobody notices.
func Run(t *testing.T, mistakes []Mistake) {
	t.Helper()
	atOnce := make(chan struct{}, runtime.GOMAXPROCS(0))
	for _, m := range mistakes {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel() // they build and wait by turns
			atOnce <- struct{}{}
			defer func() { <-atOnce }()
			m.run(t)
		})
	}
}

// A Change is made to one file. Old is in it once.
type Change struct{ File, Old, New string }

// Build compiles the tests of a package with all changes made, and returns the
// path of the program, which may run for as long as t does.
func Build(t *testing.T, pkg string, changes []Change) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "mutant.test")
	out, err := exec.Command("go", "test", "-c", "-overlay", overlay(t, changes), "-vet=off", "-ldflags=-w", "-o", program, pkg).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// overlay writes what changes make of files, and the list of them for the go
// command.
func overlay(t *testing.T, changes []Change) string {
	t.Helper()
	dir, texts := t.TempDir(), make(map[string][]byte)
	for _, c := range changes {
		file, err := filepath.Abs(c.File)
		if err != nil {
			t.Fatal(err)
		}
		if texts[file] == nil {
			if texts[file], err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(texts[file], []byte(c.Old)); n != 1 {
			t.Fatalf("%s: %q is there %d times: the mutation has to be written anew", c.File, c.Old, n)
		}
		texts[file] = bytes.Replace(texts[file], []byte(c.Old), []byte(c.New), 1)
	}
	var list []string
	for file, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%d-%s", len(list), filepath.Base(file)))
		if err := os.WriteFile(changed, text, 0o644); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprintf("%q: %q", file, changed))
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, fmt.Appendf(nil, `{"Replace": {%s}}`, strings.Join(list, ", ")), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func (m *Mistake) run(t *testing.T) {
	changes := []Change{{m.File, m.Old, m.New}}
	if m.Import != "" {
		changes = append(changes, Change{m.File, "import (\n", fmt.Sprintf("import (\n\t%q\n", m.Import)})
	}
	cmd := exec.Command("go", "test", "-overlay", overlay(t, changes), "-count=1", "-vet=off", "-ldflags=-w", "-timeout=2m", "-run", m.Run, m.Package)
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		t.Errorf("nobody notices:\n%s\n%s", m.New, out)
	case !strings.Contains(string(out), m.Caught):
		t.Errorf("caught, but not by %q:\n%s", m.Caught, out)
	default:
		t.Logf("caught: %s", m.Caught)
	}
}
