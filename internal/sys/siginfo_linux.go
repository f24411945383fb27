package sys

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childStatus reads a SIGCHLD siginfo as wait(2)'s status word. x/sys leaves
// the union behind si_code opaque; its SIGCHLD member is pid, uid, status
// (include/uapi/asm-generic/siginfo.h), 8-aligned on 64-bit machines.
func childStatus(info *unix.Siginfo) syscall.WaitStatus {
	type child struct {
		signo, errno, code, _ int32
		pid                   int32
		uid                   uint32
		status                int32
	}
	// Sound: both are 64-bit kernel layouts and Siginfo is the longer one.
	c := (*child)(unsafe.Pointer(info))
	const exited, dumped = 1, 3 // CLD_EXITED, CLD_DUMPED
	switch c.code {
	case exited:
		return syscall.WaitStatus(uint32(c.status) & 0xff << 8)
	case dumped:
		return syscall.WaitStatus(uint32(c.status)&0x7f | 0x80)
	}
	return syscall.WaitStatus(uint32(c.status) & 0x7f)
}
