package seccomp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-privsep/sallyport/internal/sys"
)

// The tests of this file run children that put themselves under a filter: this
// binary with the arguments child, promises and the name of a deed.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "child" {
		var p Promises
		for i, name := range promiseNames {
			if slices.Contains(strings.Split(os.Args[2], "|"), name) {
				p |= 1 << i
			}
		}
		child(p, os.Args[3], os.Args[4:])
		fmt.Print("done")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// run returns what a child printed and how it ended. Descriptors 3 and up are
// files.
func run(t testing.TB, files []*os.File, p Promises, deed string, args ...string) (out, stderr string, status syscall.WaitStatus) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, append([]string{"child", p.String(), deed}, args...)...)
	cmd.Env = []string{"GOMAXPROCS=4"}
	cmd.WaitDelay = 5 * time.Second
	cmd.ExtraFiles = files
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// A process of which just a thread was killed would hang for ever.
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	return o.String(), e.String(), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func filtered(s syscall.WaitStatus) bool { return s.Signaled() && s.Signal() == syscall.SIGSYS }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func must1[T any](v T, err error) T {
	must(err)
	return v
}

func install(p Promises) { must(must1(Compile(Host(), p, os.Getpid())).Install()) }

// child does the deed under a filter.
func child(p Promises, deed string, args []string) {
	switch deed {
	case "call": // as the name says, raw, with other threads at work
		nr, _ := Number(Host(), args[0])
		for range 4 {
			go func() {
				runtime.LockOSThread()
				for {
					time.Sleep(time.Millisecond)
				}
			}()
		}
		time.Sleep(5 * time.Millisecond)
		install(p)
		_, _, errno := syscall.RawSyscall6(uintptr(nr), 0, 0, 0, 0, 0, 0)
		fmt.Printf("errno %d ", errno)
	case "older thread": // a thread from before the filter is under it too
		ready, goOn := make(chan bool), make(chan bool)
		go func() {
			runtime.LockOSThread()
			ready <- true
			<-goOn
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
			ready <- true
		}()
		<-ready
		install(p)
		goOn <- true
		<-ready
	case "x32":
		install(p)
		_, _, _ = syscall.RawSyscall(0x4000_0000+syscall.SYS_GETPID, 0, 0, 0)
	case "twice":
		install(p)
		fmt.Print(must1(Compile(Host(), p, os.Getpid())).Install())
	case "other filter":
		otherFilter()
	case "differential":
		differential(p)
	case "debug":
		must(must1(CompileDebug(Host(), p, os.Getpid())).Install())
		_, _, _ = syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
	case "fastopen":
		if args[0] == "filtered" {
			install(p)
		}
		fastopen(args[1])
	default:
		deeds[deed](p, args)
	}
}

