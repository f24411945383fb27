//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The layers that keep live workers from each other, beside the filter.
const (
	byUser       = "user"       // another uid
	byDumpable   = "dumpable"   // 0: the kernel shows nothing of it to the same uid
	byLandlock   = "landlock"   // a domain of its own, which also bounds signals, traces and abstract sockets
	byRoot       = "root"       // no /proc and no /dev/shm in it
	byNamespaces = "namespaces" // of processes, networks and System V IPC, which workers share, and the host does not
)

// A siblingCase is what a worker that was taken over tries on another live one,
// or on the monitor.
type siblingCase struct {
	name, why string
	session   string // how it ends with everything in force: killed, or an error
	reader    string // the same in a files worker
	held      string // layers that each stop it alone when there is no filter
	do        attack

	equal bool // the kernel asks for all of the victim's capabilities, too: ptrace(2), capabilities(7) under CAP_SYS_NICE
	third bool // it is about what neither attacker nor victim has
}

func siblingCases() []siblingCase {
	// try is an attack that the filter kills.
	try := func(name, why, held string, do func(a *attacker) unix.Errno) siblingCase {
		return siblingCase{name: name, why: why, session: killed, reader: killed, held: held, do: func(a *attacker) string {
			fmt.Fprint(os.Stderr, reachedMark)
			return errnoName(do(a))
		}}
	}
	trace := func(name, why string, do func(a *attacker) unix.Errno) siblingCase {
		c := try(name, why, byUser+byDumpable+byLandlock, do)
		c.equal = true
		return c
	}
	slow := func(name, why string, do func(a *attacker) unix.Errno) siblingCase {
		c := try(name, why, byUser, do)
		c.equal = true
		return c
	}
	shared := func(name, why, held string, do func(a *attacker) unix.Errno) siblingCase {
		c := try(name, why, held, do)
		c.third = true
		return c
	}
	// open is one that the filter leaves to the root in a files worker.
	open := func(path, why, held string, equal bool) siblingCase {
		c := try("open "+path, why, held, func(a *attacker) unix.Errno {
			path := strings.NewReplacer("PID", fmt.Sprint(a.shown()), "ARG", fmt.Sprint(a.arg)).Replace(path)
			fd, errno := raw(unix.SYS_OPENAT, here, cstring(path), unix.O_RDONLY|unix.O_CLOEXEC)
			if errno == 0 {
				raw(unix.SYS_CLOSE, fd)
			}
			return errno
		})
		c.session, c.reader, c.equal, c.third = "EACCES", "ENOENT", equal, !strings.Contains(path, "PID")
		return c
	}
	one := func(nr uintptr, args func(p uintptr) []uintptr) func(*attacker) unix.Errno {
		return func(a *attacker) unix.Errno {
			_, errno := raw(nr, args(uintptr(a.sibling))...)
			return errno
		}
	}
	by := func(pidfd func(fd uintptr) []uintptr) func(*attacker) unix.Errno {
		return func(a *attacker) unix.Errno {
			fd, errno := raw(unix.SYS_PIDFD_OPEN, uintptr(a.sibling), 0)
			if errno == 0 {
				args := pidfd(fd)
				_, errno = raw(args[0], args[1:]...)
				raw(unix.SYS_CLOSE, fd)
			}
			return errno
		}
	}
	const signal = uintptr(unix.SIGWINCH) // which nobody minds
	const signals, files = byUser + byLandlock, byUser + byDumpable + byLandlock + byRoot
	return []siblingCase{
		try("kill", "ends another client's session", signals, one(unix.SYS_KILL, func(p uintptr) []uintptr { return []uintptr{p, signal} })),
		try("tgkill", "the same", signals, one(unix.SYS_TGKILL, func(p uintptr) []uintptr { return []uintptr{p, p, signal} })),
		try("rt_sigqueueinfo", "the same, with a forged sender", signals, one(unix.SYS_RT_SIGQUEUEINFO, func(p uintptr) []uintptr {
			info := &[32]int32{int32(signal), 0, -1} // SI_QUEUE
			kept = append(kept, (*byte)(unsafe.Pointer(info)))
			return []uintptr{p, signal, uintptr(unsafe.Pointer(info))}
		})),
		try("pidfd_open", "a handle on another process", "", by(func(fd uintptr) []uintptr { return []uintptr{unix.SYS_FCNTL, fd, unix.F_GETFD} })),
		try("pidfd_send_signal", "kills by handle", signals, by(func(fd uintptr) []uintptr { return []uintptr{unix.SYS_PIDFD_SEND_SIGNAL, fd, signal, 0, 0} })),
		trace("pidfd_getfd", "takes another's channel", by(func(fd uintptr) []uintptr { return []uintptr{unix.SYS_PIDFD_GETFD, fd, 3, 0} })),
		trace("ptrace attach", "it would be the sibling", func(a *attacker) unix.Errno { return a.trace(unix.PTRACE_ATTACH) }),
		trace("ptrace seize", "the same, unseen", func(a *attacker) unix.Errno { return a.trace(unix.PTRACE_SEIZE) }),
		trace("process_vm_readv", "another client's password is in it", func(a *attacker) unix.Errno { return a.reach8(unix.SYS_PROCESS_VM_READV) }),
		trace("process_vm_writev", "it would be the sibling", func(a *attacker) unix.Errno { return a.reach8(unix.SYS_PROCESS_VM_WRITEV) }),
		trace("kcmp", "tells where another's kernel objects are", one(unix.SYS_KCMP, func(p uintptr) []uintptr {
			return []uintptr{uintptr(os.Getpid()), p, 1 /* KCMP_VM */, 0, 0}
		})),
		trace("get_robust_list", "an address of another's", one(unix.SYS_GET_ROBUST_LIST, func(p uintptr) []uintptr { return []uintptr{p, room(), room()} })),

		open("/proc/PID/mem", "the memory, as a file", files, true),
		open("/proc/PID/maps", "where things are", files, true),
		open("/proc/PID/environ", "what it was started with", files, true),
		open("/proc/PID/root/", "another user's files", files, true),
		open("/proc/PID/cwd/", "the same", files, true),
		open("/proc/PID/fd", "which files it has", files, false),
		open("/proc/PID/task", "its threads: the kernel tells everybody", byLandlock+byRoot, false),

		// The kernel asks for the same user alone.
		try("prlimit", "no further descriptor, no further byte", byUser, func(a *attacker) unix.Errno {
			limit := room()
			if _, errno := raw(unix.SYS_PRLIMIT64, uintptr(a.sibling), unix.RLIMIT_NOFILE, 0, limit); errno != 0 {
				return errno
			}
			_, errno := raw(unix.SYS_PRLIMIT64, uintptr(a.sibling), unix.RLIMIT_NOFILE, limit, 0)
			return errno
		}),
		slow("sched_setaffinity", "all workers on one processor", func(a *attacker) unix.Errno {
			mask := room()
			n, errno := raw(unix.SYS_SCHED_GETAFFINITY, 0, 128, mask) // its own
			if errno == 0 {
				_, errno = raw(unix.SYS_SCHED_SETAFFINITY, uintptr(a.sibling), n, mask)
			}
			return errno
		}),
		slow("setpriority", "slows another down", func(a *attacker) unix.Errno {
			turned, errno := raw(unix.SYS_GETPRIORITY, unix.PRIO_PROCESS, uintptr(a.sibling)) // 20 - nice
			if errno == 0 {
				_, errno = raw(unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, uintptr(a.sibling), 20-turned)
			}
			return errno
		}),

		// What somebody else shares, by name or by number.
		shared("shared memory of the host's", "System V's", byNamespaces, func(a *attacker) unix.Errno { return attach(hostKey(a.arg)) }),
		shared("shared memory of a sibling's", "workers share the namespace: they agree on a key, or guess one", "", func(a *attacker) unix.Errno { return attach(hostKey(a.arg) + 1) }),
		open("/dev/shm/sallyport-ARG", "POSIX's shared memory is files", byLandlock+byRoot, false),
		shared("abstract socket of the host's", "has no owner and no mode", byNamespaces+byLandlock, func(a *attacker) unix.Errno { return connectAbstract(abstract("host", a.arg)) }),
		shared("abstract socket of a sibling's", "workers share the namespace", byLandlock, func(a *attacker) unix.Errno { return connectAbstract(abstract("worker", a.arg)) }),
	}
}

