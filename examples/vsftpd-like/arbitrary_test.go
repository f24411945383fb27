//go:build linux

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/privsep"
)

// An attempt is one thing that arbitrary code tries in the monitor. It returns
// "ok" or an errno's name.
type attempt struct {
	name     string
	confined string // what it gets in a confined monitor
	bare     string // and in one that is not
	do       func(a *attempts) string
}

// attempts is what the code knows of the process that it runs in.
type attempts struct {
	dir      string // the site's
	launcher int
}

// tried is an attempt of one call.
func tried(name, bare string, nr uintptr, args ...uintptr) attempt {
	return attempt{name, "EPERM", bare, func(*attempts) string {
		_, errno := raw(nr, args...)
		return errnoName(errno)
	}}
}

// against is an attempt on the launcher, which can do what the monitor can't.
func against(name, bare string, do func(launcher uintptr) syscall.Errno) attempt {
	return attempt{name, "EPERM", bare, func(a *attempts) string { return errnoName(do(uintptr(a.launcher))) }}
}

// opening is an attempt to open a file, of which "SITE" is the site's directory.
func opening(name, path string, flags int, confined string) attempt {
	return attempt{name, confined, "ok", func(a *attempts) string {
		fd, err := unix.Open(strings.ReplaceAll(path, "SITE", a.dir), flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return errnoName(err.(syscall.Errno))
		}
		unix.Close(fd)
		return "ok"
	}}
}

// socket is an attempt to make one.
func socket(name, bare string, family, kind, protocol int) attempt {
	return attempt{name, "EPERM", bare, func(*attempts) string {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return errnoName(err.(syscall.Errno))
		}
		unix.Close(fd)
		return "ok"
	}}
}

func errnoOf(err error) string {
	if err == nil {
		return "ok"
	}
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.ENOSYS, syscall.ENOENT} {
		if strings.Contains(err.Error(), errno.Error()) {
			return errnoName(errno)
		}
	}
	return err.Error()
}