// deeds do what a promise is for. Each prepares, installs and works.
var deeds = map[string]func(Promises, []string){
	"bench": benchCalls,
	"runtime": func(p Promises, _ []string) {
		f := os.NewFile(3, "channel")
		install(p)
		churn()
		must1(f.Write([]byte("hello")))
		must1(f.Read(make([]byte, 5)))
		must(f.SetReadDeadline(time.Now().Add(2 * time.Millisecond)))
		if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			panic(err)
		}
	},
	"poller first used under the filter": func(p Promises, _ []string) {
		install(p)
		f := os.NewFile(3, "channel")
		must1(f.Write([]byte("hello")))
		must1(f.Read(make([]byte, 5)))
	},
	"lazily opened file": func(p Promises, _ []string) {
		install(p)
		if _, err := os.ReadFile("/etc/hostname"); !errors.Is(err, os.ErrPermission) {
			panic(err)
		}
	},
	"panic": func(p Promises, _ []string) {
		install(p)
		go churn()
		panic("the end")
	},
	"nil pointer": func(p Promises, _ []string) {
		install(p)
		*(*int)(nil) = 1
	},
	"copy without Transfer": func(p Promises, _ []string) {
		install(p)
		must1(io.Copy(os.NewFile(4, "to"), os.NewFile(3, "from")))
	},
	"Streams": func(p Promises, _ []string) {
		f := os.NewFile(3, "conn")
		install(p)
		c := must1(net.FileConn(f)).(*net.TCPConn)
		must(c.SetNoDelay(true))
		must(c.SetReadBuffer(65536))
		must(c.SetWriteBuffer(65536))
		must(c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}))
		must1((&net.Buffers{[]byte("hel"), []byte("lo")}).WriteTo(c))
		must1(io.ReadFull(c, make([]byte, 5)))
		must(c.CloseWrite())
	},
	"Accept": func(p Promises, _ []string) {
		f := os.NewFile(3, "listener")
		install(p)
		c := must1(must1(net.FileListener(f)).Accept())
		must1(io.ReadFull(c, make([]byte, 5)))
	},
	"Transfer": func(p Promises, _ []string) {
		install(p)
		var pipe [2]int
		must(syscall.Pipe2(pipe[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK))
		must1(syscall.Splice(3, nil, pipe[1], nil, 3, 0))
		must1(syscall.Splice(pipe[0], nil, 4, nil, 3, 0))
		must1(syscall.Sendfile(4, 3, nil, 10))
	},
	"Files": func(p Promises, _ []string) {
		install(p)
		f := os.NewFile(4, "file")
		must1(f.Seek(0, io.SeekStart))
		must1(f.WriteAt([]byte("x"), 7))
		must1(f.ReadAt(make([]byte, 1), 7))
		must(f.Truncate(3))
		must(f.Sync())
		must1(f.Stat())
		must(syscall.Flock(4, syscall.LOCK_EX))
		must(syscall.Fallocate(4, 0, 0, 100))
	},
	"ReadPaths": func(p Promises, args []string) {
		install(p)
		must1(os.Stat(args[0]))
		must1(os.Lstat(args[0]))
		must1(os.ReadDir(args[0]))
		must1(os.ReadFile(filepath.Join(args[0], "x")))
		must1(os.Readlink(filepath.Join(args[0], "l")))
		root := must1(os.OpenRoot(args[0]))
		must1(root.Stat("x"))
		must1(root.ReadFile("l"))
		must1(must1(root.Open(".")).ReadDir(-1))
		must1(os.Getwd())
	},
	"WritePaths": func(p Promises, args []string) {
		install(p | ReadPaths&^WritePaths) // os.Root looks before it leaps
		root := must1(os.OpenRoot(args[0]))
		must(root.WriteFile("a", []byte("x"), 0o666))
		must(root.Chmod("a", 0o600))
		must(root.Chtimes("a", time.Now(), time.Now()))
		must(root.MkdirAll("d/e", 0o777))
		must(root.Rename("a", "d/b"))
		must(root.RemoveAll("d"))
		f := must1(os.Create(filepath.Join(args[0], "c")))
		must(f.Chmod(0o644))
		must(os.Truncate(f.Name(), 0))
		must(os.Rename(f.Name(), f.Name()+"2"))
		must(os.Chmod(f.Name()+"2", 0o600))
		must(os.Remove(f.Name() + "2"))
	},
}

// churn makes threads, garbage and timers come and go.
func churn() {
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if i%10 == 0 {
				runtime.LockOSThread() // the thread ends with the goroutine
			}
			garbage := make([][]byte, 32)
			for j := range garbage {
				garbage[j] = make([]byte, 32<<10)
			}
			time.Sleep(time.Duration(i%5) * time.Millisecond)
			for range 2_000_000 { // long enough to be preempted by a signal
				i++
			}
			runtime.KeepAlive(garbage)
		})
	}
	wg.Wait()
	runtime.GC()
	_ = time.Now().String()
}

// tcpPair returns the ends of a loopback connection, of which the second is a
// descriptor to hand over.
func tcpPair(t testing.TB) (*net.TCPConn, *os.File) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := y.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	y.Close()
	t.Cleanup(func() { x.Close(); f.Close() })
	return x.(*net.TCPConn), f
}

func regularFiles(t testing.TB) []*os.File {
	t.Helper()
	from, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	to, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { from.Close(); to.Close() })
	if _, err = from.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	return []*os.File{from, to}
}

// channel returns one end of a socketpair whose other end sends back what it
// gets.
func channel(t testing.TB) *os.File {
	t.Helper()
	a, b, err := sys.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	here, there := os.NewFile(uintptr(a), "a"), os.NewFile(uintptr(b), "b")
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := here.Read(buf)
			if n == 0 || err != nil {
				return
			}
			_, _ = here.Write(buf[:n])
		}
	}()
	t.Cleanup(func() { here.Close(); there.Close() })
	return there
}

// Each promise does what it is for, and its absence is what refuses it.
func TestPromisesInTheKernel(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "x"), []byte("x"), 0o666), os.Symlink("x", filepath.Join(dir, "l"))); err != nil {
		t.Fatal(err)
	}
	stream := func(t *testing.T) []*os.File {
		c, f := tcpPair(t)
		go func() { _, _ = io.Copy(c, c) }()
		return []*os.File{f}
	}
	listener := func(t *testing.T) []*os.File {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			_, err = c.Write([]byte("hello"))
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); f.Close(); c.Close() })
		return []*os.File{f}
	}
	regular := func(t *testing.T) []*os.File { return regularFiles(t) }
	none := func(t *testing.T) []*os.File { return nil }
	for _, c := range []struct {
		promise Promises
		with    Promises // beside it
		files   func(*testing.T) []*os.File
		without string // what happens without the promise, "" for SIGSYS
	}{
		{Streams, 0, stream, ""},
		{Accept, Streams, listener, ""},
		{Transfer, 0, regular, "function not implemented"},
		{Files, 0, regular, ""},
		{ReadPaths, 0, none, ""},
		{WritePaths, ReadPaths, none, ""},
	} {
		t.Run(c.promise.String(), func(t *testing.T) {
			if out, stderr, status := run(t, c.files(t), c.promise|c.with, c.promise.String(), dir); out != "done" {
				t.Errorf("with the promise: %q, status %#x\n%s", out, status, stderr)
			}
			out, stderr, status := run(t, c.files(t), c.with, c.promise.String(), dir)
			if c.without == "" && !filtered(status) || !strings.Contains(stderr, c.without) || out == "done" {
				t.Errorf("without the promise: %q, status %#x\n%s", out, status, stderr)
			}
		})
	}
}

