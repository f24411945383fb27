package ipc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// An object is a descriptor and every kind that it is of.
type object struct {
	name string
	file *os.File
	are  []Kind
}

// objects makes real descriptors of every sort that a worker might send.
func objects(t *testing.T) (all []object) {
	t.Helper()
	dir := t.TempDir()
	add := func(name string, f *os.File, err error, are ...Kind) *os.File {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		t.Cleanup(func() { _ = f.Close() })
		all = append(all, object{name, f, are})
		return f
	}
	addFD := func(name string, fd int, err error, are ...Kind) *os.File {
		t.Helper()
		return add(name, os.NewFile(uintptr(fd), name), err, are...)
	}
	open := func(name, path string, flags int, are ...Kind) *os.File {
		t.Helper()
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
		return addFD(name, fd, err, are...)
	}
	path := func(name string) string { return filepath.Join(dir, name) }

	// TCP.
	for _, tt := range []struct {
		network, address string
		multipath        bool
	}{{"tcp4", "127.0.0.1:0", false}, {"tcp6", "[::1]:0", false}, {"tcp4", "127.0.0.1:0", true}} {
		name := fmt.Sprintf("%s (multipath %t)", tt.network, tt.multipath)
		var lc net.ListenConfig
		lc.SetMultipathTCP(tt.multipath)
		ln, err := lc.Listen(t.Context(), tt.network, tt.address)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		add(name+" listener", f, err, KindListener)
		client, server := dialed(t, ln, tt.multipath)
		f, err = client.File()
		add(name+" connected", f, err, KindStream)
		f, err = server.File()
		add(name+" accepted", f, err, KindStream)

		client, server = dialed(t, ln, tt.multipath)
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("%s: a half-closed connection: %v", name, err)
		}
		f, err = server.File()
		add(name+" half closed", f, err, KindStream)

		client, server = dialed(t, ln, tt.multipath)
		f, err = server.File()
		add(name+" reset", f, err)
		reset(t, client, server)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	addFD("tcp unconnected", fd, err)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	addFD("tcp bound", fd, errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})))

	// Other sockets.
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	addFD("udp", fd, err)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	addFD("udp connected", fd, errors.Join(err, unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9})))
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	addFD("netlink", fd, err)
	for _, tt := range []struct {
		name string
		typ  int
		pair []Kind
	}{{"stream", unix.SOCK_STREAM, []Kind{KindUnixStream}}, {"dgram", unix.SOCK_DGRAM, nil}, {"seqpacket", unix.SOCK_SEQPACKET, []Kind{KindChannel}}} {
		name, typ := "unix "+tt.name, tt.typ|unix.SOCK_CLOEXEC
		fds, err := unix.Socketpair(unix.AF_UNIX, typ, 0)
		addFD(name+" pair", fds[0], err, tt.pair...)
		addFD(name+" pair, other end", fds[1], err, tt.pair...)
		fds, err = unix.Socketpair(unix.AF_UNIX, typ, 0)
		addFD(name+" pair, other end gone", fds[0], errors.Join(err, unix.Close(fds[1])), tt.pair...)
		fd, err := unix.Socket(unix.AF_UNIX, typ, 0)
		addFD(name+" unconnected", fd, err)
		fd, err = unix.Socket(unix.AF_UNIX, typ, 0)
		err = errors.Join(err, unix.Bind(fd, &unix.SockaddrUnix{Name: path(tt.name)}))
		if tt.name != "dgram" {
			err = errors.Join(err, unix.Listen(fd, 1))
		}
		addFD(name+" listener", fd, err)
	}
	open("O_PATH of a socket", path("stream"), unix.O_PATH)

	// Pipes.
	r, w, err := os.Pipe()
	add("pipe, read end", r, err, KindPipeRead)
	add("pipe, write end", w, err, KindPipeWrite)
	open("pipe, both ends", fmt.Sprintf("/proc/self/fd/%d", r.Fd()), unix.O_RDWR)
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	open("fifo, read end", path("fifo"), unix.O_RDONLY)
	open("fifo, write end", path("fifo"), unix.O_WRONLY)

	// Files.
	open("file to write", path("file"), unix.O_WRONLY|unix.O_CREAT, KindRegular)
	open("file to read and write", path("file"), unix.O_RDWR, KindRegular)
	open("file to append to", path("file"), unix.O_WRONLY|unix.O_APPEND, KindRegular)
	open("file to read", path("file"), unix.O_RDONLY, KindRegular, KindRegularRead)
	open("file with no access", path("file"), 3) // O_ACCMODE, for ioctl alone (open(2))
	all[len(all)-1].are = []Kind{KindRegular}
	open("file without a name", dir, unix.O_TMPFILE|unix.O_RDWR, KindRegular)
	open("directory", dir, unix.O_RDONLY|unix.O_DIRECTORY, KindDirectory)
	open("O_PATH of a file", path("file"), unix.O_PATH)
	open("O_PATH of a directory", dir, unix.O_PATH)
	if err := os.Symlink("file", path("link")); err != nil {
		t.Fatal(err)
	}
	open("O_PATH of a symbolic link", path("link"), unix.O_PATH|unix.O_NOFOLLOW)
	open("/dev/null", "/dev/null", unix.O_RDWR)
	open("/dev/zero", "/dev/zero", unix.O_RDONLY)
	open("terminal", "/dev/ptmx", unix.O_RDWR)

	// What only looks like a file.
	open("/proc file", "/proc/self/status", unix.O_RDONLY)
	open("/proc/self/mem", "/proc/self/mem", unix.O_RDWR)
	open("/proc/self/uid_map", "/proc/self/uid_map", unix.O_RDWR)
	open("/proc directory", "/proc/self/fd", unix.O_RDONLY)
	open("/sys file", "/sys/kernel/notes", unix.O_RDONLY)
	open("/sys directory", "/sys/kernel", unix.O_RDONLY)
	open("namespace", "/proc/self/ns/net", unix.O_RDONLY)

	// Memory.
	for name, tt := range map[string]struct{ flags, seals int }{
		"memfd that can't be sealed":  {0, 0},
		"memfd unsealed":              {unix.MFD_ALLOW_SEALING, 0},
		"memfd sealed but for writes": {unix.MFD_ALLOW_SEALING, unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW},
		"memfd sealed, to be resized": {unix.MFD_ALLOW_SEALING, unix.F_SEAL_SEAL | unix.F_SEAL_WRITE},
		"memfd with one seal missing": {unix.MFD_ALLOW_SEALING, unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE},
		"memfd sealed for the future": {unix.MFD_ALLOW_SEALING, unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_FUTURE_WRITE},
	} {
		fd, err := unix.MemfdCreate("memfd", unix.MFD_CLOEXEC|tt.flags)
		addFD(name, fd, errors.Join(err, seal(fd, tt.seals)), KindRegular)
	}
	fd, err = unix.MemfdCreate("memfd", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	sealed := addFD("memfd sealed", fd, errors.Join(err, seal(fd, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)), KindRegular, KindMemfd)
	open("memfd sealed, to read", fmt.Sprintf("/proc/self/fd/%d", sealed.Fd()), unix.O_RDONLY, KindRegular, KindRegularRead, KindMemfd)
	open("file in shared memory", "/dev/shm", unix.O_TMPFILE|unix.O_RDWR, KindRegular)

	// Handles of the kernel.
	fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	addFD("epoll", fd, err)
	fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC)
	addFD("eventfd", fd, err)
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	addFD("timerfd", fd, err)
	fd, err = unix.Signalfd(-1, &unix.Sigset_t{}, unix.SFD_CLOEXEC)
	addFD("signalfd", fd, err)
	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC)
	addFD("inotify", fd, err)
	fd, err = unix.PidfdOpen(os.Getpid(), 0)
	addFD("pidfd", fd, err, KindProcess)
	// secretmem.enable=0 on the kernel's command line, and not a fact about
	// kinds, makes it ENOSYS.
	if fd, err = unix.MemfdSecret(unix.O_CLOEXEC); err != unix.ENOSYS {
		addFD("secret memory", fd, err)
	}
	closed, err := os.Open(dir)
	add("closed", closed, err)
	closed.Close()
	add("nil", nil, nil)
	return all
}

