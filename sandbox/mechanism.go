package sandbox

import (
	"fmt"
	"strings"

	"errors"
)

// Mechanisms is a set of the layers that a host may be unable to give. The
// zero value is none. The filter, no_new_privs, the empty capability sets and
// the limits are not among them: without those nothing is served.
type Mechanisms uint16

const (
	// Identity is a user and group of the worker's own. An unprivileged
	// monitor's workers run as its own user.
	Identity Mechanisms = 1 << iota
	// Root is a root directory that hides the host's files.
	Root
	// Namespaces are empty ones for networks, System V IPC and host names.
	Namespaces
	// Landlock limits the worker to its paths (ABI 3).
	Landlock
	// LandlockScopes keeps it from TCP, from abstract sockets and from
	// signalling others (ABI 6).
	LandlockScopes
	// WriteExecute denies memory that was written and then executed.
	WriteExecute
	// Proof is the reading of root, namespaces and descriptors from /proc,
	// which the kernel shows only to CAP_SYS_PTRACE. Identity, capabilities
	// and filters are proved without it.
	Proof
)

var mechanismNames = [...]struct{ name, needs string }{
	{"identity", "root, or CAP_SETUID and CAP_SETGID"},
	{"root", "CAP_SYS_CHROOT, or user namespaces"},
	{"namespaces", "CAP_SYS_ADMIN, or user namespaces"},
	{"landlock", "Linux 6.2"},
	{"landlock-scopes", "Linux 6.12"},
	{"write-execute", "Linux 6.3"},
	{"proof", "CAP_SYS_PTRACE over the worker"},
}

// Has reports whether every mechanism of other is in m.
func (m Mechanisms) Has(other Mechanisms) bool { return m&other == other }

func (m Mechanisms) String() string {
	var words []string
	for i, n := range mechanismNames {
		if m&(1<<i) != 0 {
			words = append(words, n.name)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

// An UnsupportedError says that this host can't enforce a mechanism that the
// profile does not allow to be missing. It is an [errors.ErrUnsupported].
type UnsupportedError struct {
	Mechanism Mechanisms // one
	MinKernel string     // the kernel or the privilege that it takes
	Err       error      // the kernel's answer, or nil
}

// Unsupported is the error for the first mechanism of m.
func Unsupported(m Mechanisms, err error) *UnsupportedError {
	m &= -m
	for i, n := range mechanismNames {
		if m == 1<<i {
			return &UnsupportedError{m, n.needs, err}
		}
	}
	return &UnsupportedError{Mechanism: m, Err: err}
}

func (e *UnsupportedError) Error() string {
	s := fmt.Sprintf("sandbox: %v not supported here (requires %s)", e.Mechanism, e.MinKernel)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

func (e *UnsupportedError) Is(target error) bool { return target == errors.ErrUnsupported }
