package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connected returns the two ends of a TCP connection over loopback: the
// server's as a worker gets it, and the client's.
func connected(t testing.TB) (server *os.File, client *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	t.Cleanup(func() { f.Close(); c.Close() })
	return nonblocking(t, f), c.(*net.TCPConn)
}

// nonblocking gives f to the poller again: net's File makes it blocking.
func nonblocking(t testing.TB, f *os.File) *os.File {
	t.Helper()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	g := os.NewFile(uintptr(fd), "data")
	t.Cleanup(func() { g.Close() })
	return g
}

// content returns n bytes without a pattern.
func content(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func scratch(t *testing.T, data []byte) *os.File {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var sizes = []int{0, 1, smallBuffer - 1, smallBuffer, long, long + 1, 3<<20 + 7}

func TestSend(t *testing.T) {
	for _, size := range sizes {
		for _, offset := range []int{0, size / 3, size} {
			want := content(size)[offset:]
			src := scratch(t, content(size))
			dst, client := connected(t)
			got := make(chan []byte)
			go func() {
				b, _ := io.ReadAll(client)
				got <- b
			}()
			var m Mover
			n, err := m.Send(t.Context(), dst, src, int64(offset), int64(len(want)))
			if err != nil || n != int64(len(want)) || m.Moved() != n {
				t.Fatalf("size %d, offset %d: got %d, %v", size, offset, n, err)
			}
			if err := m.Finish(t.Context(), dst); err != nil {
				t.Fatal(err)
			}
			dst.Close()
			if b := <-got; !bytes.Equal(b, want) {
				t.Errorf("size %d, offset %d: client got %d other bytes", size, offset, len(b))
			}
		}
	}
}

func TestSendShrunkenFile(t *testing.T) {
	src := scratch(t, content(100))
	dst, _ := connected(t)
	n, err := new(Mover).Send(t.Context(), dst, src, 0, 200)
	var e *Error
	if n != 100 || !errors.As(err, &e) || e.Network || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %d, %v; want 100 and a file's error", n, err)
	}
}

func TestReceive(t *testing.T) {
	for _, size := range sizes {
		for _, flag := range []int{0, os.O_APPEND} {
			f := scratch(t, nil)
			dst, err := os.OpenFile(f.Name(), os.O_WRONLY|flag, 0)
			if err != nil {
				t.Fatal(err)
			}
			src, client := connected(t)
			want := content(size)
			go func() {
				client.Write(want)
				client.Close()
			}()
			n, err := new(Mover).Receive(t.Context(), dst, src)
			if err != nil || n != int64(size) {
				t.Errorf("size %d, flag %#x: got %d, %v", size, flag, n, err)
			}
			dst.Close()
			if got, _ := os.ReadFile(f.Name()); !bytes.Equal(got, want) {
				t.Errorf("size %d, flag %#x: stored %d other bytes", size, flag, len(got))
			}
		}
	}
}

func TestReceiveAtPosition(t *testing.T) {
	dst := scratch(t, []byte("0123456789"))
	dst.Seek(4, io.SeekStart)
	src, client := connected(t)
	client.Write([]byte("abc"))
	client.Close()
	if n, err := new(Mover).Receive(t.Context(), dst, src); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if got, _ := os.ReadFile(dst.Name()); string(got) != "0123abc789" {
		t.Errorf("got %q", got)
	}
}

// TestReceiveReset: what a client sent before it broke off isn't a whole file,
// on either side of the border between buffer and pipe.
func TestReceiveReset(t *testing.T) {
	for _, size := range []int{10, long + 1<<20} {
		dst := scratch(t, nil)
		src, client := connected(t)
		go func() {
			client.Write(content(size))
			time.Sleep(50 * time.Millisecond)
			client.SetLinger(0)
			client.Close()
		}()
		_, err := new(Mover).Receive(t.Context(), dst, src)
		var e *Error
		if !errors.As(err, &e) || !e.Network || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("size %d: got %v, want the connection's ECONNRESET", size, err)
		}
	}
}

// TestSendReset: bytes that only this host's buffer took were not delivered.
func TestSendReset(t *testing.T) {
	for _, size := range []int{100 << 10, -100 << 10, 64 << 20} {
		halfClosed := size < 0 // such a client's reset is no event, only a state
		size = max(size, -size)
		src := scratch(t, nil)
		if err := src.Truncate(int64(size)); err != nil {
			t.Fatal(err)
		}
		dst, client := connected(t)
		client.SetReadBuffer(4 << 10)
		if halfClosed {
			client.CloseWrite()
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			client.SetLinger(0)
			client.Close()
		}()
		var m Mover
		_, err := m.Send(t.Context(), dst, src, 0, int64(size))
		if err == nil {
			err = m.Finish(t.Context(), dst)
		}
		var e *Error
		if !errors.As(err, &e) || !e.Network {
			t.Errorf("size %d, half-closed %v: got %v, want the connection's error", size, halfClosed, err)
		}
	}
}

