package seccomp

import "strings"

// A rule says what happens to the named calls if all conditions hold. For a
// call the first rule that applies decides. A known call without one kills.
type rule struct {
	promise Promises // applies if one of these is promised, or always if zero
	calls   string
	when    []cond
	do      Action // zero: Allow
}

// A cond holds if the argument, after the mask, is one of the values. All 64
// bits of an argument are compared: filters that load just the low word let
// an attacker choose the high one. The values of a cond share their high words.
type cond struct {
	arg    int
	mask   uint64
	values []uint64
}

// is is the condition that an argument is one of the values.
func is(arg int, values ...uint64) cond { return cond{arg, ^uint64(0), values} }

// within is the condition that no bit is set that allowed lacks.
func within(arg int, allowed uint64) cond { return cond{arg, ^allowed, []uint64{0}} }

func all(c ...cond) []cond { return c }

// The kernel's constants, which are the same on both architectures where one
// line says so. They are spelled out here because package syscall has those of
// the host that compiles, and the filter for one architecture is the same
// wherever it is compiled.
const (
	protReadWrite = 0x1 | 0x2

	// What pthread_create and the Go runtime ask for, and what differs
	// between them: CLONE_SETTLS, CLONE_PARENT_SETTID, CLONE_CHILD_CLEARTID
	// and musl's CLONE_DETACHED.
	cloneThread = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000 // VM FS FILES SIGHAND THREAD SYSVSEM
	cloneFree   = 0x80000 | 0x100000 | 0x200000 | 0x400000

	prSetVMA, prSetVMAAnonName = 0x53564d41, 0

	fDupFDCloexec, fGetFD, fSetFD, fGetFL, fSetFL = 1030, 1, 2, 3, 4
	fSetPipeSize, fGetPipeSize, fGetSeals         = 1031, 1032, 1034

	nonblockCloexec = 0x800 | 0x80000 // of sockets, pipes and files alike

	// MSG_FASTOPEN (0x20000000) must never be among these: with it sendmsg
	// is connect. A listening socket that was handed in becomes a new one by
	// shutdown(2) and then connects to any address, while connect(2) is
	// denied. MSG_OOB (1) gave a browser's renderer the kernel through
	// AF_UNIX sockets (CVE-2025-38236).
	sendFlags = 0x40 | 0x80 | 0x4000 | 0x8000           // DONTWAIT EOR NOSIGNAL MORE
	recvFlags = 0x2 | 0x20 | 0x40 | 0x100 | 0x4000_0000 // PEEK TRUNC DONTWAIT WAITALL CMSG_CLOEXEC

	solSocket, solTCP = 1, 6

	modeBits = 0o777 // no set-ID bit, which outlives the sandbox

	oCloexec   = 0x80000
	oReadFlags = 0x100 | 0x800 | oCloexec // NOCTTY NONBLOCK; O_RDONLY is 0
	oWriteFlag = 0x3 | 0x40 | 0x80 | 0x200 | 0x400 | 0x1000 | 0x100000
	// accmode CREAT EXCL TRUNC APPEND DSYNC SYNC; O_TMPFILE, O_PATH, O_ASYNC
	// and O_DIRECT are in neither.
	oAsync = 0x2000
)

// openWays are O_DIRECTORY, O_NOFOLLOW and O_LARGEFILE, which the
// architectures number differently (asm/fcntl.h).
func (a Arch) openWays() uint64 {
	if a == ARM64 {
		return 0x4000 | 0x8000 | 0x20000
	}
	return 0x10000 | 0x20000 | 0x8000
}