func TestRuntimeNeedsNoPromise(t *testing.T) {
	for _, deed := range []string{"runtime", "poller first used under the filter", "lazily opened file"} {
		if out, stderr, status := run(t, []*os.File{channel(t)}, 0, deed); out != "done" {
			t.Errorf("%s: %q, status %#x\n%s", deed, out, status, stderr)
		}
	}
	if out, stderr, status := run(t, regularFiles(t), 0, "copy without Transfer"); out != "done" {
		t.Errorf("%q, status %#x\n%s", out, status, stderr)
	}
}

func TestCrashIsReadable(t *testing.T) {
	for deed, want := range map[string]string{"panic": "panic: the end", "nil pointer": "invalid memory address"} {
		_, stderr, status := run(t, nil, 0, deed)
		if !status.Exited() || status.ExitStatus() != 2 || !strings.Contains(stderr, want) || !strings.Contains(stderr, "kernel_linux_test.go") {
			t.Errorf("%s: status %#x\n%s", deed, status, stderr)
		}
	}
}

// The whole process must die, whichever thread it was.
func TestForbiddenCallsKill(t *testing.T) {
	for _, name := range strings.Fields(`socket connect bind execve ptrace kill mount setuid ioctl io_uring_setup bpf
		unshare seccomp memfd_create mkdirat getpgid`) {
		out, stderr, status := run(t, nil, everyone&^(ReadPaths|WritePaths), "call", name)
		if !filtered(status) || out != "" {
			t.Errorf("%s: %q, status %#x\n%s", name, out, status, stderr)
		}
	}
	for _, deed := range []string{"older thread", "twice"} {
		if out, stderr, status := run(t, nil, everyone, deed); !filtered(status) || out != "" {
			t.Errorf("%s: %q, status %#x\n%s", deed, out, status, stderr)
		}
	}
	if Host() == AMD64 {
		if out, stderr, status := run(t, nil, everyone, "x32"); !filtered(status) {
			t.Errorf("x32: %q, status %#x\n%s", out, status, stderr)
		}
	}
	if out, stderr, status := run(t, nil, 0, "call", "clone3"); out != fmt.Sprintf("errno %d done", syscall.ENOSYS) {
		t.Errorf("clone3: %q, status %#x\n%s", out, status, stderr)
	}
}

func TestDebugPrintsTheStack(t *testing.T) {
	_, stderr, status := run(t, nil, 0, "debug")
	for _, want := range []string{"SIGSYS: bad system call", "seccomp.child("} {
		if !strings.Contains(stderr, want) {
			t.Errorf("no %q, status %#x:\n%s", want, status, stderr)
		}
	}
	if want := fmt.Sprintf("rax    %#x\n", syscall.SYS_GETPGID); Host() == AMD64 && !strings.Contains(stderr, want) {
		t.Errorf("no %q:\n%s", want, stderr)
	}
}

// Kernel and Eval must agree about every number. What the filter would kill
// for gets an error of its own here; what it allows is not called.
func TestKernelAgreesWithEval(t *testing.T) {
	for _, p := range []Promises{0, everyone} {
		out, stderr, status := run(t, nil, p, "differential")
		if !strings.HasSuffix(out, "done") || stderr != "" {
			t.Errorf("%v: status %#x: %s%s", p, status, out, stderr)
		}
		t.Log(p, out)
	}
}

