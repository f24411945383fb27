//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/int80"
)

func interrupt(number uint32) (result string) {
	debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(false)
	defer func() {
		if recover() != nil {
			result = noInterrupt
		}
	}()
	return fmt.Sprint(int80.Call(number))
}

// machineCalls are what only amd64 has: the calls from before the *at calls,
// and two other ways into the kernel, in which numbers mean other calls.
func machineCalls() []callCase {
	var all []callCase
	for _, number := range []uint32{20, 5, 11, 190} { // getpid, open, execve, vfork
		all = append(all, deniedBy(fmt.Sprintf("int 0x80 call %d", number), "the 32-bit way: the filter must look at the architecture", "", func(*attacker) string {
			os.Stderr.WriteString(reachedMark)
			return interrupt(number)
		}))
		if number != 20 {
			all[len(all)-1].bare = unattended
		}
	}
	for _, number := range []uintptr{unix.SYS_GETPID, unix.SYS_OPENAT, unix.SYS_EXECVE, 512, 520} {
		all = append(all, denied(fmt.Sprintf("x32 call %d", number), "the filter must see the bit", "ENOSYS", 0x4000_0000|number))
	}
	return append(all,
		denied("open", "openat by an old name", "ok", unix.SYS_OPEN, cstring("/etc/passwd"), unix.O_RDONLY),
		denied("creat", "openat by an old name", "ok", unix.SYS_CREAT, cstring("new"), 0o600),
		denied("mkdir", "mkdirat by an old name", "ok", unix.SYS_MKDIR, cstring("new"), 0o700),
		denied("link by its old name", "linkat", "ok", unix.SYS_LINK, cstring("readme.txt"), cstring("new")),
		denied("symlink by its old name", "symlinkat", "ok", unix.SYS_SYMLINK, cstring("/"), cstring("new")),
		denied("mknod by its old name", "mknodat", "ok", unix.SYS_MKNOD, cstring("new"), unix.S_IFIFO|0o600, 0),
		denied("rename by its old name", "renameat", "ok", unix.SYS_RENAME, cstring("readme.txt"), cstring("new")),
		denied("unlink by its old name", "unlinkat", "ok", unix.SYS_UNLINK, cstring("readme.txt")),
		denied("chmod by its old name", "fchmodat", "ok", unix.SYS_CHMOD, cstring("readme.txt"), 0o4755),
		denied("fork by its old name", "clone", unattended, unix.SYS_FORK),
		denied("vfork by its old name", "clone", unattended, unix.SYS_VFORK),
		denied("modify_ldt", "segments that few have tried", "ok", unix.SYS_MODIFY_LDT, 0, room(), 0),
		denied("iopl", "the ports", "", unix.SYS_IOPL, 4),
		denied("ioperm", "the ports", "", unix.SYS_IOPERM, 1<<20, 1<<20, 1),
		denied("arch_prctl", "where the runtime keeps its goroutine", "EINVAL", unix.SYS_ARCH_PRCTL, 0xffff, 0),
		denied("uselib", "long gone, still a number", "", unix.SYS_USELIB, cstring("/nosuch")),
		denied("lookup_dcookie", "long gone, still a number", "", unix.SYS_LOOKUP_DCOOKIE, 0, 0, 0),
	)
}
