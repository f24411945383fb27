package privsep_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/privsep"
)

// guardedRole is never started with a path.
var guardedRole = privsep.Role{
	Name: "guarded",
	Main: func(context.Context, *privsep.Worker) error { return nil },
	Check: func(p *privsep.Sandbox) error {
		if p.Root != "" {
			return errors.New("it has no root")
		}
		return nil
	},
}

// The launcher is of the same program and asks its own copy of the role, so what a
// monitor that was taken over thinks of it does not matter.
func TestLauncherChecks(t *testing.T) {
	noLeaks(t)
	p, _ := newHeld()
	m := newMonitor(t, p)
	takenOver := guardedRole
	takenOver.Check = nil
	rooted := privsep.Sandbox{Root: t.TempDir(), Without: without()}
	empty := privsep.Sandbox{Without: without()}
	for _, c := range []struct {
		name    string
		role    *privsep.Role
		sandbox privsep.Sandbox
		want    error
		text    string
	}{
		{"honest", &guardedRole, rooted, nil, "role guarded is never started so: it has no root"},
		{"taken over", &takenOver, rooted, syscall.EPERM, "start guarded"},
		{"allowed", &takenOver, empty, nil, ""},
		{"allowed and honest", &guardedRole, empty, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := m.Posture(t.Context(), privsep.Launch{Role: c.role, Sandbox: c.sandbox})
			switch {
			case c.text == "" && err == nil:
			case c.text == "" || err == nil || !strings.Contains(err.Error(), c.text) || c.want != nil && !errors.Is(err, c.want):
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}