func differential(p Promises) {
	const killed = 0x0005_0000 | 99
	f := must1(compile(Host(), p, os.Getpid(), killed))
	must(f.Install())
	n := 0
	try := func(nr uint32, args ...uint64) {
		args = append(args, make([]uint64, 6)...)
		want := f.Eval(f.Call(nr, args...))
		if want == Allow || Host() == AMD64 && (nr == 335 || nr == 336) {
			return // uretprobe and uprobe: the kernel asks no filter, and gives SIGILL to all but its own trampolines
		}
		n++
		_, _, errno := syscall.RawSyscall6(uintptr(nr), uintptr(args[0]), uintptr(args[1]), uintptr(args[2]),
			uintptr(args[3]), uintptr(args[4]), uintptr(args[5]))
		if Action(0x0005_0000|uint32(errno)) != want {
			println("call", nr, "errno", errno, "not", want&0xffff)
		}
	}
	for nr := range uint32(1024) {
		try(nr)
		try(nr|0x4000_0000, 0)
		for arg := range 6 {
			var args [6]uint64
			args[arg] = 1 << 32 // what a filter of low words would take for 0
			try(nr, args[:]...)
		}
	}
	for _, r := range Host().rules(uint64(os.Getpid())) {
		for _, name := range r.names() {
			nr, _ := Number(Host(), name)
			var args [6]uint64
			for _, c := range r.when {
				args[c.arg] = c.values[0]
			}
			for _, c := range r.when {
				for bit := range 64 {
					attack := args
					attack[c.arg] ^= 1 << bit
					try(nr, attack[:]...)
				}
			}
		}
	}
	fmt.Printf("%d calls ", n)
}

// A listening socket that was shut down connects with sendmsg. The control
// shows that it does on this kernel.
func TestSendmsgIsNoConnect(t *testing.T) {
	for _, c := range []struct {
		mode      string
		connected bool
	}{{"unfiltered", true}, {"filtered", false}} {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		handed, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := handed.File()
		handed.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out, stderr, status := run(t, []*os.File{f}, everyone, "fastopen", c.mode, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
		_ = l.SetDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = l.Accept()
		if (err == nil) != c.connected || filtered(status) == c.connected {
			t.Errorf("%s: %q, status %#x, accept: %v\n%s", c.mode, out, status, err, stderr)
		}
	}
}

func fastopen(port string) {
	const msgFastopen = 0x20000000
	var n int
	_, _ = fmt.Sscan(port, &n)
	must(syscall.Shutdown(3, syscall.SHUT_RD)) // it listens no longer, and is like new
	data := [1]byte{'x'}
	iov := syscall.Iovec{Base: &data[0], Len: 1}
	name := [16]byte{syscall.AF_INET, 0, byte(n >> 8), byte(n), 127, 0, 0, 1}
	msg := syscall.Msghdr{Name: &name[0], Namelen: uint32(len(name)), Iov: &iov, Iovlen: 1}
	_, _, errno := syscall.Syscall(syscall.SYS_SENDMSG, 3, uintptr(unsafe.Pointer(&msg)), msgFastopen)
	fmt.Print(errno.Error(), " ")
}

// A thread under a filter that the others lack can't be put under this one
// without losing its own: nothing may be installed.
func TestThreadUnderAnotherFilter(t *testing.T) {
	if out, stderr, _ := run(t, nil, 0, "other filter"); out != "done" {
		t.Errorf("%q\n%s", out, stderr)
	}
}

func otherFilter() {
	tid, hold := make(chan int), make(chan bool)
	go func() {
		runtime.LockOSThread()
		allow := sys.BPF{Code: returnWord, K: uint32(Allow)}
		prog := struct {
			n       uint16
			program *sys.BPF
		}{1, &allow}
		const setNoNewPrivs, setSeccomp, modeFilter = 38, 22, 2
		_, _, e1 := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0)
		_, _, e2 := syscall.RawSyscall(syscall.SYS_PRCTL, setSeccomp, modeFilter, uintptr(unsafe.Pointer(&prog)))
		if e1 != 0 || e2 != 0 {
			panic(e2)
		}
		tid <- syscall.Gettid()
		<-hold
	}()
	thread := <-tid
	err := must1(Compile(Host(), 0, os.Getpid())).Install()
	var failed *InstallError
	if !errors.As(err, &failed) || failed.Thread != thread || errors.Is(err, errors.ErrUnsupported) {
		panic(fmt.Sprintf("thread %d: %v", thread, err))
	}
	_ = must1(os.Stat("/")) // nothing is in force
}

func TestInstallErrors(t *testing.T) {
	for _, c := range []struct {
		err         *InstallError
		unsupported bool
	}{
		{&InstallError{Err: syscall.ENOSYS}, true},
		{&InstallError{Err: syscall.EINVAL}, true},
		{&InstallError{Err: syscall.EOPNOTSUPP}, true},
		{&InstallError{Err: syscall.EACCES}, false},
		{&InstallError{Err: syscall.ENOMEM}, false},
		{&InstallError{Thread: 7}, false},
	} {
		if got := errors.Is(c.err, errors.ErrUnsupported); got != c.unsupported {
			t.Errorf("%v: unsupported is %v", c.err, got)
		}
	}
	foreign := ARM64
	if Host() == ARM64 {
		foreign = AMD64
	}
	if err := mustCompile(t, foreign, 0).Install(); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("filter for %s: %v", foreign, err)
	}
}