// shown is the sibling's number in the /proc that this worker has when no root
// hides it: with cgo its own PID namespace's, else the host's.
func (a *attacker) shown() int {
	if a.arg == 0 {
		return a.sibling // a filter would mind the question
	}
	if me, err := os.Readlink("/proc/self"); err == nil && me != fmt.Sprint(os.Getpid()) {
		return a.seen
	}
	return a.sibling
}

// trace attaches to the main thread of a sibling, and lets it go.
func (a *attacker) trace(how uintptr) unix.Errno {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid := uintptr(a.sibling)
	if _, errno := raw(unix.SYS_PTRACE, how, pid, 0, 0); errno != 0 {
		return errno
	}
	if how == unix.PTRACE_SEIZE {
		raw(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, pid, 0, 0)
	}
	for errno := unix.EINTR; errno == unix.EINTR; { // the runtime preempts
		_, errno = raw(unix.SYS_WAIT4, pid, 0, unix.WALL, 0)
	}
	_, errno := raw(unix.SYS_PTRACE, unix.PTRACE_DETACH, pid, 0, 0)
	// What it stopped for may have been an earlier signal, and attaching's own
	// SIGSTOP still be on its way: the victim would stay stopped.
	raw(unix.SYS_KILL, pid, uintptr(unix.SIGCONT))
	return errno
}

