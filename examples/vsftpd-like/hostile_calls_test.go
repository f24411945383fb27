//go:build linux

package main

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A callCase is one system call, or a few that end in a decisive one, tried in
// a session worker, in a files worker that may only read and in one that may
// write, and by a control in a process that nothing confines.
type callCase struct {
	name, why               string
	session, reader, writer string // killed, or the error's name; writer "" is as reader
	bare                    string // what the control gets; "" is anything else
	do                      attack
}

// denied is a case that the filter ends wherever it is tried. bare is what
// happens without; the call is made so that it does no harm.
func denied(name, why, bare string, nr uintptr, args ...uintptr) callCase {
	return callCase{name, why, killed, killed, killed, bare, func(a *attacker) string { return a.call(nr, args...) }}
}

// deniedBy is denied for an attack with arguments of its own.
func deniedBy(name, why, bare string, do attack) callCase {
	return callCase{name, why, killed, killed, killed, bare, do}
}

// rootOnly begins the name of a case that is none where the monitor is an
// ordinary user, whose workers are that user, too.
const rootOnly = "as root: "

const here = ^uintptr(99) // AT_FDCWD as a register has it

// cstring is a path for a raw call, kept alive for the process's whole life.
func cstring(s string) uintptr {
	p, err := syscall.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

// room is zeroed memory for a raw call's structures.
func room() uintptr {
	p := new([4096]byte)
	kept = append(kept, &p[0])
	return uintptr(unsafe.Pointer(p))
}

var kept []*byte

func callCases() []callCase {
	none := ^uintptr(0) // the descriptor that nobody has
	return append(machineCalls(), []callCase{
		// Processes.
		denied("execve", "no worker starts a program", "ENOENT", unix.SYS_EXECVE, cstring("/nosuch"), room(), room()),
		denied("execveat", "nor one that it holds open", "EBADF", unix.SYS_EXECVEAT, none, cstring(""), room(), room(), unix.AT_EMPTY_PATH),
		deniedBy("fork", "a child would outlive its session (CVE-2006-0883)", "ok", func(a *attacker) string { return a.fork(uintptr(unix.SIGCHLD)) }),
		deniedBy("clone with CLONE_VFORK", "the same under another flag", "ok", func(a *attacker) string { return a.fork(uintptr(unix.CLONE_VFORK | unix.SIGCHLD)) }),
		deniedBy("clone of memory alone", "a process that shares memory is still a process", "ok", func(a *attacker) string { return a.fork(uintptr(unix.CLONE_VFORK | unix.CLONE_FILES | unix.SIGCHLD)) }),
		deniedBy("clone into a user namespace", "where it would have every capability", "ok", func(a *attacker) string { return a.fork(uintptr(unix.CLONE_NEWUSER | unix.SIGCHLD)) }),
		{"clone3", "its flags are behind a pointer: programs fall back to clone", "ENOSYS", "ENOSYS", "", "EINVAL",
			func(a *attacker) string { return a.call(unix.SYS_CLONE3, room(), 0) }},
		{"a call newer than the tables", "programs that try it fall back", "ENOSYS", "ENOSYS", "", "ENOSYS",
			func(a *attacker) string { return a.call(9999) }},
		deniedBy("ptrace a sibling", "it is of the same user", "ok", func(a *attacker) string { return a.call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(a.sibling), 0, 0) }),
		deniedBy("ptrace the monitor", "its parent", "ok", func(a *attacker) string { return a.call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(a.monitor), 0, 0) }),
		denied("ptrace by its parent", "a debugger sees what the filter hides", unattended, unix.SYS_PTRACE, unix.PTRACE_TRACEME),
		deniedBy("read a sibling's memory", "another client's password is in it", "", func(a *attacker) string { return a.memory(unix.SYS_PROCESS_VM_READV, a.sibling) }),
		deniedBy("read the monitor's memory", "every client's is in that", "", func(a *attacker) string { return a.memory(unix.SYS_PROCESS_VM_READV, a.monitor) }),
		deniedBy("write a sibling's memory", "it would be the sibling", "", func(a *attacker) string { return a.memory(unix.SYS_PROCESS_VM_WRITEV, a.sibling) }),
		deniedBy("write the monitor's memory", "it would be root", "", func(a *attacker) string { return a.memory(unix.SYS_PROCESS_VM_WRITEV, a.monitor) }),
		deniedBy("kill a sibling", "ends another client's session", "ok", func(a *attacker) string { return a.call(unix.SYS_KILL, uintptr(a.sibling), uintptr(unix.SIGCONT)) }),
		deniedBy("kill the monitor", "ends all", "ok", func(a *attacker) string { return a.call(unix.SYS_KILL, uintptr(a.monitor), uintptr(unix.SIGCONT)) }),
		denied("kill everybody", "of the same user", "", unix.SYS_KILL, ^uintptr(0), 0),
		deniedBy("tgkill a sibling", "the runtime's own use is for this process alone", "ok", func(a *attacker) string {
			return a.call(unix.SYS_TGKILL, uintptr(a.sibling), uintptr(a.sibling), uintptr(unix.SIGCONT))
		}),
		deniedBy("tgkill the monitor", "its parent", "ok", func(a *attacker) string {
			return a.call(unix.SYS_TGKILL, uintptr(a.monitor), uintptr(a.monitor), uintptr(unix.SIGCONT))
		}),
		deniedBy("tgkill with a high word", "a filter that compares 32 bits of 64 takes it for this process", "ok", func(a *attacker) string {
			return a.call(unix.SYS_TGKILL, uintptr(os.Getpid())|1<<32, uintptr(unix.Gettid()), 0)
		}),
		denied("tkill", "has no thread group to compare", "ESRCH", unix.SYS_TKILL, 1<<22, 0),
		deniedBy("pidfd_open", "a handle on another process", "ok", func(a *attacker) string { return a.call(unix.SYS_PIDFD_OPEN, uintptr(a.sibling), 0) }),
		denied("pidfd_getfd", "takes another's descriptors", "EBADF", unix.SYS_PIDFD_GETFD, none, 0, 0),
		denied("pidfd_send_signal", "kills by handle", "EBADF", unix.SYS_PIDFD_SEND_SIGNAL, none, 0, 0, 0),
		denied("kcmp", "tells where another's kernel objects are", "", unix.SYS_KCMP, 1, 1, 0, 0, 0),
		denied("process_madvise", "acts on another's memory", "EBADF", unix.SYS_PROCESS_MADVISE, none, room(), 1, 0, 0),
		denied("rt_sigqueueinfo", "signals with a forged sender", "", unix.SYS_RT_SIGQUEUEINFO, 1<<22, 0, room()),

		// Identity and confinement.
		denied("setuid", "there is no way back", "ok", unix.SYS_SETUID, 0),
		denied("setresuid", "there is no way back", "ok", unix.SYS_SETRESUID, 0, 0, 0),
		denied("setgid", "there is no way back", "ok", unix.SYS_SETGID, 0),
		denied("setgroups", "groups open files", "ok", unix.SYS_SETGROUPS, 0, 0),
		denied("setfsuid", "it has no error: nobody would notice", "ok", unix.SYS_SETFSUID, 0),
		deniedBy("capset", "nothing to raise, and no way to", "ok", func(a *attacker) string {
			h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var d [2]unix.CapUserData
			return a.call(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&d)))
		}),
		denied("prctl dumpable", "siblings could then trace it", "ok", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1),
		denied("prctl death signal", "it must die with its monitor", "ok", unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, 0),
		denied("prctl ptracer", "lets others in where Yama is on", "", unix.SYS_PRCTL, unix.PR_SET_PTRACER, ^uintptr(0)),
		denied("prctl seccomp", "a filter of its own could lie to the runtime", "EFAULT", unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0),
		denied("seccomp listener", "the same, with a supervisor", "EFAULT", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, 0),
		denied("personality", "READ_IMPLIES_EXEC", "ok", unix.SYS_PERSONALITY, 0x0400000),
		denied("prlimit", "the limits are part of the sandbox", "ok", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, 0, room()),
		denied("chroot", "with a directory kept open it is the way out of another", "ENOENT", unix.SYS_CHROOT, cstring("nosuch")),
		denied("chroot escape", "into a directory, then up from one kept open", "ok", unix.SYS_CHROOT, cstring("dir")),
		denied("pivot_root", "moves the root of a namespace", "ENOENT", unix.SYS_PIVOT_ROOT, cstring("nosuch"), cstring("nosuch")),
		deniedBy("fchdir", "the other half of the escape", "", func(a *attacker) string { return a.call(unix.SYS_FCHDIR, a.files[0].Fd()) }),
		denied("chdir", "not needed", "ok", unix.SYS_CHDIR, cstring("/")),
		denied("mount", "would cover what others trust", "ENOENT", unix.SYS_MOUNT, 0, cstring("/nosuch"), cstring("tmpfs"), 0, 0),
		denied("umount", "would uncover it", "ENOENT", unix.SYS_UMOUNT2, cstring("/nosuch"), 0),
		denied("open_tree", "the new mount calls", "ENOENT", unix.SYS_OPEN_TREE, here, cstring("nosuch"), 0),
		denied("fsopen", "the new mount calls", "ENODEV", unix.SYS_FSOPEN, cstring("nosuch"), 0),
		denied("unshare", "a user namespace has every capability, over much kernel code", "ok", unix.SYS_UNSHARE, unix.CLONE_NEWNET),
		denied("setns", "into the monitor's namespaces", "EBADF", unix.SYS_SETNS, none, 0),

		// Parts of the kernel that many have fallen through.
		denied("bpf", "programs in the kernel", "", unix.SYS_BPF, unix.BPF_MAP_CREATE, room(), 64),
		denied("io_uring_setup", "makes other calls where no filter sees them", "ok", unix.SYS_IO_URING_SETUP, 1, room()),
		denied("io_uring_enter", "the same", "EBADF", unix.SYS_IO_URING_ENTER, none, 0, 0, 0, 0, 0),
		denied("keyctl", "keys of the same user", "", unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(0), 0),
		denied("add_key", "memory that outlives the worker", "", unix.SYS_ADD_KEY, cstring("user"), cstring("x"), room(), 1, 0),
		denied("request_key", "runs a program of the host", "", unix.SYS_REQUEST_KEY, cstring("user"), cstring("x"), 0, 0),
		denied("userfaultfd", "holds the kernel at a moment of the attacker's choice", "ok", unix.SYS_USERFAULTFD, unix.O_CLOEXEC),
		denied("perf_event_open", "a long row of holes", "", unix.SYS_PERF_EVENT_OPEN, room(), 0, ^uintptr(0), none, 0),
		denied("quotactl", "not needed", "", unix.SYS_QUOTACTL, 0, 0, 0, 0),
		denied("swapon", "not needed", "ENOENT", unix.SYS_SWAPON, cstring("/nosuch"), 0),
		denied("reboot", "not needed", "EINVAL", unix.SYS_REBOOT, 0, 0, 0, 0),
		denied("kexec_load", "another kernel", "", unix.SYS_KEXEC_LOAD, 0, 1<<20, 0, 0),
		denied("init_module", "more kernel", "", unix.SYS_INIT_MODULE, 0, 0, 0),
		denied("syslog", "addresses and secrets of the kernel's", "EINVAL", unix.SYS_SYSLOG, 999, 0, 0),
		denied("fanotify_init", "not needed", "", unix.SYS_FANOTIFY_INIT, 0, 0),
		denied("inotify_init", "watches what others do", "ok", unix.SYS_INOTIFY_INIT1, 0),
		denied("timer_create", "not needed", "", unix.SYS_TIMER_CREATE, unix.CLOCK_REALTIME, 0, room()),
		denied("ioctl", "TIOCSTI, FIONREAD and ten thousand others", "", unix.SYS_IOCTL, 2, unix.TCGETS, room()),
		denied("vmsplice", "gave files another's pages (CVE-2008-0009)", "EBADF", unix.SYS_VMSPLICE, none, 0, 0, 0),
		denied("msgget", "IPC that outlives the worker", "", unix.SYS_MSGGET, 0, 0),
		denied("shmget", "IPC that outlives the worker", "", unix.SYS_SHMGET, 0, 4096, 0),

		// Memory that runs.
		denied("mmap to write and run", "injected code", "ok", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, none, 0),
		denied("mmap to run", "injected code, from a file", "ok", unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON, none, 0),
		deniedBy("mprotect to run", "written first, run then", "ok", func(a *attacker) string {
			page, errno := raw(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, none, 0)
			if errno != 0 {
				return "no page"
			}
			return a.call(unix.SYS_MPROTECT, page, 4096, unix.PROT_READ|unix.PROT_EXEC)
		}),
		denied("pkey_mprotect", "mprotect by another name", "", unix.SYS_PKEY_MPROTECT, 0, 0, unix.PROT_EXEC, ^uintptr(0)),
		denied("memfd_create", "memory that can be mapped twice, to write and to run: MDWE does not see it", "ok", unix.SYS_MEMFD_CREATE, cstring("x"), 0),
		denied("remap_file_pages", "changes what a mapping shows", "EINVAL", unix.SYS_REMAP_FILE_PAGES, 0, 0, 0, 0, 0),
	}...)
}

