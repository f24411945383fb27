package seccomp

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/arch"
)

// What a monitor and a launcher may call is a matter for review: one line a call.
func TestMonitorGolden(t *testing.T) {
	for _, a := range arches {
		for name, f := range map[string]func() (Filter, error){
			"monitor":  func() (Filter, error) { return CompileMonitor(a, ReadPaths|WritePaths, self) },
			"launcher": func() (Filter, error) { return CompileLauncher(a) },
		} {
			filter, err := f()
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, c := range arch.Calls(string(a)) {
				if anyAllowed(filter, c.Number) {
					b.WriteString(c.Name + "\n")
				}
			}
			path := filepath.Join("testdata", fmt.Sprintf("%s-%s.txt", a, name))
			if *update {
				if err := os.WriteFile(path, []byte(b.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != string(want) {
				t.Errorf("%s is not what is compiled (go test -update):\n%s", path, got)
			}
		}
	}
}

// anyAllowed reports whether a call is allowed with some arguments: each alternative
// of the program is reached by one of these.
func anyAllowed(f Filter, nr uint32) bool {
	const thread, glibc = 0xd0f00, 0x3d0f00
	for _, args := range [][]uint64{
		nil, {2, 1, 6}, {1, 5}, {self, 9}, {thread}, {glibc}, {0, 1, 2}, {0, 3}, {0, 0, 3}, {0, 1, 3}, {0, 6, 1}, {0, 41, 26},
		{prSetVMA, prSetVMAAnonName}, {0, fDupFDCloexec}, {0, fGetSeals}, {0, fSetPipeSize}, {0, 0, oReadFlags},
	} {
		if f.Eval(f.Call(nr, args...)) == Allow {
			return true
		}
	}
	return false
}

func TestMonitorNeverAllowed(t *testing.T) {
	// Of the monitor and of its launcher, with any arguments.
	const both = `ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp mount umount2 move_mount fsopen fsmount
		open_tree pivot_root setns unshare bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl
		add_key request_key init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl
		sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex iopl ioperm modify_ldt personality
		open_by_handle_at name_to_handle_at mknod mknodat link linkat symlink symlinkat memfd_create memfd_secret
		process_mrelease fanotify_init socket bind listen connect syslog vhangup lookup_dcookie setxattr`
	// Of the monitor.
	const monitor = `execve execveat fork vfork kill tkill pidfd_open pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
		setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid chroot chdir fchdir seccomp
		landlock_restrict_self prlimit64 setrlimit ioctl umask fchown fchownat chown lchown`
	for _, a := range arches {
		m, err := CompileMonitor(a, everyone, self)
		l, err2 := CompileLauncher(a)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for _, f := range []struct {
			name   string
			filter Filter
			calls  string
		}{{"monitor", m, both + " " + monitor}, {"launcher", l, both}} {
			for name := range strings.FieldsSeq(f.calls) {
				nr, ok := Number(a, name)
				sockets := strings.Contains(" socket bind listen connect ", " "+name+" ")
				if !ok || sockets && f.name == "monitor" {
					continue
				}
				for _, args := range [][]uint64{nil, {0, 0, 0, 0, 0, 0}, {self, 9}, {1, 1, 1, 1, 1, 1}, {2, 1, 6}, {0x50f00}} {
					if got := f.filter.Eval(f.filter.Call(nr, args...)); got != Denied {
						t.Errorf("%s, %s: %s%v: %v", a, f.name, name, args, got)
					}
				}
			}
			for _, nr := range []uint32{9999, 0x3fff_ffff} {
				if got := f.filter.Eval(f.filter.Call(nr)); got != NoSys {
					t.Errorf("%s, %s: call %d: %v", a, f.name, nr, got)
				}
			}
			if got := f.filter.Eval(Data{Arch: 0x4000_0003}); got != Kill {
				t.Errorf("%s, %s: another architecture's: %v", a, f.name, got)
			}
		}
	}
}

func TestMonitorArguments(t *testing.T) {
	const cloexec = 0x80000
	for _, a := range arches {
		f, err := CompileMonitor(a, 0, self)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []verdictCase{
			{0, "socket", []uint64{2, 1 | cloexec, 0}, Allow},
			{0, "socket", []uint64{10, 1 | cloexec, 6}, Allow},
			{0, "socket", []uint64{2, 1, 262}, Allow}, // MPTCP, as net.Listen
			{0, "socket", []uint64{2, 3, 1}, Denied},  // raw
			{0, "socket", []uint64{2, 2, 0}, Denied},  // datagrams
			{0, "socket", []uint64{2, 1, 132}, Denied},
			{0, "socket", []uint64{17, 3, 0}, Denied}, // packet
			{0, "socket", []uint64{16, 3, 0}, Denied}, // netlink
			{0, "socket", []uint64{1, 1, 0}, Denied},  // local services
			{0, "socket", []uint64{2 | 1<<32, 1, 0}, Denied},
			{0, "socketpair", []uint64{1, 5 | cloexec, 0}, Allow},
			{0, "socketpair", []uint64{1, 2, 0}, Denied},
			{0, "setsockopt", []uint64{9, 1, 2}, Allow},
			{0, "setsockopt", []uint64{9, 1, 26}, Denied}, // SO_ATTACH_FILTER
			{0, "setsockopt", []uint64{9, 1, 50}, Denied}, // SO_ATTACH_BPF
			{0, "setsockopt", []uint64{9, 1, 36}, Denied}, // SO_MARK
			{0, "setsockopt", []uint64{9, 0, 1}, Denied},
			{0, "clone", []uint64{0xd0f00}, Allow},
			{0, "clone", []uint64{17}, Denied},
			{0, "clone3", nil, NoSys},
			{0, "mmap", []uint64{0, 4096, 3}, Allow},
			{0, "mmap", []uint64{0, 4096, 5}, Denied},
			{0, "openat", []uint64{0, 0, cloexec}, Refused},
			{0, "openat", []uint64{0, 0, 1 | cloexec}, Denied},
			{0, "capset", nil, Allow},
			{0, "fcntl", []uint64{0, 37}, Allow}, // F_OFD_SETLK
			{0, "fcntl", []uint64{0, 8}, Denied}, // F_SETOWN
			{0, "prctl", []uint64{4, 1}, Denied},
			{0, "tgkill", []uint64{self, 1, 23}, Allow},
			{0, "tgkill", []uint64{self + 1, 1, 23}, Denied},
		} {
			if got := f.Eval(f.Call(mustNumber(t, a, c.call), c.args...)); got != c.want {
				t.Errorf("%s %s%v: %v, want %v", a, c.call, c.args, got, c.want)
			}
		}
	}
}