func allAttempts() []attempt {
	page := func(prot uintptr) []uintptr {
		return []uintptr{0, 4096, prot, unix.MAP_PRIVATE | unix.MAP_ANON, ^uintptr(0), 0}
	}
	all := []attempt{
		// What is not the monitor's to read or write. The account files are
		// the accounts keeper's.
		opening("read /etc/shadow", "/etc/shadow", unix.O_RDONLY, "EACCES"),
		opening("read the virtual users", "SITE/virtual_users", unix.O_RDONLY, "EACCES"),
		opening("read what everybody may read, elsewhere", "/usr/lib/os-release", unix.O_RDONLY, "EACCES"),
		opening("list a user's home", "/root", unix.O_RDONLY|unix.O_DIRECTORY, "EACCES"),
		opening("read its own memory", "/proc/self/mem", unix.O_RDONLY, "EACCES"),
		opening("write its own memory, past what is not writable", "/proc/self/mem", unix.O_RDWR, "EPERM"),
		opening("write to /proc/sys", "/proc/sys/kernel/core_pattern", unix.O_WRONLY, "EPERM"),
		opening("write to /proc", "/proc/self/oom_score_adj", unix.O_WRONLY, "EPERM"),
		opening("write its configuration", "SITE/conf", unix.O_WRONLY, "EPERM"),
		opening("open a path as a place", "/", unix.O_PATH, "EPERM"),
		opening("make a file without a name", "SITE", unix.O_TMPFILE|unix.O_RDWR, "EPERM"),
		tried("remove a file", "ENOENT", unix.SYS_UNLINKAT, here, cstring("/nosuch/file"), 0),
		tried("make a directory", "ENOENT", unix.SYS_MKDIRAT, here, cstring("/nosuch/dir"), 0o700),
		tried("make a device", "ENOENT", unix.SYS_MKNODAT, here, cstring("/nosuch/device"), unix.S_IFBLK, 0),
		tried("make a symbolic link", "ENOENT", unix.SYS_SYMLINKAT, cstring("/etc"), here, cstring("/nosuch/link")),
		tried("open by handle", "EFAULT", unix.SYS_OPEN_BY_HANDLE_AT, here, 0, 0),

		// Processes.
		{"fork", "EPERM", "ok", func(*attempts) string { return new(attacker).fork(uintptr(unix.SIGCHLD)) }},
		{"vfork", "EPERM", "ok", func(*attempts) string {
			return new(attacker).fork(uintptr(unix.CLONE_VFORK | unix.SIGCHLD))
		}},
		tried("execve", "ENOENT", unix.SYS_EXECVE, cstring("/nosuch"), room(), room()),
		tried("execveat", "EBADF", unix.SYS_EXECVEAT, ^uintptr(0), cstring(""), room(), room(), unix.AT_EMPTY_PATH),
		{"run a program", "ENOSYS", "ok", func(*attempts) string { // for want of a pipe
			p, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
			if err == nil {
				_, err = p.Wait()
			}
			return errnoOf(err)
		}},
		against("trace the launcher", "ok", func(pid uintptr) syscall.Errno {
			runtime.LockOSThread() // never unlocked: the thread, and the tracing, end with the goroutine
			_, errno := raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, pid, 0, 0)
			if errno == 0 {
				raw(unix.SYS_PTRACE, unix.PTRACE_INTERRUPT, pid, 0, 0)
				var status unix.WaitStatus
				unix.Wait4(int(pid), &status, unix.WALL, nil)
				raw(unix.SYS_PTRACE, unix.PTRACE_DETACH, pid, 0, 0)
			}
			return errno
		}),
		against("read the launcher's memory", "ok", func(pid uintptr) syscall.Errno {
			buffer := make([]byte, 8)
			mine := unix.Iovec{Base: &buffer[0], Len: 8}
			theirs := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&kept)), Len: 8} // the same program
			_, errno := raw(unix.SYS_PROCESS_VM_READV, pid, uintptr(unsafe.Pointer(&mine)), 1, uintptr(unsafe.Pointer(&theirs)), 1, 0)
			return errno
		}),
		against("signal the launcher", "ok", func(pid uintptr) syscall.Errno {
			_, errno := raw(unix.SYS_KILL, pid, uintptr(unix.SIGCONT))
			return errno
		}),
		against("signal the launcher's thread", "ok", func(pid uintptr) syscall.Errno {
			_, errno := raw(unix.SYS_TGKILL, pid, pid, uintptr(unix.SIGCONT))
			return errno
		}),
		against("get a hold of the launcher", "ok", func(pid uintptr) syscall.Errno {
			fd, errno := raw(unix.SYS_PIDFD_OPEN, pid, 0)
			if errno == 0 {
				unix.Close(int(fd))
			}
			return errno
		}),
		tried("signal everybody", "ok", unix.SYS_KILL, ^uintptr(0), 0),
		tried("take a descriptor of another's", "EBADF", unix.SYS_PIDFD_GETFD, ^uintptr(0), 0, 0),

		// Identity and confinement.
		tried("setuid(0)", "ok", unix.SYS_SETUID, 0),
		tried("setresuid(0, 0, 0)", "ok", unix.SYS_SETRESUID, 0, 0, 0),
		tried("setfsuid(0)", "ok", unix.SYS_SETFSUID, 0),
		tried("setgid(0)", "ok", unix.SYS_SETGID, 0),
		tried("setgroups", "ok", unix.SYS_SETGROUPS, 0, 0),
		tried("become dumpable", "ok", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1),
		tried("raise an ambient capability", "ok", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL),
		tried("change the securebits", "ok", unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 0),
		tried("another filter", "EFAULT", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0),
		tried("chroot", "ok", unix.SYS_CHROOT, cstring("/")),
		tried("mount", "ENOENT", unix.SYS_MOUNT, 0, cstring("/nosuch"), cstring("tmpfs"), 0, 0),
		tried("unmount", "ENOENT", unix.SYS_UMOUNT2, cstring("/nosuch"), 0),
		tried("mount, by the new calls", "ENODEV", unix.SYS_FSOPEN, cstring("nosuch"), 0),
		tried("a new namespace", "EINVAL", unix.SYS_UNSHARE, 1),
		tried("a namespace of another's", "EBADF", unix.SYS_SETNS, ^uintptr(0), 0),

		// The kernel's larger doors.
		tried("bpf", "EINVAL", unix.SYS_BPF, 9999, 0, 0),
		tried("perf_event_open", "EFAULT", unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
		tried("io_uring", "EFAULT", unix.SYS_IO_URING_SETUP, 1, 0),
		tried("keyctl", "ENOTSUP", unix.SYS_KEYCTL, 9999),
		tried("a kernel module", "", unix.SYS_INIT_MODULE, 0, 0, 0),
		tried("userfaultfd", "EINVAL", unix.SYS_USERFAULTFD, 1<<30),
		tried("ioctl", "EBADF", unix.SYS_IOCTL, ^uintptr(0), 0, 0),
		tried("the host's name", "EFAULT", unix.SYS_SETHOSTNAME, 0, 1),
		tried("the clock", "EFAULT", unix.SYS_CLOCK_SETTIME, 0, 1),
		tried("memory to execute", "ok", unix.SYS_MMAP, page(unix.PROT_READ|unix.PROT_EXEC)...),
		tried("memory to write and execute", "ok", unix.SYS_MMAP, page(unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC)...),
		tried("a file in memory, to execute", "ok", unix.SYS_MEMFD_CREATE, cstring("x"), unix.MFD_CLOEXEC),

		// Sockets.
		socket("a raw socket", "ok", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		socket("a raw socket of IPv6", "ok", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6),
		socket("a packet socket", "ok", unix.AF_PACKET, unix.SOCK_RAW, 0),
		socket("a datagram socket", "ok", unix.AF_INET, unix.SOCK_DGRAM, 0),
		socket("a netlink socket", "ok", unix.AF_NETLINK, unix.SOCK_RAW, 0),
		socket("a socket to local services", "ok", unix.AF_UNIX, unix.SOCK_STREAM, 0),
		socket("a socket of the kernel's ciphers", "", unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		socket("SCTP", "", unix.AF_INET, unix.SOCK_STREAM, 132),
	}
	root, _ := caps.Current() // of the test, who may itself lack some in a container
	for n := range 41 {
		c := caps.Of(caps.Cap(n + 1))
		want, bare := "EPERM", "ok"
		if !root.Permitted.Has(caps.Cap(n + 1)) {
			bare = "EPERM"
		}
		if c == caps.Of(caps.NetBindService) {
			want = "ok" // it is a permit's, so all code in the monitor could raise it
		}
		all = append(all, attempt{"raise " + c.String(), want, bare, func(*attempts) string { return raise(c) }})
	}
	return all
}

// raise makes a capability effective for a moment.
func raise(c caps.Set) string {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before [2]unix.CapUserData
	if err := unix.Capget(&h, &before[0]); err != nil {
		return errnoOf(err)
	}
	raised := before
	bits := c.Bits()
	for i := range raised {
		raised[i].Effective |= uint32(bits >> (32 * i))
		raised[i].Permitted |= uint32(bits >> (32 * i))
	}
	err := unix.Capset(&h, &raised[0])
	if err == nil {
		err = unix.Capset(&h, &before[0])
	}
	return errnoOf(err)
}

// arbitrary runs all attempts in the monitor, as the handler that it is called in.
func (c *client) arbitrary(in string) {
	_, launcher, _, err := c.server.monitor.Postures()
	a := &attempts{dir: strings.TrimSuffix(c.server.config.AnonymousRoot, "/anon"), launcher: launcher.PID}
	for _, one := range allAttempts() {
		got := make(chan string)
		go func() { // on a thread of its own, or the launcher's tracer would live on
			got <- one.do(a)
		}()
		fmt.Fprintf(os.Stderr, "attempt|%s|%s|%s\n", in, one.name, <-got)
	}
	effective, _ := caps.Current() // of the handler's own thread
	fmt.Fprintf(os.Stderr, "attempt|%s|effective|%v\nattempt|%[1]s|done|%[3]v\n", in, effective.Effective, err)
}

// arbitraryPolicy is newPolicy with handlers that were replaced by arbitrary
// code, and then do what the honest ones do.
func arbitraryPolicy(uint16) (*privsep.Policy, *privsep.Phase[client], *privsep.Phase[user]) {
	policy := new(privsep.Policy)
	preauth := privsep.NewPhase(policy, "preauth", (*client).launchSession)
	authed := privsep.NewPhase[user](policy, "authed", nil)
	privsep.Beside(authed, (*user).launchFiles)
	privsep.Advance(preauth, Login, authed, func(c *client, ctx context.Context, r LoginRequest) (LoginReply, *user, error) {
		c.arbitrary("preauth login")
		return c.login(ctx, r)
	})
	privsep.Permit(authed, ListenData, func(u *user, ctx context.Context, r ListenDataRequest) (ListenDataReply, error) {
		u.arbitrary("authed listen-data")
		return u.listenData(ctx, r)
	})
	privsep.Permit(authed, AcceptData, (*user).acceptData)
	privsep.Permit(authed, ConnectData, func(u *user, ctx context.Context, r ConnectDataRequest) (DataReply, error) {
		u.arbitrary("authed connect-data")
		return u.connectData(ctx, r)
	}, caps.NetBindService)
	return policy, preauth, authed
}

// arbitraryName and bareName are arguments zero of monitors with arbitrary
// code in them: one that is confined, and one that is not.
const (
	arbitraryName = "vsftpd-like-arbitrary"
	bareName      = "vsftpd-like-bare"
)

// arbitraryMonitor is the server as it is, but for its policy.
func arbitraryMonitor() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(&source{file: os.Args[1]}, arbitraryPolicy, log); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// bareMonitor is the control: the same without [server.confine].
func bareMonitor() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := func() error {
		c, err := (&source{file: os.Args[1]}).load()
		if err != nil {
			return err
		}
		s, err := newServer(c, arbitraryPolicy, new(pool), 0, log, nil, nil)
		if err != nil {
			return err
		}
		defer s.monitor.Close()
		all, err := s.bind()
		if err != nil {
			return err
		}
		for _, d := range all {
			fmt.Printf("listening on %v\n", d.Addr())
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		s.serve(ctx, all, func() { <-ctx.Done() })
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// TestArbitraryCode: a handler of each phase is replaced by code that tries
// whatever it would like to do, in the real server. The control is the same
// server without its confinement.
func TestArbitraryCode(t *testing.T) {
	for _, m := range []struct {
		monitor string
		want    func(attempt) string
		places  []string
	}{
		{arbitraryName, func(a attempt) string { return a.confined }, []string{"preauth login", "authed listen-data", "authed connect-data"}},
		// connect-data does not run: what is effective everywhere can't be raised.
		{bareName, func(a attempt) string { return a.bare }, []string{"preauth login", "authed listen-data"}},
	} {
		t.Run(strings.TrimPrefix(m.monitor, "vsftpd-like-"), func(t *testing.T) {
			s := layOut(t, map[string]string{"spares": "0", "connect_from_port": "20", "listen": freePorts(t, 1)[0]})
			d := startDaemon(t, s.dir, nil, stageName, s.dir, m.monitor, s.dir+"/conf")
			address := d.listening(t, 1)[0]
			c := connect(t, address, "")
			if err := c.login("ftp"); err != nil {
				t.Fatal(err)
			}
			c.say(t, "EPSV", "229")
			if m.monitor == arbitraryName {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				port := l.Addr().(*net.TCPAddr).Port
				c.say(t, fmt.Sprintf("PORT 127,0,0,1,%d,%d", port/256, port%256), "200")
				c.say(t, "LIST", "150")
			}
			for _, place := range m.places {
				got := attemptsOf(d.output(), place)
				for end := time.Now().Add(patience); got["done"] == "" && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
					got = attemptsOf(d.output(), place)
				}
				if got["done"] != "<nil>" {
					t.Fatalf("%s: the attempts did not end: %q\n%s", place, got["done"], d.output())
				}
				for _, a := range allAttempts() {
					if want := m.want(a); got[a.name] != want && want != "" {
						t.Errorf("%s: %s: got %q, want %q", place, a.name, got[a.name], want)
					}
				}
				effective := map[string]string{"authed connect-data": "cap_net_bind_service"}[place]
				if m.monitor == arbitraryName && got["effective"] != effective {
					t.Errorf("%s: effective is %q, want %q", place, got["effective"], effective)
				}
			}
		})
	}
}

// attemptsOf are the results of one place.
func attemptsOf(output, place string) map[string]string {
	got := make(map[string]string)
	for line := range strings.Lines(output) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "|", 4)
		if len(f) == 4 && f[0] == "attempt" && f[1] == place {
			got[f[2]] = f[3]
		}
	}
	return got
}
