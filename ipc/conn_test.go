package ipc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// connPair returns two connected Conns, closed at the end of the test, whose
// packets have bodies of up to size bytes.
func connPair(t testing.TB, size int) (a, b *Conn) {
	t.Helper()
	x, y, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		conn **Conn
		file *os.File
	}{{&a, x}, {&b, y}} {
		if *end.conn, err = NewConn(end.file, NewBuffers(size)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*end.conn).Close() })
	}
	return a, b
}

// sendRaw sends bytes that no Conn would, with n descriptors.
func sendRaw(t testing.TB, c *Conn, data []byte, n int) error {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var rights []byte
	if n > 0 {
		rights = syscall.UnixRights(slices.Repeat([]int{int(null.Fd())}, n)...)
	}
	var sent error
	err = c.socket.Write(func(fd uintptr) bool {
		sent = syscall.Sendmsg(int(fd), data, rights, nil, 0)
		return true
	})
	return errors.Join(err, sent)
}

// header is a request's, with room for changes.
func header(files int) []byte {
	p := Packet{Type: Request, Op: 1, Call: 1, Value: 1000, Files: make([]*os.File, files)}
	return p.appendHeader(nil)
}

// isProtocolError reports whether err is one and has reason in it.
func isProtocolError(err error, reason string) bool {
	var e *ProtocolError
	return errors.As(err, &e) && strings.Contains(e.Reason, reason)
}

func TestDescriptorsTravel(t *testing.T) {
	for _, n := range []int{0, 1, 2, maxFiles} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			testenv.NoLeaks(t)
			a, b := connPair(t, 64)
			want := Packet{Type: Reply, Op: 1 << 31, Call: 7, Value: 1<<32 - 1, Body: []byte("body")}
			for i := range n {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprint(w, i)
				w.Close()
				defer r.Close()
				want.Files = append(want.Files, r)
			}
			if err := a.Send(t.Context(), time.Second, &want); err != nil {
				t.Fatal(err)
			}
			var got Packet
			if err := b.Receive(&got); err != nil {
				t.Fatal(err)
			}
			defer got.CloseFiles()
			defer got.Release()
			if got.Files != nil || len(got.bare) != n {
				t.Fatalf("got %d files and %d bare descriptors, want %d", len(got.Files), len(got.bare), n)
			}
			got.Open()
			if got.Type != want.Type || got.Op != want.Op || got.Call != want.Call || got.Value != want.Value || string(got.Body) != "body" {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if len(got.Files) != n {
				t.Fatalf("got %d files, want %d", len(got.Files), n)
			}
			for i, f := range got.Files {
				if text, err := io.ReadAll(f); err != nil || string(text) != fmt.Sprint(i) {
					t.Errorf("file %d: got %q, %v", i, text, err)
				}
				flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), syscall.F_GETFD, 0)
				if errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
					t.Errorf("file %d: flags %#x, %v: not close-on-exec", i, flags, errno)
				}
			}
		})
	}
}

// Every descriptor that the kernel can deliver reaches the receiver's hands, so
// that none stays open unseen.
func TestTooManyDescriptorsAreRefusedAndClosed(t *testing.T) {
	for _, n := range []int{maxFiles + 1, 64, sys.MaxFiles} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			testenv.NoLeaks(t)
			a, b := connPair(t, 64)
			if err := sendRaw(t, a, header(n), n); err != nil {
				t.Fatal(err)
			}
			var p Packet
			if err := b.Receive(&p); !isProtocolError(err, "more descriptors") {
				t.Errorf("got %v, want a ProtocolError", err)
			}
			p.CloseFiles()
		})
	}
	a, _ := connPair(t, 64)
	if err := sendRaw(t, a, header(0), sys.MaxFiles+1); err == nil {
		t.Errorf("the kernel takes %d descriptors: ControlSize is too small", sys.MaxFiles+1)
	}
	files := slices.Repeat([]*os.File{os.Stdin}, maxFiles+1)
	if err := a.Send(t.Context(), time.Second, &Packet{Type: Reply, Files: files}); err == nil {
		t.Errorf("Send took %d files", len(files))
	}
}

// With a control buffer for one int, which is what C programs have, two
// descriptors arrive and the others are lost without an error.
func TestControlBufferHoldsAll(t *testing.T) {
	for _, tt := range []struct {
		size int
		lost bool
	}{{sys.ControlSize, false}, {24, true}} {
		a, b := connPair(t, 64)
		if err := sendRaw(t, a, header(0), sys.MaxFiles); err != nil {
			t.Fatal(err)
		}
		b.socket.Control(func(fd uintptr) {
			control := make([]byte, tt.size)
			_, nc, flags, err := sys.Receive(fd, make([]byte, 64), control, false)
			if err != nil {
				t.Fatal(err)
			}
			fds, err := sys.Rights(control[:nc])
			for _, fd := range fds {
				sys.Close(fd)
			}
			if got := flags&sys.ControlTruncated != 0; got != tt.lost || err != nil || len(fds) == sys.MaxFiles == tt.lost {
				t.Errorf("%d bytes: %d descriptors, truncated %t, %v", tt.size, len(fds), got, err)
			}
		})
	}
}