func TestDiskFull(t *testing.T) {
	for _, size := range []int{10, 1 << 20} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		src, client := connected(t)
		go func() {
			client.Write(content(size))
			client.Close()
		}()
		_, err = new(Mover).Receive(t.Context(), full, src)
		var e *Error
		if !errors.As(err, &e) || e.Network || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("size %d: got %v, want the file's ENOSPC", size, err)
		}
	}
}

// ways runs each way to move bytes with a peer that sends nothing and reads nothing.
func ways(t *testing.T, run func(name string, move func(ctx context.Context, m *Mover) error)) {
	big := scratch(t, nil)
	if err := big.Truncate(256 << 20); err != nil {
		t.Fatal(err)
	}
	conn := func() *os.File { c, _ := connected(t); return c }
	run("Send", func(ctx context.Context, m *Mover) error {
		_, err := m.Send(ctx, conn(), big, 0, 256<<20)
		return err
	})
	run("SendASCII", func(ctx context.Context, m *Mover) error { _, err := m.SendASCII(ctx, conn(), big); return err })
	run("Receive", func(ctx context.Context, m *Mover) error {
		_, err := m.Receive(ctx, scratch(t, nil), conn())
		return err
	})
	run("Receive, long", func(ctx context.Context, m *Mover) error {
		src, client := connected(t)
		go client.Write(content(long + 1000))
		_, err := m.Receive(ctx, scratch(t, nil), src)
		return err
	})
	run("ReceiveASCII", func(ctx context.Context, m *Mover) error {
		_, err := m.ReceiveASCII(ctx, scratch(t, nil), conn())
		return err
	})
	run("Copy", func(ctx context.Context, m *Mover) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		defer w.Close()
		_, err = m.Copy(ctx, conn(), r, nil)
		return err
	})
	run("Finish", func(ctx context.Context, m *Mover) error {
		dst, client := connected(t)
		client.SetReadBuffer(4 << 10)
		tooMuch := make([]byte, 64<<20)
		dst.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := dst.Write(tooMuch); n == 0 || err == nil {
			t.Fatalf("wrote %d, %v: want what both kernels' buffers hold", n, err)
		}
		return m.Finish(ctx, dst)
	})
}

func TestStall(t *testing.T) {
	ways(t, func(name string, move func(context.Context, *Mover) error) {
		err := move(t.Context(), &Mover{Stall: 50 * time.Millisecond})
		var e *Error
		network := name != "Copy" // there it is the listing's writer that stalls
		if !errors.As(err, &e) || e.Network != network || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: got %v, want a stall", name, err)
		}
	})
}

func TestCancel(t *testing.T) {
	reason := errors.New("the client says ABOR")
	ways(t, func(name string, move func(context.Context, *Mover) error) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
		start := time.Now()
		err := move(ctx, new(Mover))
		var e *Error
		if !errors.As(err, &e) || !e.Network || !errors.Is(err, reason) {
			t.Errorf("%s: got %v, want the context's cause", name, err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%s: took %v", name, d)
		}
	})
}

// TestSlowIsNotStalled: bytes that trickle keep a transfer alive.
func TestSlowIsNotStalled(t *testing.T) {
	src, client := connected(t)
	go func() {
		for range 15 {
			client.Write([]byte("x"))
			time.Sleep(100 * time.Millisecond)
		}
		client.Close()
	}()
	n, err := (&Mover{Stall: time.Second}).Receive(t.Context(), scratch(t, nil), src)
	if n != 15 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestBlockingConnectionIsRefused(t *testing.T) {
	f := scratch(t, []byte("no poller knows a file"))
	if _, err := new(Mover).Send(t.Context(), f, f, 0, 1); !errors.Is(err, os.ErrNoDeadline) {
		t.Errorf("got %v, want os.ErrNoDeadline", err)
	}
}

// TestNoDescriptorLeft: pipes live as long as a transfer.
func TestNoDescriptorLeft(t *testing.T) {
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	dst := scratch(t, nil)
	src, client := connected(t)
	before := count()
	go func() {
		client.Write(content(long + 1000))
		client.CloseWrite()
	}()
	if _, err := new(Mover).Receive(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestCopyEdit(t *testing.T) {
	shout := func(out, line []byte) []byte {
		if bytes.HasPrefix(line, []byte("#")) {
			return out
		}
		return append(out, bytes.ToUpper(line)...)
	}
	const in, want = "one\r\n#two\r\nthree\r\nfour", "ONE\r\nTHREE\r\nFOUR"
	for i := range len(in) {
		if got := inPieces((&editor{edit: shout}).convert, in[:i], "", in[i:]); got != want {
			t.Errorf("cut at %d: got %q", i, got)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	io.WriteString(w, in)
	w.Close()
	dst, client := connected(t)
	if n, err := new(Mover).Copy(t.Context(), dst, r, shout); n != int64(len(want)) || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	dst.Close()
	if got, _ := io.ReadAll(client); string(got) != want {
		t.Errorf("client got %q", got)
	}
}
