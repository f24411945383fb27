// Package testenv is the only place where a test of this module may skip.
//
// A skip hides a failure unless somebody counts it. Under CI (the environment
// variable CI is "true") a need that this machine could have met is therefore
// fatal: peers must be installed. Only root can be truly missing, in the
// unprivileged run of the suite; a test about ordinary users becomes one by
// itself, so that the run as root skips nothing.
package testenv

import (
	"os"
	"os/exec"
	"testing"
)

// CI reports whether skips are failures.
func CI() bool { return os.Getenv("CI") == "true" }

// NeedRoot skips a test that only root can run.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: the suite's other run has it")
	}
}

// NeedProgram returns the path of a peer's program, for example "lftp".
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "needs the program "+name)
	}
	return path
}

// missing ends the test: a failure where a skip would hide that CI is not
// set up as it should be.
func missing(t testing.TB, what string) {
	t.Helper()
	if CI() {
		t.Fatal(what + ": CI must have it")
	}
	t.Skip(what)
}