func TestIllegalPackets(t *testing.T) {
	change := func(at int, to byte) []byte {
		b := append(header(1), "body"...)
		b[at] = to
		return b
	}
	for _, tt := range []struct {
		name, reason string
		data         []byte
		files        int
	}{
		{"larger than the buffer", "larger than any", append(header(3), make([]byte, 101)...), 3},
		{"much larger", "larger than any", append(header(1), make([]byte, MaxPacket)...), 1},
		{"one byte and a file", "shorter than its header", []byte{2}, 1},
		{"half a header", "shorter than its header", header(1)[:headerSize-1], 1},
		{"type 0", "unknown packet type", change(0, 0), 1},
		{"type between others", "unknown packet type", change(0, 1), 1},
		{"type beyond the last", "unknown packet type", change(0, 12), 1},
		{"type 255", "unknown packet type", change(0, 255), 1},
		{"more files than announced", "number of descriptors", change(1, 0), 1},
		{"fewer files than announced", "number of descriptors", change(1, 2), 1},
		{"announced, but none", "number of descriptors", change(1, 1), 0},
		{"reserved", "reserved", change(2, 1), 1},
		{"also reserved", "reserved", change(3, 0x80), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NoLeaks(t)
			a, b := connPair(t, 100)
			if err := sendRaw(t, a, tt.data, tt.files); err != nil {
				t.Fatal(err)
			}
			p := Packet{Type: Ready}
			if err := b.Receive(&p); !isProtocolError(err, tt.reason) {
				t.Errorf("got %v, want a ProtocolError: %s", err, tt.reason)
			}
			if p.Files != nil || p.Body != nil || len(p.bare) != tt.files {
				t.Errorf("an illegal packet with %d descriptors left %+v", tt.files, p)
			}
			p.CloseFiles()
		})
	}
	t.Run("the legal one", func(t *testing.T) {
		testenv.NoLeaks(t)
		a, b := connPair(t, 100)
		if err := sendRaw(t, a, append(header(1), make([]byte, 100)...), 1); err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := b.Receive(&p); err != nil {
			t.Error(err)
		}
		p.CloseFiles()
		p.Release()
	})
}

// The kernel never sets these flags for what TestControlBufferHoldsAll sees,
// so the guard itself is shown here.
func TestLostDescriptorsAreRefused(t *testing.T) {
	var p Packet
	if err := p.parse(header(0), nil, sys.ControlTruncated); !isProtocolError(err, "lost") {
		t.Errorf("got %v, want a ProtocolError", err)
	}
}

// fill sends until the queue is full and returns how many packets that took.
func fill(t testing.TB, c *Conn) (n int) {
	t.Helper()
	for ; ; n++ {
		err := c.Send(t.Context(), time.Millisecond, &Packet{Type: Request, Call: uint32(n), Body: make([]byte, 4096)})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return n
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBlockedSender(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 4096)
	n := fill(t, a)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(errors.New("some cause")) })
	start := time.Now()
	if err := a.Send(ctx, time.Minute, &Packet{Type: Request}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if err := a.Send(ctx, time.Minute, &Packet{Type: Request}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: got %v, want context.Canceled", err)
	}
	if err := a.Send(t.Context(), 20*time.Millisecond, &Packet{Type: Request}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want os.ErrDeadlineExceeded", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("three limits of 20 ms took %v", d)
	}
	// No limit of an earlier packet hangs over the next.
	done := make(chan error, 1)
	go func() { done <- a.Send(t.Context(), time.Minute, &Packet{Type: Cancel, Call: uint32(n)}) }()
	time.Sleep(20 * time.Millisecond)
	for i := range n + 1 {
		var p Packet
		if err := b.Receive(&p); err != nil {
			t.Fatal(err)
		}
		if p.Call != uint32(i) {
			t.Fatalf("packet %d arrived as number %d", p.Call, i)
		}
		p.Release()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A sender behind a blocked one has its own context and its own limit.
func TestBlockedSenderBlocksNobodyForLonger(t *testing.T) {
	testenv.NoLeaks(t)
	a, _ := connPair(t, 4096)
	fill(t, a)
	first, cancelFirst := context.WithCancel(t.Context())
	var senders sync.WaitGroup
	senders.Go(func() { a.Send(first, time.Minute, &Packet{Type: Request}) })
	time.Sleep(10 * time.Millisecond)
	defer senders.Wait()
	defer cancelFirst()

	limited := make(chan error, 2)
	go func() { limited <- a.Send(t.Context(), 10*time.Millisecond, &Packet{Type: Request}) }()
	second, cancelSecond := context.WithCancel(t.Context())
	cancelSecond()
	go func() { limited <- a.Send(second, time.Minute, &Packet{Type: Request}) }()
	for range 2 {
		select {
		case err := <-limited:
			if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want the sender's own limit", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("a sender waits for another's limit")
		}
	}
}

// A Send that fails has sent nothing, and one that sent does not fail, however
// close to its limit: a Client would else use a call's number twice.
func TestSendFailsOrSends(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 4096)
	var sent []uint32 // the packets whose Send returned nil, in order
	for i := range fill(t, a) {
		sent = append(sent, uint32(i))
	}
	send := func(ctx context.Context, limit time.Duration, number uint32) {
		if a.Send(ctx, limit, &Packet{Type: Request, Call: number, Body: make([]byte, 4096)}) == nil {
			sent = append(sent, number)
		}
	}
	for round := range 2000 {
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { send(ctx, time.Minute, uint32(1000+round)) })
		time.Sleep(time.Duration(round%8) * 10 * time.Microsecond)
		done.Go(func() {
			for range round % 64 * 100 {
				runtime.Gosched() // about when the room that Receive makes is filled
			}
			cancel()
		})
		var p Packet
		if err := b.Receive(&p); err != nil {
			t.Fatal(err)
		}
		p.Release()
		done.Wait()
		if p.Call != sent[0] {
			t.Fatalf("round %d: received packet %d, want %d: a failed Send had sent", round, p.Call, sent[0])
		}
		sent = sent[1:]
		send(t.Context(), time.Millisecond, uint32(10000+round)) // keeps the queue full
	}
}

