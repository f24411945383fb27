package privsep

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-privsep/sallyport/sandbox"
)

// A Role is a kind of worker: what its process runs once it is confined.
type Role struct {
	// Name is unique among the roles of a program. It shows in ps(1).
	Name string
	// Main is the worker. The process exits when it returns: with 0, or for
	// an error with 1. ctx never ends: the process is killed when its session
	// ends or its monitor is gone.
	//
	// In a process that sessions [Share], Main runs once for each, at once.
	// Its session ends when it returns, and the process stays. ctx ends when
	// its session is over; Main then has 2 s to return, or the process is
	// killed. What it was handed is closed when it has returned; everything
	// else that it opened, called for or started it must end itself.
	Main func(ctx context.Context, w *Worker) error
	// Check, if there is one, says what is wrong with a sandbox that this role
	// is never started in. It runs in the monitor and once more in the launcher,
	// so it holds for a monitor that was taken over: a role that is not for files
	// refuses paths, one that is for users' refuses the groups that are as good
	// as root. UID and GID are what the worker gets. No sandbox has user 0,
	// group 0 or the root /. It looks at the sandbox alone, and keeps nothing.
	Check func(*Sandbox) error
}

func (r *Role) check(p *Sandbox) error {
	if r.Check == nil {
		return nil
	}
	if err := r.Check(p); err != nil {
		return fmt.Errorf("privsep: role %s is never started so: %w", r.Name, err)
	}
	return nil
}

// A Sandbox says what a worker keeps; the zero Sandbox keeps nothing.
type Sandbox = sandbox.Profile

// A Launch is a worker to be started.
type Launch struct {
	// Role is what it runs, one of those given to [Main].
	Role *Role
	// Sandbox is closed, and proved, before the worker gets what follows.
	Sandbox Sandbox
	// Files are handed over, at most 16, or 15 with Share, in this order. The launch takes
	// them over and closes the monitor's.
	Files []*os.File
	// Message is handed over too: nil, or a pointer to a struct of bounded
	// fields, as in an [Op], of at most 4096 bytes.
	Message any
	// Timeout is how long the phase that this launch begins may last.
	// Zero: 2 minutes. Negative: without end. It means nothing [Beside].
	Timeout time.Duration
	// Spares is how many workers of this role and sandbox are kept ready
	// for the next launches. Zero: none, and each launch costs a start.
	Spares int
	// Share says who else may be served by the same process. Zero: nobody.
	Share Share
}

// A Share is how much of the isolation between sessions is given up for memory
// and for time to start. Launches of the same role, sandbox, key and number
// are served by one process, at most so many at once, and by another one
// beyond.
//
// Each session has its own channel, and so its own phase, state and budgets in
// the monitor. All else in the process is common: who takes it over has every
// session of it, also those that come later, in the phases that they are in or
// reach. A violation, a crash, a forbidden system call and a session that does
// not end when it shall are the end of the process and, as a [SharedError], of
// the other sessions in it.
//
// The sandbox holds for the process, but for OpenFiles and Memory, which are
// for each session. A process without a session waits for the next for a minute; of
// those at most 8 do.
type Share struct {
	// Key is whom the sessions belong to: an address, a user's name. "": to
	// whoever has the same sandbox.
	Key string
	// Sessions is how many one process serves at once. Less than 2: one,
	// with a process of its own, which ends with it.
	Sessions int
}

// pool names what has the same role and sandbox. A sandbox prints nobody's number
// for none, which are two things where workers have ids of their own.
func (l *Launch) pool() string {
	return fmt.Sprintf("%s %d %d %v", l.Role.Name, l.Sandbox.UID, l.Sandbox.GID, &l.Sandbox)
}

func (l *Launch) closeFiles() {
	for _, f := range l.Files {
		f.Close()
	}
}

// timeout is 0 for none.
func (l *Launch) timeout() time.Duration {
	switch {
	case l.Timeout == 0:
		return 2 * time.Minute
	case l.Timeout < 0:
		return 0
	}
	return l.Timeout
}
