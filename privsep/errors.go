package privsep

import (
	"fmt"
	"syscall"
)

// An OpError is why a call failed, in the worker that made it. Err is a
// [syscall.Errno] when the other side refused, so errors.Is(err,
// fs.ErrNotExist) and the like work; or a context's error; or
// [ipc.ErrClosed]; or what Check or a bound found wrong before sending.
type OpError struct {
	Op  string
	Err error
}

func (e *OpError) Error() string { return "privsep: " + e.Op + ": " + e.Err.Error() }
func (e *OpError) Unwrap() error { return e.Err }

// A ViolationError is a message that an uncompromised worker cannot send. The
// worker that sent it is dead when a caller sees this error.
type ViolationError struct {
	Phase  string
	Op     string // "" when the message names no known operation
	Reason string
}

func (e *ViolationError) Error() string {
	op := e.Op
	if op == "" {
		op = "?"
	}
	return fmt.Sprintf("privsep: violation in phase %s, op %s: %s", e.Phase, op, e.Reason)
}

// Violation is what a handler returns for a request whose meaning no
// uncompromised worker can intend. The worker is killed without an answer.
func Violation(reason string) error { return &ViolationError{Reason: reason} }

// A PanicError is a handler's panic. It ends the session in which it happened,
// and no other.
type PanicError struct {
	Phase, Op string
	Value     any
	Stack     []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("privsep: panic in phase %s, op %s: %v\n%s", e.Phase, e.Op, e.Value, e.Stack)
}

// An ExitClass says how a worker ended. The zero class is none.
type ExitClass int

const (
	Failed   ExitClass = 1 + iota // its role returned an error, or could not enter its sandbox
	Crashed                       // a panic or a signal
	Filtered                      // it made a system call that its filter forbids
	TimedOut                      // its phase lasted too long
)

func (c ExitClass) String() string {
	switch c {
	case Failed:
		return "failed"
	case Crashed:
		return "crashed"
	case Filtered:
		return "filtered"
	case TimedOut:
		return "timed out"
	}
	return fmt.Sprintf("invalid exit class %d", int(c))
}

// An ExitError is the end of a worker that did not end well.
type ExitError struct {
	Role   string
	PID    int
	Class  ExitClass
	Status syscall.WaitStatus
	// Syscall is the name of the call at which its filter killed a worker, or
	// "" if that is not known. The worker's own handler reports it before it
	// dies, so it is true of a mistake, and may be a lie of one that was taken
	// over; that the filter killed it is the kernel's word.
	Syscall string
	// Output is what the worker wrote to standard error: all of it, or the first
	// 2 KiB and the last 6 with the number of bytes between, quoted. It is the
	// worker's word and may be a lie. A worker that writes faster than it is read,
	// 64 KiB at 64 times and then once a second, loses what does not fit.
	Output string
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("privsep: worker %s (pid %d) %v", e.Role, e.PID, e.Class)
	if e.Syscall != "" {
		s += ": it called " + e.Syscall
	} else if e.Class != TimedOut {
		if e.Status.Signaled() {
			s += fmt.Sprintf(" by signal %d (%v)", int(e.Status.Signal()), e.Status.Signal())
		} else {
			s += fmt.Sprintf(" with status %d", e.Status.ExitStatus())
		}
	}
	if e.Output != "" {
		s += ": " + e.Output
	}
	return s
}

// A SharedError is the end of a session whose worker served others too and
// ended for a reason that is not known to be this session's own. It is nobody's
// fault but perhaps Cause's, a [*ViolationError] of another session or an
// [*ExitError]; [errors.As] does not look into it, so that nobody pays for
// another's violation.
type SharedError struct {
	Role  string
	PID   int
	Cause error
}

func (e *SharedError) Error() string {
	return fmt.Sprintf("privsep: ended with worker %s (pid %d), which it shared: %v", e.Role, e.PID, e.Cause)
}