func TestPeerGone(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 64)
	if err := a.Send(t.Context(), time.Second, &Packet{Type: Request, Body: []byte("last")}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	var p Packet
	if err := b.Receive(&p); err != nil || !bytes.Equal(p.Body, []byte("last")) {
		t.Errorf("got %q, %v, want the last packet", p.Body, err)
	}
	p.Release()
	if err := b.Receive(&p); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
	if err := b.Send(t.Context(), time.Second, &Packet{Type: Reply}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}

	a, b = connPair(t, 64) // and with a packet unread: the kernel says ECONNRESET
	if err := b.Send(t.Context(), time.Second, &Packet{Type: Reply}); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := b.Receive(&p); err != io.EOF {
		t.Errorf("got %v, want io.EOF", err)
	}
}

func TestCloseWakesWaiters(t *testing.T) {
	testenv.NoLeaks(t)
	a, _ := connPair(t, 4096)
	fill(t, a)
	results := make(chan error, 2)
	go func() { results <- a.Send(t.Context(), time.Minute, &Packet{Type: Request}) }()
	go func() { results <- a.Receive(new(Packet)) }()
	time.Sleep(10 * time.Millisecond)
	a.Close()
	for range 2 {
		if err := <-results; !errors.Is(err, os.ErrClosed) {
			t.Errorf("got %v, want os.ErrClosed", err)
		}
	}
}

func TestCloseRead(t *testing.T) {
	a, b := connPair(t, 64)
	if err := b.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if err := a.Send(t.Context(), time.Second, &Packet{Type: Request}); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
	if err := b.Send(t.Context(), time.Second, &Packet{Type: Reply}); err != nil {
		t.Errorf("the other direction: %v", err)
	}
}

func TestNewConnRefuses(t *testing.T) {
	testenv.NoLeaks(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var kind *KindError
	if _, err := NewConn(r, NewBuffers(1)); !errors.As(err, &kind) {
		t.Errorf("a pipe: got %v, want a KindError", err)
	}
	if r.Close() == nil {
		t.Error("NewConn did not close what it refused")
	}
}

func TestBuffersGrow(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 10)
	send := func(n int) error {
		t.Helper()
		if err := a.Send(t.Context(), time.Second, &Packet{Type: Request, Body: make([]byte, n)}); err != nil {
			return err
		}
		var p Packet
		err := b.Receive(&p)
		if err == nil && len(p.Body) != n {
			t.Errorf("got %d bytes, want %d", len(p.Body), n)
		}
		p.Release()
		return err
	}
	if err := send(10); err != nil {
		t.Error(err)
	}
	if err := send(11); !isProtocolError(err, "larger") {
		t.Errorf("got %v, want a ProtocolError", err)
	}
	b.buffers.Grow(5) // never shrinks
	b.buffers.Grow(11)
	if err := send(11); err != nil {
		t.Error(err)
	}
	b.buffers.Grow(1 << 30)
	if got, want := b.buffers.size.Load(), int64(MaxPacket); got != want {
		t.Errorf("buffers grew to %d, want %d", got, want)
	}
	if err := send(MaxPacket - headerSize); err != nil {
		t.Error(err)
	}
	if err := send(MaxPacket - headerSize + 1); err == nil {
		t.Error("sent more than MaxPacket")
	}
	b.Use(NewBuffers(-1))
	if err := send(0); err != nil {
		t.Error(err)
	}
	if err := send(1); !isProtocolError(err, "larger") {
		t.Errorf("got %v, want a ProtocolError", err)
	}
}