// fork makes a process, which ends at once.
func (a *attacker) fork(flags uintptr) string {
	os.Stderr.WriteString(reachedMark)
	runtime.LockOSThread()
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return errnoName(errno)
}

// memory reads or writes another process where this one has its own data.
func (a *attacker) memory(nr uintptr, pid int) string {
	buffer := make([]byte, 8)
	mine := unix.Iovec{Base: &buffer[0], Len: 8}
	theirs := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&kept)), Len: 8}
	return a.call(nr, uintptr(pid), uintptr(unsafe.Pointer(&mine)), 1, uintptr(unsafe.Pointer(&theirs)), 1, 0)
}

func callAttacks() map[string]attack {
	all := make(map[string]attack)
	for _, c := range append(callCases(), append(socketCalls(), fileCalls()...)...) {
		all["call: "+c.name] = c.do
	}
	return all
}

// TestHostileCalls: whatever a worker that was taken over asks the kernel for,
// it gets nothing, and no one else notices.
func TestHostileCalls(t *testing.T) {
	a := newArena(t)
	a.bears(t, func(t *testing.T) {
		for _, c := range append(callCases(), append(socketCalls(), fileCalls()...)...) {
			if strings.HasPrefix(c.name, rootOnly) && os.Geteuid() != 0 {
				continue
			}
			writer := c.writer
			if writer == "" {
				writer = c.reader
			}
			for _, in := range []struct {
				worker, want string
				trial        trial
			}{
				{"session", c.session, trial{session: "call: " + c.name}},
				{"reader", c.reader, trial{session: "log in and hold", files: "call: " + c.name}},
				{"writer", writer, trial{session: "log in and hold", files: "call: " + c.name, write: true}},
			} {
				t.Run(c.name+"/"+in.worker, func(t *testing.T) {
					t.Parallel()
					want := end{"session", in.want}
					if in.worker != "session" {
						want.role = "files"
					}
					if got := a.try(t, in.trial); got != want && got.result != noInterrupt {
						t.Errorf("got %v, want %v: %s", got, want, c.why)
					}
				})
			}
		}
	})
}
