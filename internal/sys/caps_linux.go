package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Capabilities and securebits belong to a thread, not to a process
// (capabilities(7)). The functions of this file act on the calling thread, so
// their caller locks it; those whose name ends in All act on every thread of
// the process and stop the world to do so. Sets are the kernel's: bit n is
// capability n.
//
// An All function that the kernel refuses on the calling thread changes
// nothing. If another thread gets a different answer the process dies: the
// runtime's fatal error without cgo, libpsx's SIGKILL with it. With cgo,
// libpsx also kills a process that cannot list /proc/PID/task.

// SecurebitsLocked makes uid 0 an ordinary user as far as capabilities go, for
// good: NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set, KEEP_CAPS clear,
// each with its lock (linux/securebits.h, which x/sys lacks).
const (
	SecurebitsLocked   = 0b1110_1111
	SecurebitsKeepCaps = 0b0001_0000
)

type capSets [2]unix.CapUserData // low and high 32 bits

func newCapSets(effective, permitted, inheritable uint64) (s capSets) {
	for i := range s {
		s[i] = unix.CapUserData{
			Effective:   uint32(effective >> (32 * i)),
			Permitted:   uint32(permitted >> (32 * i)),
			Inheritable: uint32(inheritable >> (32 * i)),
		}
	}
	return s
}

// Gettid returns the calling thread's number.
func Gettid() int { return unix.Gettid() }

// Capget returns the calling thread's sets.
func Capget() (effective, permitted, inheritable uint64, err error) {
	var s capSets
	err = unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &s[0])
	for i, half := range s {
		effective |= uint64(half.Effective) << (32 * i)
		permitted |= uint64(half.Permitted) << (32 * i)
		inheritable |= uint64(half.Inheritable) << (32 * i)
	}
	return effective, permitted, inheritable, err
}

// Capset sets the calling thread's sets. The kernel takes from the ambient set
// whatever is not in both permitted and inheritable.
func Capset(effective, permitted, inheritable uint64) error {
	s := newCapSets(effective, permitted, inheritable)
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &s[0])
}

// CapsetAll is Capset on every thread.
func CapsetAll(effective, permitted, inheritable uint64) error {
	s := newCapSets(effective, permitted, inheritable)
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	// Conversions in the argument list: psx declares uintptrescapes, which
	// keeps both structs alive and in place until every thread has read them.
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&s[0])), 0)
	return errnoError(errno)
}

// BoundingHas reports whether the calling thread's bounding set has capability
// n. The error is EINVAL if n is beyond the running kernel's last.
func BoundingHas(n int) (bool, error) {
	r, err := prctl(unix.PR_CAPBSET_READ, uintptr(n), 0)
	return r == 1, err
}

// BoundingDrop takes capability n out of the calling thread's bounding set,
// for ever. It needs CAP_SETPCAP.
func BoundingDrop(n int) error {
	_, err := prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0)
	return err
}

// BoundingDropAll is BoundingDrop on every thread.
func BoundingDropAll(n int) error {
	_, err := prctlAll(unix.PR_CAPBSET_DROP, uintptr(n))
	return err
}

// Securebits returns the calling thread's securebits.
func Securebits() (uint, error) {
	r, err := prctl(unix.PR_GET_SECUREBITS, 0, 0)
	return uint(r), err
}

// SecurebitsAll returns the securebits that every thread has; threads that
// differ end the process.
func SecurebitsAll() (uint, error) {
	r, err := prctlAll(unix.PR_GET_SECUREBITS, 0)
	return uint(r), err
}

// SetSecurebits sets the calling thread's securebits. It needs CAP_SETPCAP.
func SetSecurebits(bits uint) error {
	_, err := prctl(unix.PR_SET_SECUREBITS, uintptr(bits), 0)
	return err
}

// SetSecurebitsAll is SetSecurebits on every thread.
func SetSecurebitsAll(bits uint) error {
	_, err := prctlAll(unix.PR_SET_SECUREBITS, uintptr(bits))
	return err
}

// AmbientHas reports whether the calling thread's ambient set has capability n.
func AmbientHas(n int) (bool, error) {
	r, err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_IS_SET, uintptr(n))
	return r == 1, err
}

// AmbientRaise adds capability n to the calling thread's ambient set.
func AmbientRaise(n int) error {
	_, err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n))
	return err
}

// AmbientLower takes capability n out of the calling thread's ambient set.
func AmbientLower(n int) error {
	_, err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_LOWER, uintptr(n))
	return err
}

// AmbientClear empties the calling thread's ambient set.
func AmbientClear() error {
	_, err := prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0)
	return err
}

// AmbientClearAll empties every thread's ambient set.
func AmbientClearAll() error {
	_, err := prctlAll(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL)
	return err
}

// prctl never blocks in the kernel, so it need not tell the scheduler.
func prctl(option, arg2, arg3 uintptr) (uintptr, error) {
	r, _, errno := unix.RawSyscall6(unix.SYS_PRCTL, option, arg2, arg3, 0, 0, 0)
	return r, errnoError(errno)
}

func prctlAll(option, arg2 uintptr) (uintptr, error) {
	r, _, errno := psx.Syscall6(unix.SYS_PRCTL, option, arg2, 0, 0, 0, 0)
	return r, errnoError(errno)
}

// errnoError keeps a zero Errno from becoming a non-nil error.
func errnoError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