// rules returns the whole policy, for a process whose id is self. The order
// within a call matters: what is allowed comes before what gets an error. Hot
// calls have no conditions: the kernel then answers for them from a bitmap
// (since 5.11) and does not run the filter.
func (a Arch) rules(self uint64) []rule {
	readFlags := oReadFlags | a.openWays()
	return []rule{
		// The runtime's own needs, those of glibc's threads and malloc under
		// cgo, and a crash that can print its stack and die.
		{calls: "read write close pread64 fstat"},
		{calls: "epoll_create1 epoll_ctl epoll_pwait eventfd2 ppoll"},
		{calls: "futex nanosleep clock_nanosleep clock_gettime sched_yield sched_getaffinity getrandom uname restart_syscall"},
		{calls: "rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack set_robust_list rseq exit exit_group"},
		{calls: "getpid getppid gettid getuid geteuid getgid getegid"},
		{calls: "munmap mremap madvise brk"},
		{calls: "mmap mprotect", when: all(within(2, protReadWrite))},
		{calls: "clone", when: all(cond{0, ^uint64(cloneFree), []uint64{cloneThread}})},
		{calls: "tgkill", when: all(is(0, self))},
		{calls: "prctl", when: all(is(0, prSetVMA), is(1, prSetVMAAnonName))}, // the runtime names its heap
		{calls: "fcntl", when: all(is(1, fDupFDCloexec, fGetFD, fSetFD, fGetFL))},
		{calls: "fcntl", when: all(is(1, fSetFL), cond{2, oAsync, []uint64{0}})},
		{calls: "sendmsg", when: all(within(2, sendFlags))},
		{calls: "recvmsg", when: all(within(2, recvFlags))},
		// What package ipc asks of each descriptor that a message declares:
		// SO_TYPE, SO_ACCEPTCONN, SO_PROTOCOL, SO_DOMAIN, F_GET_SEALS; and of
		// its own channel: SO_RCVTIMEO, SO_MEMINFO.
		{calls: "fstatfs getpeername"},
		{calls: "getsockopt", when: all(is(1, solSocket), is(2, 3, 20, 30, 38, 39, 55))},
		{calls: "fcntl", when: all(is(1, fGetSeals))},

		{promise: Streams, calls: "writev getsockname shutdown"},
		{promise: Streams, calls: "sendto", when: all(within(3, sendFlags), is(4, 0))},
		{promise: Streams, calls: "recvfrom", when: all(within(3, recvFlags), is(4, 0))},
		// SO_ERROR; TCP_INFO.
		{promise: Streams, calls: "getsockopt", when: all(is(1, solSocket), is(2, 4))},
		{promise: Streams, calls: "getsockopt", when: all(is(1, solTCP), is(2, 11))},
		// SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE; TCP_NODELAY, TCP_CORK,
		// TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT.
		// Not SO_LINGER: whoever closes last would wait for it, and that is the
		// monitor, which keeps a copy of what it handed over.
		{promise: Streams, calls: "setsockopt", when: all(is(1, solSocket), is(2, 7, 8, 9))},
		{promise: Streams, calls: "setsockopt", when: all(is(1, solTCP), is(2, 1, 3, 4, 5, 6, 18))},

		{promise: Accept, calls: "accept4", when: all(within(3, nonblockCloexec))},

		{promise: Transfer, calls: "sendfile splice copy_file_range"},
		{promise: Transfer, calls: "pipe2", when: all(within(1, nonblockCloexec))}, // O_NOTIFICATION_PIPE: CVE-2022-0995
		{promise: Transfer, calls: "fcntl", when: all(is(1, fSetPipeSize, fGetPipeSize))},

		{promise: Files, calls: "pwrite64 ftruncate fallocate fsync fdatasync fadvise64 flock"},
		{promise: Files | ReadPaths, calls: "lseek"},

		{promise: ReadPaths, calls: "openat", when: all(within(2, readFlags))},
		{promise: ReadPaths, calls: "newfstatat statx getdents64 readlinkat faccessat faccessat2 getcwd"},

		{promise: WritePaths, calls: "openat", when: all(within(2, readFlags|oWriteFlag), within(3, modeBits))},
		{promise: WritePaths, calls: "mkdirat fchmodat fchmodat2", when: all(within(2, modeBits))},
		{promise: WritePaths, calls: "fchmod", when: all(within(1, modeBits))},
		{promise: WritePaths, calls: "unlinkat renameat utimensat truncate"},
		{promise: WritePaths, calls: "renameat2", when: all(within(4, 1))}, // RENAME_NOREPLACE

		// Known calls that the standard library or glibc tries and can live
		// without. Each would kill a worker that did nothing wrong.

		// Flags behind a pointer: pthread_create then uses clone.
		{calls: "clone3", do: NoSys},
		// The same: callers then use openat.
		{calls: "openat2", do: NoSys},
		// io.Copy then uses read and write.
		{calls: "sendfile splice copy_file_range pipe2", do: NoSys},
		// Reading, and just so: package time opens the zone file at the first
		// local time that is formatted, without O_CLOEXEC; under cgo glibc's
		// malloc counts processors in /sys/devices/system/cpu/online when it
		// makes an arena, at any time.
		{calls: "openat", when: all(is(2, 0, oCloexec)), do: Refused},
	}
}

// reportRules are what a filter that reports needs before all others: nothing
// changes or moves the handler of SIGSYS, nor that of SIGSEGV, which comes in its
// place where it can't be entered, and the handler may send to descriptor 2.
func reportRules() []rule {
	const sigsys, sigsegv = 31, 11
	const mremapFixed, mremapDontUnmap = 2, 4
	// What forbids looks at no more of an argument than the kernel does, which
	// takes an int here: with one bit more it would forbid nothing.
	const anInt = 0xffff_ffff
	return []rule{
		{calls: "rt_sigaction", when: all(cond{0, anInt, []uint64{sigsys, sigsegv}}), do: Kill},
		// Other code of the program would be put where the handler is; the
		// second flag makes the place that is asked for the one that is had.
		{calls: "mremap", when: all(cond{3, mremapFixed | mremapDontUnmap, []uint64{mremapFixed, mremapDontUnmap, mremapFixed | mremapDontUnmap}}), do: Kill},
		{calls: "sendto", when: all(is(0, 2), within(3, sendFlags), is(4, 0))},
	}
}

// names returns the calls of a rule that the architecture may have.
func (r rule) names() []string { return strings.Fields(r.calls) }
