//go:build linux && (amd64 || arm64)

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// TrapMark precedes the number of a call, four bytes in little-endian order, in
// what [ReportTraps] sends; TrapSize is the size of both.
const (
	TrapMark = "\x00SIGSYS\x00"
	TrapSize = len(TrapMark) + 4
)

// ReportTraps makes a system call that a filter traps (SECCOMP_RET_TRAP) send
// its number to descriptor 2, a socket, without waiting, and then make call
// 0x40000000, at which the filter must kill. It takes SIGSYS from the Go
// runtime. The handler is machine code that reads no variable and never
// returns: to make it do anything else takes rt_sigaction(2), which the filter
// must forbid for SIGSYS from here on.
func ReportTraps() error {
	// What the kernel calls struct sigaction, on both architectures.
	action := struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}{trapHandler(), 0x4 | 0x0800_0000 | 0x0400_0000, trapHandler(), ^uint64(0)} // SA_SIGINFO, SA_ONSTACK, SA_RESTORER
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGSYS), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	return errnoError(errno)
}

// trapHandler returns where the handler is.
func trapHandler() uintptr
