package privsep_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The compiler holds what the types promise: each program in testdata/bad is
// wrong in the way that its name says, and good.go, which differs from each in
// that line alone, is right.
func TestProgramsThatMustNotCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.go")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d programs, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".go"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, want, bad := strings.Cut(string(text), "// want: ")
			want, _, _ = strings.Cut(want, "\n")
			out, err := exec.Command("go", "vet", file).CombinedOutput()
			if (err != nil) != bad {
				t.Fatalf("go vet: %v\n%s", err, out)
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("the compiler says\n%swant %s", out, want)
			}
		})
	}
}
