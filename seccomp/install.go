package seccomp

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
)

// An InstallError says why a filter is not in force. It is an
// [errors.ErrUnsupported] if the kernel lacks what it takes (Linux 4.14 with
// CONFIG_SECCOMP_FILTER), or the filter is not for this host.
type InstallError struct {
	Thread int   // not 0: this thread has a filter of its own that the others lack
	Err    error // nil if Thread is not 0
}

func (e *InstallError) Error() string {
	if e.Thread != 0 {
		return fmt.Sprintf("seccomp: thread %d is under another filter already", e.Thread)
	}
	return fmt.Sprintf("seccomp: the filter can't be installed: %v", e.Err)
}

func (e *InstallError) Unwrap() error { return e.Err }

// Is reports an unsupported mechanism. The kernel says EINVAL to an operation
// that it does not know.
func (e *InstallError) Is(target error) bool {
	return target == errors.ErrUnsupported && e.Err == syscall.EINVAL
}

// Install puts every thread of the process under f, with no_new_privs, and
// those that come later. Nothing takes it off again. If it fails, which is an
// [*InstallError], a thread may have no_new_privs and nothing else has changed.
//
// Install does the last step of confinement: it takes away the calls that
// the other steps need, itself included.
func (f Filter) Install() error {
	if f.arch != Host() {
		return &InstallError{Err: fmt.Errorf("it is for %q: %w", string(f.arch), errors.ErrUnsupported)}
	}
	// A kernel that lacks an action takes it for the killing of one thread,
	// at which a Go program hangs for ever.
	for _, a := range []Action{Kill, Trap, NoSys, Allow} {
		if err := sys.FilterActionAvailable(uint32(a) & 0xffff_0000); err != nil {
			return &InstallError{Err: err}
		}
	}
	if f.report {
		if err := sys.ReportTraps(); err != nil {
			return &InstallError{Err: err}
		}
	}
	if thread, err := sys.InstallFilter(f.program); thread != 0 || err != nil {
		return &InstallError{thread, err}
	}
	return nil
}
