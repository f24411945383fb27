package house

import (
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/go-privsep/sallyport/"

// A pkg is what go list says of one package.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,GoFiles,Imports,Deps"}, patterns...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// forbidden are the arrows that may not be drawn, however long.
var forbidden = []struct {
	from, to, why string
}{
	{"ipc", "caps", "a reader can understand each room of the ground floor without the others"},
	{"ipc", "seccomp", "a reader can understand each room of the ground floor without the others"},
	{"caps", "ipc", "a reader can understand each room of the ground floor without the others"},
	{"caps", "seccomp", "a reader can understand each room of the ground floor without the others"},
	{"seccomp", "ipc", "a reader can understand each room of the ground floor without the others"},
	{"seccomp", "caps", "a reader can understand each room of the ground floor without the others"},
	{"sandbox", "ipc", "confinement is told what to do by a value, not by messages"},
	{"sandbox", "privsep", "arrows point down"},
	{"internal/sys", "ipc", "arrows point down"},
	{"internal/sys", "caps", "arrows point down"},
	{"privsep", "net/http", "a monitor speaks no protocol of the world's"},
	{"privsep", "encoding/gob", "no decoder of types that a sender chooses"},
	{"privsep", "os/user", "a C library's look-ups load code that a file names"},
	{"privsep", "plugin", "no code that is not in the image"},
	{"privsep", "os/exec", "workers are started from the opened image, by one thread, and nothing else ever is"},
}

func TestArrows(t *testing.T) {
	all := make(map[string]pkg)
	for _, p := range list(t, "./...") {
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
	full := func(name string) string {
		if _, ours := all[name]; ours {
			return module + name
		}
		return name
	}
	for _, f := range forbidden {
		from, ok := all[f.from]
		if !ok {
			t.Errorf("rule about %s, which does not exist", f.from)
		}
		if slices.Contains(from.Deps, full(f.to)) {
			t.Errorf("%s depends on %s: %s", f.from, f.to, f.why)
		}
	}
	// The control: the same look-up finds an arrow that is there.
	if !slices.Contains(all["privsep"].Deps, full("ipc")) {
		t.Error("the look-up is blind: privsep does not depend on ipc?")
	}
}

// log/slog brings encoding/json along, to write; nothing here may read with it.
func TestNobodyDecodesJSON(t *testing.T) {
	for _, p := range list(t, "./...") {
		if slices.Contains(p.Imports, "encoding/json") {
			t.Errorf("%s imports encoding/json: messages have one codec", p.ImportPath)
		}
	}
}

// One folder holds all of the danger.
func TestOneImporterOfUnsafe(t *testing.T) {
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, danger := range []string{"unsafe", "golang.org/x/sys/unix"} {
			if slices.Contains(p.Imports, danger) && name != "internal/sys" {
				t.Errorf("%s imports %s: only internal/sys may", name, danger)
			}
		}
	}
}

// A daemon's own image must not hold the door that its tests use.
func TestKitIsForTests(t *testing.T) {
	users := 0
	for _, p := range list(t, "./...") {
		name := strings.TrimPrefix(p.ImportPath, module)
		if slices.Contains(p.Imports, module+"privsep/privseptest") {
			t.Errorf("%s imports privseptest: only tests may", name)
		}
		if slices.Contains(p.Imports, module+"privsep/internal/fortest") {
			users++
			if name != "privsep" && name != "privsep/privseptest" {
				t.Errorf("%s imports privsep's door for tests", name)
			}
		}
		if slices.Contains(p.Deps, "testing") && name != "privsep/privseptest" && name != "internal/testenv" && name != "internal/mutation" {
			t.Errorf("%s depends on package testing", name)
		}
	}
	if users != 2 {
		t.Errorf("%d packages use the door: the look-up is blind", users)
	}
}