func seal(fd, seals int) error {
	if seals == 0 {
		return nil
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	return err
}

// dialed returns the two ends of a connection to ln.
func dialed(t *testing.T, ln net.Listener, multipath bool) (client, server *net.TCPConn) {
	t.Helper()
	var d net.Dialer
	d.SetMultipathTCP(multipath)
	c, err := d.DialContext(t.Context(), ln.Addr().Network(), ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// reset makes the client reset the connection, and waits until the server's
// kernel knows.
func reset(t *testing.T, client, server *net.TCPConn) {
	t.Helper()
	if err := errors.Join(client.SetLinger(0), client.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Fatal("the connection was not reset")
	}
}

func TestKinds(t *testing.T) {
	for _, o := range objects(t) {
		for _, k := range append(allKinds(), 0, Kind(len(kinds)), 255) {
			err := k.Verify(o.file)
			if got, want := err == nil, slices.Contains(o.are, k); got != want {
				t.Errorf("%s as %v: got %v, want accepted %t", o.name, k, err, want)
			}
			if e, ok := errors.AsType[*KindError](err); err != nil && (!ok || e.Want != k || e.Got == "") {
				t.Errorf("%s as %v: got %#v", o.name, k, err)
			}
			unconnected := strings.HasSuffix(o.name, " reset") || o.name == "tcp unconnected" || o.name == "tcp bound"
			if k == KindStream && errors.Is(err, syscall.ENOTCONN) != unconnected {
				t.Errorf("%s as %v: got %v, want ENOTCONN %t", o.name, k, err, unconnected)
			}
		}
	}
}

func TestEachKindHasAnObject(t *testing.T) {
	seen := make(map[Kind]bool)
	for _, o := range objects(t) {
		for _, k := range o.are {
			seen[k] = true
		}
	}
	for _, k := range allKinds() {
		if !seen[k] {
			t.Errorf("no object is of kind %v", k)
		}
	}
}

func TestKindWords(t *testing.T) {
	for _, k := range allKinds() {
		if got := parseKind(k.String()); got != k {
			t.Errorf("parseKind(%q): got %v", k.String(), got)
		}
	}
	for _, word := range []string{"", "Stream", "stream ", "kind(0)", "epoll"} {
		if got := parseKind(word); got != 0 {
			t.Errorf("parseKind(%q): got %v, want none", word, got)
		}
	}
	if got, want := Kind(0).String(), "kind(0)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What Verify must leave as it was: the blocking mode (os.File.Fd would change
// it), the place in a file, the pending error of a socket, and the number of
// descriptors.
func TestVerifyHasNoSideEffects(t *testing.T) {
	verifyAll := func(f *os.File) {
		for _, k := range allKinds() {
			_ = k.Verify(f)
		}
	}
	status := func(f *os.File) (flags int) {
		raw, err := f.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) { flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0) }); err != nil {
			t.Fatal(err)
		}
		return flags
	}
	fds := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}

	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	count, before := fds(), status(a)
	if before&unix.O_NONBLOCK == 0 {
		t.Fatal("the control needs a descriptor that does not block")
	}
	for range 100 {
		verifyAll(a)
	}
	if got := status(a); got != before {
		t.Errorf("flags: got %#x, want %#x", got, before)
	}
	if got := fds(); got != count {
		t.Errorf("descriptors: got %d, want %d", got, count)
	}

	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("1234"); err != nil {
		t.Fatal(err)
	}
	verifyAll(f)
	if at, err := f.Seek(0, io.SeekCurrent); at != 4 || err != nil {
		t.Errorf("offset: got %d, %v", at, err)
	}

	// A refused connection leaves an error that one getsockopt takes away.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := unix.Poll(poll, 5000); err != nil {
		t.Fatal(err)
	}
	s := os.NewFile(uintptr(fd), "refused")
	defer s.Close()
	verifyAll(s)
	if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); got != int(unix.ECONNREFUSED) || err != nil {
		t.Errorf("the socket's error: got %d, %v, want ECONNREFUSED", got, err)
	}
}

func BenchmarkVerify(b *testing.B) {
	a, c, err := Pair()
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	defer c.Close()
	f, err := os.CreateTemp(b.TempDir(), "")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for _, tt := range []struct {
		kind Kind
		file *os.File
	}{{KindChannel, a}, {KindRegular, f}} {
		b.Run(tt.kind.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := tt.kind.Verify(tt.file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
