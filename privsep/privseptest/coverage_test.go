package privseptest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// beyond are the statements of privsep/dispatch.go that the kit can't reach, by
// a line of each.
var beyond = map[string]string{
	"defer func(at *phase, begun time.Time) {":                                                     "the daemon's audit; the kit has none (TestAudit)",
	"if err := guard(func() error { return c.enter(ctx, c.phase, c.state) }); err != nil {":        "starts workers; the kit starts none",
	"return caps.With(permit.caps, run)":                                                           "needs a capability; the kit needs no privilege",
	"return remains // nobody may run on with capabilities that nobody gave":                       "the kernel refuses to take capabilities back",
	`c.log.Warn("no further refusal of this session is logged")`:                                   "a hundred refusals (TestLogTellsWhatTheWorkerIsNotTold)",
	"func ServeConn[S any](ctx context.Context, ph *Phase[S], state *S, channel *os.File) error {": "how a worker serves; the kit serves the same dispatcher itself",
}

// The kit passes through every statement of the dispatcher, so through every
// reason for which it refuses, but for those beyond.
func TestKitCoversDispatch(t *testing.T) {
	if testing.Short() {
		return // it builds; the full suite has it
	}
	profile := filepath.Join(t.TempDir(), "cover")
	cmd := exec.Command("go", "test", "-count=1", "-vet=off", "-run", "^(TestWalk|TestHostile|FuzzHouse)$",
		"-coverpkg", "github.com/go-privsep/sallyport/privsep", "-coverprofile", profile, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("../dispatch.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(source), "\n")
	used, blocks := make(map[string]bool), 0
	for entry := range strings.Lines(string(text)) {
		_, at, ok := strings.Cut(entry, "privsep/dispatch.go:")
		if !ok {
			continue
		}
		var from, fromColumn, to, toColumn, statements, count int
		if _, err := fmt.Sscanf(at, "%d.%d,%d.%d %d %d", &from, &fromColumn, &to, &toColumn, &statements, &count); err != nil {
			t.Fatalf("%q: %v", entry, err)
		}
		blocks++
		if count > 0 || excused(lines, from, to, used) {
			continue
		}
		t.Errorf("dispatch.go, lines %d to %d: the kit does not come here:\n%s", from, to, strings.Join(lines[from-1:to], "\n"))
	}
	if blocks < 50 {
		t.Errorf("%d blocks: the look-up is blind", blocks)
	}
	for line, why := range beyond {
		if !used[line] {
			t.Errorf("%s: it is reached, or gone: this needs no excuse (%s)", line, why)
		}
	}
}

// excused reports whether the block is one that is beyond, or in one.
func excused(lines []string, from, to int, used map[string]bool) bool {
	for j, line := range lines {
		word := strings.TrimSpace(line)
		if beyond[word] == "" {
			continue
		}
		end := j
		if strings.HasSuffix(word, "{") { // as far as the brace that closes it
			indent := line[:len(line)-len(strings.TrimLeft(line, "\t"))]
			for !strings.HasPrefix(lines[end], indent+"}") {
				end++
			}
		}
		if from-1 <= j && j <= to-1 || j <= from-1 && to-1 <= end {
			used[word] = true
			return true
		}
	}
	return false
}
