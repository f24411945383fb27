package house

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBudget counts what a reviewer of the monitor has to read, and fails when
// it has grown past docs/budget.txt: lines that are neither blank nor comment.
// A line of the file is a name, the most lines, and the files that are meant.
func TestBudget(t *testing.T) {
	file, err := os.Open("../../docs/budget.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	sums := make(map[string]int)
	for in := bufio.NewScanner(file); in.Scan(); {
		fields := strings.Fields(in.Text())
		if len(fields) == 0 || fields[0] == "#" {
			continue
		}
		name, most := fields[0], 0
		if _, err := fmt.Sscan(fields[1], &most); err != nil {
			t.Fatalf("docs/budget.txt: %q: %v", in.Text(), err)
		}
		lines := sums[name]
		for _, pattern := range fields[2:] {
			lines += count(t, pattern)
		}
		group, _, nested := strings.Cut(name, ":")
		if nested {
			sums[group] += lines
		}
		t.Logf("%-18s %5d of %5d", name, lines, most)
		if lines > most {
			t.Errorf("%s: %d lines, more than the %d of docs/budget.txt: cut, or say there why not", name, lines, most)
		}
		if lines < most-most/10-5 {
			t.Errorf("%s: %d lines, far fewer than the %d of docs/budget.txt: lower it, so that they stay gone", name, lines, most)
		}
	}
}

func count(t *testing.T, pattern string) (lines int) {
	t.Helper()
	files, err := filepath.Glob("../../" + pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("docs/budget.txt: %s: no such file (%v)", pattern, err)
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				lines++
			}
		}
	}
	return lines
}

// TestLinesPerOperation holds the promise of two lines of plumbing: one that
// declares an operation and one that permits it.
func TestLinesPerOperation(t *testing.T) {
	const dir = "../../examples/vsftpd-like/"
	for _, side := range []struct{ ops, policy string }{{"ops.go", "policy.go"}, {"fileops.go", "fileops.go"}} {
		var declared, permitted int
		for _, f := range []string{side.ops, side.policy} {
			text, err := os.ReadFile(dir + f)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				line = strings.TrimSpace(line)
				if f == side.ops && (strings.Contains(line, "= privsep.Op[") || strings.Contains(line, "= filesOp[")) {
					declared++
				}
				if f == side.policy && (strings.HasPrefix(line, "privsep.Permit(") || strings.HasPrefix(line, "privsep.Advance(")) {
					permitted++
					if !strings.HasSuffix(line, ")") {
						t.Errorf("%s: a permit of more than one line: %s", f, line)
					}
				}
			}
			if side.ops == side.policy {
				break
			}
		}
		t.Logf("%s: %d operations, %d lines of plumbing", side.ops, declared, declared+permitted)
		if declared == 0 || permitted != declared {
			t.Errorf("%s and %s: %d operations declared on a line each, %d permitted on a line each", side.ops, side.policy, declared, permitted)
		}
	}
}
