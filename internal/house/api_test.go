package house

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/api anew")

// What a package exports is a file in the tree, so that a change of it shows in
// review: go test ./internal/house -update.
func TestAPI(t *testing.T) {
	for _, name := range []string{"caps", "ipc", "privsep", "privsep/admission", "sandbox", "seccomp"} {
		cmd := exec.Command("go", "doc", "-all", "./"+name)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
		got, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		// What precedes the package's comment is about the module cache: go
		// doc looks up modules of dependencies' tests, and says on its output
		// that GOPROXY=off forbids it.
		_, got, _ = bytes.Cut(got, []byte("// import "))
		_, got, _ = bytes.Cut(got, []byte("\n"))
		file := "../../docs/api/" + strings.ReplaceAll(name, "/", "-") + ".txt"
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: go doc -all is not %s: write it anew with -update, and say why", name, file)
		}
	}
}
