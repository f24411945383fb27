//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// mostExposed is what systemd-analyze may say of the unit, of 10. Its comments
// say what is left and why.
const mostExposed = 1.6

var units = []string{"vsftpd-like.service", "vsftpd-like.socket", "vsftpd-like-passive.socket"}

var exposure = regexp.MustCompile(`Overall exposure level for \S+ ([0-9.]+)`)

// TestUnit: the units are without a mistake, and take no less away than they did.
// That the server works under them is not seen here: that takes systemd.
func TestUnit(t *testing.T) {
	analyze := testenv.NeedProgram(t, "systemd-analyze")
	dir := t.TempDir()
	for _, name := range units {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// A program that is there on any machine.
		text = []byte(strings.ReplaceAll(string(text), "/usr/sbin/vsftpd-like", "/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	verify := []string{"verify", "--man=no"}
	for _, name := range units {
		verify = append(verify, filepath.Join(dir, name))
	}
	unit := filepath.Join(dir, "vsftpd-like.service")
	if out, err := exec.CommandContext(t.Context(), analyze, verify...).CombinedOutput(); err != nil ||
		strings.Contains(string(out), dir) {
		t.Errorf("verify: %v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	found := exposure.FindSubmatch(out)
	if found == nil {
		t.Fatalf("security: %v\n%s", err, out)
	}
	if level, err := strconv.ParseFloat(string(found[1]), 64); err != nil || level > mostExposed {
		t.Errorf("exposure %s, more than %v\n%s", found[1], mostExposed, out)
	}
}
