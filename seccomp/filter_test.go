package seccomp

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/arch"
	"github.com/go-privsep/sallyport/internal/sys"
)

var update = flag.Bool("update", false, "write testdata")

const (
	self     = 4711
	everyone = end - 1
)

var arches = []Arch{AMD64, ARM64}

func mustCompile(t testing.TB, a Arch, p Promises) Filter {
	t.Helper()
	f, err := Compile(a, p, self)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustNumber(t testing.TB, a Arch, name string) uint32 {
	t.Helper()
	nr, ok := Number(a, name)
	if !ok {
		t.Fatalf("%s has no %s", a, name)
	}
	return nr
}

// What each promise opens is a matter for review: one line a call.
func TestGolden(t *testing.T) {
	for _, a := range arches {
		for p := Promises(0); p < end; p = max(1, p<<1) {
			var b strings.Builder
			for _, c := range arch.Calls(string(a)) {
				now, before := alternatives(a, p, c.Name), alternatives(a, 0, c.Name)
				if allows(now) == 0 || p != 0 && reflect.DeepEqual(now, before) {
					continue
				}
				b.WriteString(c.Name)
				if len(now) > 1 {
					b.WriteString(" by its arguments")
				}
				b.WriteByte('\n')
			}
			name := filepath.Join("testdata", fmt.Sprintf("%s-%v.txt", a, p))
			if *update {
				if err := os.WriteFile(name, []byte(b.String()), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := b.String(); got != string(want) {
				t.Errorf("%s is not what is compiled (go test -update):\n%s", name, got)
			}
		}
	}
}

// A misspelled call would be a rule that never applies.
func TestRulesNameRealCalls(t *testing.T) {
	for _, a := range arches {
		for _, r := range a.rules(self) {
			for _, name := range r.names() {
				if _, ok := Number(a, name); !ok && !(a == ARM64 && name == "arch_prctl") {
					t.Errorf("%s has no %s", a, name)
				}
			}
			for _, c := range r.when {
				if len(c.values) == 0 || c.arg < 0 || c.arg > 5 {
					t.Errorf("%s: condition %+v", r.calls, c)
				}
				for _, v := range c.values {
					if v>>32 != c.values[0]>>32 || v&^c.mask != 0 {
						t.Errorf("%s: condition %+v can't hold for %#x", r.calls, c, v)
					}
				}
			}
		}
	}
}

func TestNeverAllowed(t *testing.T) {
	const never = `socket socketpair connect bind listen execve execveat fork vfork ptrace kill tkill rt_sigqueueinfo
		rt_tgsigqueueinfo pidfd_open pidfd_getfd pidfd_send_signal mount umount2 move_mount fsopen open_tree pivot_root chroot
		setns unshare setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset personality
		ioctl io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd keyctl add_key request_key
		process_vm_readv process_vm_writev process_madvise process_mrelease init_module finit_module kexec_load reboot
		open_by_handle_at name_to_handle_at mknod mknodat link linkat symlink symlinkat chown fchownat fchown lchown
		open creat memfd_create memfd_secret pkey_mprotect shmat shmget mremap2 vmsplice tee sendmmsg recvmmsg accept
		seccomp landlock_restrict_self prlimit64 setrlimit iopl ioperm modify_ldt arch_prctl setxattr fsetxattr
		swapon acct quotactl fanotify_init inotify_init1 msgget semget mq_open timer_create setitimer`
	for _, a := range arches {
		f := mustCompile(t, a, everyone)
		for name := range strings.FieldsSeq(never) {
			nr, ok := Number(a, name)
			if !ok {
				continue
			}
			for _, args := range [][]uint64{nil, {0, 0, 0, 0, 0, 0}, {self, 9}, {1, 1, 1, 1, 1, 1}, {0x50f00}} {
				if got := f.Eval(f.Call(nr, args...)); got != Kill {
					t.Errorf("%s %s%v: %v", a, name, args, got)
				}
			}
		}
	}
}

type verdictCase struct {
	promises Promises
	call     string
	args     []uint64
	want     Action
}

func TestArguments(t *testing.T) {
	const goClone, glibcClone = 0xd0f00, 0x3d0f00
	directory, direct := map[Arch]uint64{AMD64: 0x10000, ARM64: 0x4000}, map[Arch]uint64{AMD64: 0x4000, ARM64: 0x10000}
	for _, a := range arches {
		cases := []verdictCase{
			{0, "clone", []uint64{goClone}, Allow},
			{0, "clone", []uint64{0x50f00}, Allow},
			{0, "clone", []uint64{glibcClone}, Allow},
			{0, "clone", []uint64{17}, Kill},                         // fork
			{0, "clone", []uint64{0x4111}, Kill},                     // vfork
			{0, "clone", []uint64{goClone &^ 0x10000}, Kill},         // another process, in the same memory
			{0, "clone", []uint64{goClone | 0x1000_0000}, Kill},      // CLONE_NEWUSER
			{0, "clone", []uint64{goClone | 0x2000}, Kill},           // CLONE_PTRACE
			{0, "clone", []uint64{goClone | 0x1_0000_0000<<1}, Kill}, // CLONE_INTO_CGROUP
			{0, "clone3", nil, NoSys},
			{0, "openat2", nil, NoSys},
			{everyone, "openat2", nil, NoSys},
			{0, "mmap", []uint64{0, 4096, 3, 0x22, ^uint64(0)}, Allow},
			{0, "mmap", []uint64{0, 4096, 0, 0x22, ^uint64(0)}, Allow},
			{everyone, "mmap", []uint64{0, 4096, 4}, Kill},
			{everyone, "mmap", []uint64{0, 4096, 7}, Kill},
			{everyone, "mprotect", []uint64{0, 4096, 5}, Kill},
			{0, "mprotect", []uint64{0, 4096, 1}, Allow},
			{0, "tgkill", []uint64{self, 1, 23}, Allow},
			{0, "tgkill", []uint64{1, 1, 9}, Kill},
			{0, "tgkill", []uint64{^uint64(0), 1, 9}, Kill},
			{0, "prctl", []uint64{prSetVMA, 0}, Allow},
			{0, "prctl", []uint64{4, 1}, Kill}, // PR_SET_DUMPABLE
			{0, "fcntl", []uint64{3, fSetFL, 0x800}, Allow},
			{0, "fcntl", []uint64{3, fSetFL, oAsync}, Kill},
			{0, "fcntl", []uint64{3, 8, self}, Kill}, // F_SETOWN
			{0, "fcntl", []uint64{3, fSetPipeSize}, Kill},
			{Transfer, "fcntl", []uint64{3, fSetPipeSize}, Allow},
			{0, "sendmsg", []uint64{3, 1, 0x4040}, Allow},
			{everyone, "sendmsg", []uint64{3, 1, 0x2000_0000}, Kill}, // MSG_FASTOPEN
			{everyone, "sendmsg", []uint64{3, 1, 1}, Kill},           // MSG_OOB
			{everyone, "recvmsg", []uint64{3, 1, 1}, Kill},
			{0, "recvmsg", []uint64{3, 1, 0x4000_0040}, Allow},
			{0, "sendto", nil, Kill},
			{Streams, "sendto", []uint64{3, 1, 1, 0x4000, 0, 0}, Allow},
			{Streams, "sendto", []uint64{3, 1, 1, 0x4000, 0xc000, 16}, Kill},
			{Streams, "sendto", []uint64{3, 1, 1, 0x2000_4000}, Kill},
			{Streams, "recvfrom", []uint64{3, 1, 1, 2}, Allow},
			{Streams, "setsockopt", []uint64{3, 1, 9}, Allow},
			{Streams, "setsockopt", []uint64{3, 6, 18}, Allow},
			{Streams, "setsockopt", []uint64{3, 1, 18}, Kill},
			{Streams, "setsockopt", []uint64{3, 6, 31}, Kill}, // TCP_ULP
			{Streams, "setsockopt", []uint64{3, 1, 26}, Kill}, // SO_ATTACH_FILTER
			{Streams, "getsockopt", []uint64{3, 6, 11}, Allow},
			{Streams, "getsockopt", []uint64{3, 0, 64}, Kill}, // IPT_SO_GET_INFO
			{Accept, "accept4", []uint64{3, 0, 0, 0x80800}, Allow},
			{Accept, "accept4", []uint64{3, 0, 0, 1}, Kill},
			{everyone &^ Accept, "accept4", []uint64{3, 0, 0, 0x80800}, Kill},
			{0, "splice", nil, NoSys},
			{0, "pipe2", []uint64{0, 0x80800}, NoSys},
			{Transfer, "pipe2", []uint64{0, 0x80800}, Allow},
			{Transfer, "pipe2", []uint64{0, 0x80}, NoSys}, // O_NOTIFICATION_PIPE
			{0, "openat", []uint64{1, 1, oCloexec, 0}, Refused},
			{0, "openat", []uint64{1, 1, 0, 0}, Refused},
			{0, "openat", []uint64{1, 1, 2, 0}, Kill},
			{0, "openat", []uint64{1, 1, 1 << 32, 0}, Kill},
			{0, "openat", []uint64{1, 1, oCloexec | 1, 0}, Kill},
			{ReadPaths, "openat", []uint64{^uint64(99), 1, oCloexec | directory[a]}, Allow},
			{ReadPaths, "openat", []uint64{1, 1, oCloexec | direct[a]}, Kill},
			{ReadPaths, "openat", []uint64{1, 1, oCloexec | 1}, Kill},
			{ReadPaths, "openat", []uint64{1, 1, oCloexec | 0x40}, Kill},
			{ReadPaths, "openat", []uint64{1, 1, oCloexec | 0x200}, Kill},                  // O_TRUNC with O_RDONLY truncates
			{everyone, "openat", []uint64{1, 1, oCloexec | 0x200000}, Kill},                // O_PATH
			{everyone, "openat", []uint64{1, 1, 2 | 0x400000 | directory[a], 0o600}, Kill}, // O_TMPFILE
			{WritePaths, "openat", []uint64{1, 1, 0x241 | oCloexec, 0o666}, Allow},
			{WritePaths, "openat", []uint64{1, 1, 0x241 | oCloexec, 0o4755}, Kill},
			{WritePaths, "fchmodat", []uint64{1, 1, 0o755}, Allow},
			{WritePaths, "fchmodat", []uint64{1, 1, 0o4755}, Kill},
			{WritePaths, "fchmod", []uint64{1, 0o2755}, Kill},
			{WritePaths, "mkdirat", []uint64{1, 1, 0o777}, Allow},
			{WritePaths, "renameat2", []uint64{1, 1, 1, 1, 1}, Allow},
			{WritePaths, "renameat2", []uint64{1, 1, 1, 1, 4}, Kill}, // RENAME_WHITEOUT
			{ReadPaths, "unlinkat", nil, Kill},
			{Files, "pwrite64", nil, Allow},
			{everyone &^ Files, "pwrite64", nil, Kill},
			{Files, "lseek", nil, Allow},
			{ReadPaths, "lseek", nil, Allow},
			{WritePaths, "lseek", nil, Kill},
		}
		for _, c := range cases {
			f := mustCompile(t, a, c.promises)
			if got := f.Eval(f.Call(mustNumber(t, a, c.call), c.args...)); got != c.want {
				t.Errorf("%s, %v: %s%#x: got %v, want %v", a, c.promises, c.call, c.args, got, c.want)
			}
		}
	}
}

// lowWordsOnly is the mistake of filters that load just the low word of an
// argument, made to a filter of this package.
func lowWordsOnly(f Filter) Filter {
	f.program = slices.Clone(f.program)
	for i, in := range f.program {
		if in.Code == loadWord && in.K >= offsetArgs && in.K%8 == 4 {
			f.program[i] = sys.BPF{Code: andWord} // the word is 0
		}
	}
	return f
}

// Any bit set in the high word of an argument under a condition must make the
// condition fail. The control shows that the attack would pass otherwise.
func TestBothWords(t *testing.T) {
	for _, a := range arches {
		tried := 0
		for _, r := range a.rules(self) {
			if len(r.when) == 0 || r.do != 0 {
				continue
			}
			f := mustCompile(t, a, r.promise)
			control := lowWordsOnly(f)
			var args [6]uint64
			for _, c := range r.when {
				args[c.arg] = c.values[0]
			}
			for _, name := range r.names() {
				nr := mustNumber(t, a, name)
				if got := f.Eval(f.Call(nr, args[:]...)); got != Allow {
					t.Errorf("%s %s%#x: %v", a, name, args, got)
				}
				for _, c := range r.when {
					if c.mask>>32 == 0 || c.mask == oAsync {
						continue
					}
					attack := args
					attack[c.arg] |= 1 << (32 + rand.N(32))
					tried++
					if got := f.Eval(f.Call(nr, attack[:]...)); got == Allow {
						t.Errorf("%s %s%#x: %v", a, name, attack, got)
					}
					if got := control.Eval(f.Call(nr, attack[:]...)); got != Allow {
						t.Errorf("%s %s%#x: the control shows nothing: %v", a, name, attack, got)
					}
				}
			}
		}
		if tried < 20 {
			t.Errorf("%s: %d attacks", a, tried)
		}
	}
}

func TestForeignConventions(t *testing.T) {
	for _, a := range arches {
		f := mustCompile(t, a, everyone)
		read := f.Call(mustNumber(t, a, "read"))
		if got := f.Eval(read); got != Allow {
			t.Errorf("%s read: %v", a, got)
		}
		for _, audit := range []uint32{0, 0x40000003 /* i386 */, 0x40000028 /* arm */, 0xc000003e, 0xc00000b7, 0x8000003e, ^uint32(0)} {
			d := read
			d.Arch = audit
			if got := f.Eval(d); audit != read.Arch && got != Kill {
				t.Errorf("%s read as %#x: %v", a, audit, got)
			}
		}
	}
	f := mustCompile(t, AMD64, everyone)
	for _, nr := range []uint32{0x4000_0000, 0x4000_0001, 0x4000_0000 + 512, 0x4000_0000 + 999, 0x7fff_ffff, 0x8000_0000, ^uint32(0)} {
		if got := f.Eval(f.Call(nr)); got != Kill {
			t.Errorf("x32 call %#x: %v", nr, got)
		}
	}
}

func TestUnknownNumbers(t *testing.T) {
	for _, a := range arches {
		f := mustCompile(t, a, everyone)
		check := func(nr uint32) {
			want := NoSys
			if _, known := Name(a, nr); known {
				return
			} else if a == AMD64 && nr >= 0x4000_0000 {
				want = Kill
			}
			if got := f.Eval(f.Call(nr)); got != want {
				t.Errorf("%s call %d: got %v, want %v", a, nr, got, want)
			}
		}
		for nr := range uint32(1024) {
			check(nr)
		}
		for range 10000 {
			check(rand.Uint32())
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	if _, err := Compile("riscv64", 0, self); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("riscv64: %v", err)
	}
	if _, err := Compile("", 0, self); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("no architecture: %v", err)
	}
	for _, pid := range []int{0, -1} {
		if _, err := Compile(AMD64, 0, pid); err == nil {
			t.Errorf("process %d: no error", pid)
		}
	}
	if _, err := Compile(AMD64, end, self); err == nil || !strings.Contains(err.Error(), "0x40") {
		t.Errorf("unknown promise: %v", err)
	}
	if got := (Filter{}).Eval(Data{}); got != Kill {
		t.Errorf("the zero Filter: %v", got)
	}
	if err := (Filter{}).Install(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("installing the zero Filter: %v", err)
	}
}

func TestCompileIsDeterministic(t *testing.T) {
	for _, a := range arches {
		for p := range end {
			x, y := mustCompile(t, a, p), mustCompile(t, a, p)
			if !slices.Equal(x.program, y.program) {
				t.Fatalf("%s %v differs", a, p)
			}
			if len(x.program) > 1000 {
				t.Errorf("%s %v: %d instructions", a, p, len(x.program))
			}
		}
	}
}

func TestDebugAllowsNoMore(t *testing.T) {
	for _, a := range arches {
		f := mustCompile(t, a, ReadPaths)
		debug, err := CompileDebug(a, ReadPaths, self)
		if err != nil {
			t.Fatal(err)
		}
		for nr := range uint32(1024) {
			want := f.Eval(f.Call(nr))
			if want == Kill {
				want = Trap
			}
			if got := debug.Eval(f.Call(nr)); got != want {
				t.Errorf("%s call %d: got %v, want %v", a, nr, got, want)
			}
		}
	}
}

// A conditional jump has 8 bits; one place further must not wrap around.
func TestJumpsOfAnyLength(t *testing.T) {
	for n := range 600 {
		var s assembler
		far := s.ret(Allow)
		for range n {
			s.emit(sys.BPF{Code: returnWord, K: uint32(Kill)}) // lands here if a jump is short
		}
		near := s.ret(NoSys)
		var entry label
		if n%2 == 0 {
			entry = s.jump(jumpEqual, 7, far, near)
		} else {
			entry = s.jump(jumpEqual, 7, near, far)
		}
		s.load(offsetNumber, entry)
		f := Filter{arch: AMD64, program: s.program()}
		yes, no := Allow, NoSys
		if n%2 == 1 {
			yes, no = no, yes
		}
		if got := f.Eval(f.Call(7)); got != yes {
			t.Fatalf("%d between: taken: got %v, want %v", n, got, yes)
		}
		if got := f.Eval(f.Call(8)); got != no {
			t.Fatalf("%d between: not taken: got %v, want %v", n, got, no)
		}
	}
}

func TestProgramLimit(t *testing.T) {
	var s assembler
	for range maxProgram + 1 {
		s.emit(sys.BPF{Code: returnWord})
	}
	if s.err() == nil {
		t.Error("no error beyond BPF_MAXINSNS")
	}
}

func TestStrings(t *testing.T) {
	for p, want := range map[Promises]string{
		0: "none", Streams: "Streams", Files | Streams: "Streams|Files", WritePaths: "WritePaths",
		end | Accept: "Accept|Promises(0x40)",
	} {
		if got := p.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if 1<<len(promiseNames) != end {
		t.Errorf("%d names for promises up to %#x", len(promiseNames), uint64(end))
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		promises Promises
		call     string
		want     string
	}{
		{0, "read", "read: allowed"},
		{0, "socket", "socket: killed; no promise allows it"},
		{everyone, "socket", "socket: killed; no promise allows it"},
		{0, "pwrite64", "pwrite64: killed; Files allows it"},
		{0, "lseek", "lseek: killed; Files or ReadPaths allows it"},
		{0, "clone3", "clone3: answered with ENOSYS; no promise allows it"},
		{0, "clone", "clone: allowed or killed, by its arguments; no promise allows more"},
		{0, "splice", "splice: answered with ENOSYS; Transfer allows it"},
		{0, "fcntl", "fcntl: allowed or killed, by its arguments; Transfer allows more"},
		{0, "openat", "openat: answered with EACCES or killed, by its arguments; ReadPaths or WritePaths allows it"},
		{ReadPaths, "openat", "openat: allowed or killed, by its arguments; WritePaths allows more"},
		{ReadPaths | WritePaths, "openat", "openat: allowed or killed, by its arguments; no promise allows more"},
	} {
		for _, a := range arches {
			if got := Explain(a, c.promises, mustNumber(t, a, c.call)); got != c.want {
				t.Errorf("%s %v:\n got %q\nwant %q", a, c.promises, got, c.want)
			}
		}
	}
	if got, want := Explain(AMD64, 0, 9999), `call 9999: unknown on "amd64", answered with ENOSYS`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
