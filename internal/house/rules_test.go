package house

import (
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sources calls f with every Go file of the module.
func sources(t *testing.T, f func(path string, text []byte)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			n++
			f(filepath.ToSlash(strings.TrimPrefix(path, "../../")), text)
		}
		return err
	})
	if err != nil || n < 50 {
		t.Fatalf("%d files, %v: the walk is blind", n, err)
	}
}

func TestFormatted(t *testing.T) {
	sources(t, func(path string, text []byte) {
		if want, err := format.Source(text); err != nil || string(want) != string(text) {
			t.Errorf("%s: not as gofmt has it (%v)", path, err)
		}
	})
}

// If a file can't be named, its idea is not clear yet.
func TestFilesHaveOneIdea(t *testing.T) {
	vague := regexp.MustCompile(`(^|/|_)(util|utils|common|helper|helpers|manager|misc)(_|\.|/)`)
	sources(t, func(path string, text []byte) {
		if vague.MatchString(path) {
			t.Errorf("%s: name what it holds", path)
		}
		if n := strings.Count(string(text), "\n"); n > 400 && !strings.HasSuffix(path, "_test.go") && !strings.HasPrefix(filepath.Base(path), "z") {
			t.Errorf("%s: %d lines: more than one idea", path, n)
		}
	})
}

// An init runs before main can make this process a worker, in each of them.
func TestNoInit(t *testing.T) {
	sources(t, func(path string, text []byte) {
		file, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		if err != nil {
			t.Error(err)
			return
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s: has an init", path)
			}
		}
	})
}

// conventional methods do what their name says everywhere.
var conventional = regexp.MustCompile(`^(Error|Unwrap|Is|String)$`)

// hidden reports whether a method's receiver can't be seen from outside.
func hidden(recv *ast.FieldList) bool {
	typ := recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && !name.IsExported()
}

func TestExportedIsDocumented(t *testing.T) {
	for _, dir := range []string{"ipc", "caps", "seccomp", "sandbox", "privsep", "privsep/admission"} {
		sources(t, func(path string, text []byte) {
			if filepath.Dir(path) != dir || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_other.go") {
				return
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ParseComments)
			if err != nil {
				t.Error(err)
				return
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || !f.Name.IsExported() || f.Doc != nil {
					continue
				}
				if f.Recv != nil && (conventional.MatchString(f.Name.Name) || hidden(f.Recv)) {
					continue
				}
				t.Errorf("%s: %s has no comment", path, f.Name.Name)
			}
		})
	}
}
