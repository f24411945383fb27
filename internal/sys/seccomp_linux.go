package sys

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A BPF is one instruction of a classic BPF program, the kernel's struct
// sock_filter.
type BPF struct {
	Code            uint16
	IfTrue, IfFalse uint8
	K               uint32
}

// FilterActionAvailable reports whether the kernel knows a filter's return
// value (Linux 4.14). One that it doesn't know would kill a single thread.
func FilterActionAvailable(action uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errnoError(errno)
}

// InstallFilter puts all threads of the process under program, and sets
// no_new_privs for all of them; there is no way back. thread is not 0 if that
// thread made it impossible, by a filter of its own.
func InstallFilter(program []BPF) (thread int, err error) {
	// Both calls on one thread: no_new_privs is the thread's own, and TSYNC
	// gives it to the others together with the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0); err != nil {
		return 0, err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(program)))}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	return int(r), errnoError(errno)
}
