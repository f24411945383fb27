// Package docs holds no code. Its tests hold the documents to the tree.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files calls f with the path below root of each file whose name ends so.
func files(t *testing.T, suffix string, f func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, suffix) {
			name, err := filepath.Rel(root, path)
			f(name)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// block returns the first fenced block of a document that begins so.
func block(t *testing.T, text, fence string) string {
	t.Helper()
	_, text, ok := strings.Cut(text, fence+"\n")
	text, _, closed := strings.Cut(text, "```\n")
	if !ok || !closed {
		t.Fatalf("no block %q", fence)
	}
	return text
}

func TestReadmeProgramIsTheCompiledOne(t *testing.T) {
	_, program, _ := strings.Cut(read(t, "docs/finger/main.go"), "\npackage main\n")
	if got, want := block(t, read(t, "README.md"), "```go"), "package main\n"+program; got != want {
		t.Error("the README's program is not docs/finger/main.go")
	}
}

func TestReadmePolicyIsTheGoldenOne(t *testing.T) {
	if !strings.Contains(read(t, "README.md"), "```\n"+read(t, "examples/vsftpd-like/testdata/policy-port-20.txt")+"```\n") {
		t.Error("the README's policy is not testdata/policy-port-20.txt")
	}
}

var (
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z0-9]\\w*)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
)

// TestNamedTestsExist: a claim that names its test is worth what the test is,
// and nothing if there is none.
func TestNamedTestsExist(t *testing.T) {
	exist := make(map[string]bool)
	files(t, "_test.go", func(name string) {
		for _, m := range testFunc.FindAllStringSubmatch(read(t, name), -1) {
			exist[m[1]] = true
		}
	})
	files(t, ".md", func(name string) {
		for _, m := range testName.FindAllStringSubmatch(read(t, name), -1) {
			if !exist[m[1]] {
				t.Errorf("%s names %s, which does not exist", name, m[1])
			}
		}
	})
}

func TestLinksLead(t *testing.T) {
	files(t, ".md", func(name string) {
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := filepath.Join(filepath.Dir(name), target)
			if target == "" {
				path = name
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s: %v", name, err)
			} else if anchor != "" && !hasAnchor(read(t, path), anchor) {
				t.Errorf("%s: %s has no heading #%s", name, path, anchor)
			}
		}
	})
}

// hasAnchor makes anchors of headings as forges do.
func hasAnchor(text, anchor string) bool {
	drop := regexp.MustCompile(`[^\w\- ]`)
	for line := range strings.Lines(text) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			heading = drop.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			if strings.ReplaceAll(heading, " ", "-") == anchor {
				return true
			}
		}
	}
	return false
}

// TestTrustNamesEachModule, with its version.
func TestTrustNamesEachModule(t *testing.T) {
	trust := read(t, "docs/trust.md")
	required := regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/\S+) (v\S+)`).FindAllStringSubmatch(read(t, "go.mod"), -1)
	if len(required) < 8 {
		t.Fatalf("only %d modules found in go.mod", len(required))
	}
	for _, m := range required {
		if row := "| " + m[1] + " | " + m[2] + " |"; !strings.Contains(trust, row) {
			t.Errorf("docs/trust.md has no row %s", row)
		}
	}
}

func TestDesignListsEachDecision(t *testing.T) {
	design := read(t, "docs/design.md")
	files(t, ".md", func(name string) {
		if rest, ok := strings.CutPrefix(name, "docs/"); ok && strings.HasPrefix(rest, "decisions/") && !strings.Contains(design, "("+rest+")") {
			t.Errorf("docs/design.md does not list %s", rest)
		}
	})
}