// scratch is where an attacker reads and writes in another process: all are
// the same program, at the same addresses.
var scratch [8]byte

func (a *attacker) reach8(nr uintptr) unix.Errno {
	var buffer [8]byte
	mine := unix.Iovec{Base: &buffer[0], Len: 8}
	theirs := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&scratch)), Len: 8}
	_, errno := raw(nr, uintptr(a.sibling), uintptr(unsafe.Pointer(&mine)), 1, uintptr(unsafe.Pointer(&theirs)), 1, 0)
	return errno
}

// hostKey is the System V key of the host's segment in one run; the next is the
// accomplice's.
func hostKey(run int) uintptr { return 0x5a000000 + 2*uintptr(run) }

func abstract(whose string, run int) string { return fmt.Sprintf("@sallyport-%s-%d", whose, run) }

func attach(key uintptr) unix.Errno {
	id, errno := raw(unix.SYS_SHMGET, key, 0, 0)
	if errno != 0 {
		return errno
	}
	at, errno := raw(unix.SYS_SHMAT, id, 0, unix.SHM_RDONLY)
	if errno == 0 {
		raw(unix.SYS_SHMDT, at)
	}
	return errno
}

func connectAbstract(name string) unix.Errno {
	fd, errno := raw(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errno != 0 {
		return errno
	}
	defer raw(unix.SYS_CLOSE, fd)
	err := unix.Connect(int(fd), &unix.SockaddrUnix{Name: name})
	errno, _ = err.(unix.Errno)
	return errno
}

// siblingAttacks are each case alone, and all of them in a row, in a worker
// that no filter kills: what came of case n is word n.
func siblingAttacks() map[string]attack {
	each := func(a *attacker) string {
		var words []string
		for _, c := range siblingCases() {
			words = append(words, c.do(a))
		}
		return strings.Join(words, " ")
	}
	all := map[string]attack{
		"siblings, from a files worker":   each,
		"siblings, from a session worker": func(a *attacker) string { a.seize(); a.logIn(); return each(a) },
		// An accomplice has what a filter lets nobody make.
		"accomplice": func(a *attacker) string {
			a.seize()
			a.logIn()
			if _, errno := raw(unix.SYS_SHMGET, hostKey(a.arg)+1, 4096, unix.IPC_CREAT|0o666); errno != 0 {
				return "shmget: " + errnoName(errno)
			}
			if err := listenAbstract(abstract("worker", a.arg)); err != nil {
				return "listen: " + err.Error()
			}
			for { // until its client hangs up
				n, errno := raw(unix.SYS_READ, fdOf(a.files[0]), room(), 1)
				if errno == 0 && n == 0 {
					return "hung up"
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	}
	for _, c := range siblingCases() {
		all["sibling: "+c.name] = c.do
		all["sibling, logged in: "+c.name] = func(a *attacker) string { a.seize(); a.logIn(); return c.do(a) }
	}
	return all
}

func listenAbstract(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err == nil {
		err = unix.Listen(fd, 16)
	}
	return err
}

// A relation is who attacks whom.
type relation struct {
	name     string
	session  string // the attack's prefix by a session worker, or ""
	files    string // by a files worker, or ""
	victim   string // role, "launcher" or "monitor"
	user     uint32 // whom the files worker is; 0: the victim's user
	sameUser bool
}

// relations are of workers whose clients have logged in.
func relations() []relation {
	const other = 65529
	return []relation{
		{name: "session worker, session worker", session: "logged in", victim: "session"},
		{name: "session worker, files worker", session: "logged in", victim: "files"},
		{name: "files worker, session worker", files: "files", victim: "session"},
		{name: "files worker, files worker of the user's", files: "files", victim: "files", sameUser: true},
		{name: "files worker, files worker of another user's", files: "files", victim: "files", user: other},
		{name: "session worker, launcher", session: "logged in", victim: "launcher"},
		{name: "files worker, launcher", files: "files", victim: "launcher"},
		{name: "session worker, monitor", session: "logged in", victim: "monitor"},
		{name: "files worker, monitor", files: "files", victim: "monitor"},
	}
}

// worker reports whether the victim is one, and else has rights of its own.
func (r relation) worker() bool { return r.victim == "session" || r.victim == "files" }

// victims are the processes that relations' attackers are told of. The workers
// are those that live now.
func victims(t *testing.T) map[string]int {
	t.Helper()
	all := map[string]int{"monitor": os.Getpid()}
	for _, child := range childrenOf(os.Getpid()) {
		if child.role == "launcher" {
			all[child.role] = child.pid
		}
	}
	for pid, role := range childRoles() {
		if role != accountsRole.Name { // no relation is about a keeper
			all[role] = pid
		}
	}
	if len(all) != 4 {
		t.Fatalf("processes: %v", all)
	}
	return all
}

// TestHostileSiblings: a worker that was taken over can't reach another that is
// logged in and alive, nor the monitor, and none of them notices.
func TestHostileSiblings(t *testing.T) {
	a := newArena(t)
	a.bears(t, func(t *testing.T) {
		victims := victims(t)
		for _, r := range relations() {
			if (r.user != 0 || !r.worker()) && os.Geteuid() != 0 {
				continue // all are one user
			}
			for _, c := range siblingCases() {
				t.Run(r.name+"/"+strings.ReplaceAll(c.name, "/", "|"), func(t *testing.T) {
					t.Parallel()
					in, want := trial{victim: victims[r.victim], user: r.user}, end{"session", c.session}
					if r.session != "" {
						in.session = "sibling, logged in: " + c.name
					} else {
						in.session, in.files, want = "log in and hold", "sibling: "+c.name, end{"files", c.reader}
					}
					if got := a.try(t, in); got != want {
						t.Errorf("got %v, want %v: %s", got, want, c.why)
					}
				})
			}
		}
	})
}

// stopped reports whether one of the kept layers stops c in a relation.
func (c siblingCase) stopped(r relation, kept []string) bool {
	if c.equal && !r.worker() {
		return true
	}
	return slices.ContainsFunc(kept, func(layer string) bool {
		switch {
		case layer == byUser && r.sameUser, layer == byDumpable && !r.worker():
			return false
		case layer == byNamespaces && r.victim == "monitor" && !strings.HasPrefix(c.name, "open "):
			return true // it has no number there
		}
		return strings.Contains(c.held, layer)
	})
}
