package ipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// startClient returns a Client of h.
func startClient(t testing.TB, h Handler) *Client {
	t.Helper()
	conn, _ := serve(t, h)
	c := NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c
}

// call is Call for a test whose answers carry no files.
func call(ctx context.Context, c *Client, op uint32, body string) (string, error) {
	p, err := c.Call(ctx, op, time.Minute, []byte(body), nil)
	if err != nil {
		return "", err
	}
	defer p.Release()
	return string(p.Body), nil
}

func TestManyGoroutines(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	s.ops[100] = op{parallel: true, run: s.ops[opEcho].run}
	c := startClient(t, s)
	calls := 1000
	if testing.Short() {
		calls = 100
	}
	var callers sync.WaitGroup
	var failed atomic.Int32
	for g := range 64 {
		callers.Go(func() {
			for i := range calls {
				want := fmt.Sprint(g, i)
				got, err := call(t.Context(), c, []uint32{opEcho, 100}[i/7%2], want)
				if (got != want || err != nil) && failed.Add(1) < 5 {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
			}
		})
	}
	callers.Wait()
}

// Contexts end at every stage of a call: before it is sent, while it runs and
// while its answer is on the way. Whatever comes of each, the next one works
// and the numbers stay in order.
func TestManyCancelled(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	s.ops[100] = op{parallel: true, run: s.ops[opOpen].run}
	c := startClient(t, s)
	var callers sync.WaitGroup
	for g := range 16 {
		callers.Go(func() {
			for i := range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*g%50)*10*time.Microsecond)
				p, err := c.Call(ctx, []uint32{opEcho, opOpen, 100}[i%3], time.Minute, nil, nil)
				cancel()
				if err == nil {
					p.CloseFiles()
					p.Release()
				} else if !errors.Is(err, context.DeadlineExceeded) && err != syscall.ETIMEDOUT {
					t.Errorf("got %v, want a deadline", err)
					return
				}
			}
		})
	}
	callers.Wait()
	if got, err := call(t.Context(), c, opEcho, "after"); got != "after" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCancellationReachesTheHandler(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	c := startClient(t, s)
	for _, op := range []uint32{opWait, opParallel} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-started
			cancel()
		}()
		if _, err := call(ctx, c, op, ""); err != context.Canceled {
			t.Errorf("got %v, want context.Canceled", err)
		}
		// The handler has returned, or a sequential call would wait.
		if got, err := call(t.Context(), c, opEcho, "next"); got != "next" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestDeadlineReachesTheCaller(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	c := startClient(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := call(ctx, c, opWait, ""); !errors.Is(err, context.DeadlineExceeded) && err != syscall.ETIMEDOUT {
		t.Errorf("a context's deadline: got %v", err)
	}
	if _, err := c.Call(t.Context(), opWait, 20*time.Millisecond, nil, nil); !errors.Is(err, context.DeadlineExceeded) && err != syscall.ETIMEDOUT {
		t.Errorf("a limit: got %v", err)
	}
	if _, err := call(ctx, c, opEcho, ""); err != context.DeadlineExceeded {
		t.Errorf("a deadline that has passed: got %v", err)
	}
}

// A call that was never sent holds no slot.
func TestEndedContextCostsNoSlot(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	c := startClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 * Outstanding {
		if _, err := call(ctx, c, opEcho, ""); err != context.Canceled {
			t.Fatalf("got %v, want context.Canceled", err)
		}
		if _, err := c.Call(t.Context(), opEcho, -1, nil, nil); err != context.DeadlineExceeded {
			t.Fatalf("got %v, want context.DeadlineExceeded", err)
		}
	}
	if got, err := call(t.Context(), c, opEcho, "after"); got != "after" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// A Client that is closed twice touches no descriptor that is another's by now.
func TestCloseTwice(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	c := startClient(t, s)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	var pipes [8][2]*os.File
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		pipes[i] = [2]*os.File{r, w}
	}
	if err := c.Close(); err != nil {
		t.Errorf("the second time: %v", err)
	}
	for _, p := range pipes {
		p[1].Close()
		if got, err := io.ReadAll(p[0]); len(got) > 0 || err != nil {
			t.Errorf("Close wrote %q to another's pipe, %v", got, err)
		}
	}
}

func TestRefusalIsAnErrno(t *testing.T) {
	s, _ := newScript()
	c := startClient(t, s)
	if _, err := call(t.Context(), c, opRefuse, ""); err != error(syscall.ENOENT) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ENOENT", err)
	}
}

// Other callers wait for a slot, and their contexts end that too.
func TestOutstandingMakesCallersWait(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	c := startClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for range Outstanding {
		callers.Go(func() { call(ctx, c, opParallel, "") })
	}
	for range Outstanding {
		<-started
	}
	short, cancelShort := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancelShort()
	if _, err := call(short, c, opEcho, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
	if _, err := c.Call(t.Context(), opEcho, 10*time.Millisecond, nil, nil); err != context.DeadlineExceeded {
		t.Errorf("got %v, want a deadline", err)
	}
	cancel()
	if got, err := call(t.Context(), c, opEcho, "room"); got != "room" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	callers.Wait()
}

// A caller that waits is not made to serve the others.
func TestCancelIsNoticedUnderTraffic(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	c := startClient(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := call(ctx, c, opParallel, "")
		ended <- err
	}()
	<-started
	stop := make(chan struct{})
	var traffic sync.WaitGroup
	for range 2 {
		traffic.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := call(t.Context(), c, opEcho, ""); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case err := <-ended:
		if err != context.Canceled {
			t.Errorf("got %v, want context.Canceled", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("a cancelled call does not return while others are made")
	}
	close(stop)
	traffic.Wait()
}

func TestEndWakesAllCallers(t *testing.T) {
	for name, end := range map[string]func(peer *Conn, c *Client){
		"peer dies": func(peer *Conn, _ *Client) { peer.Close() },
		"closed":    func(_ *Conn, c *Client) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			testenv.NoLeaks(t)
			a, b := connPair(t, 4096)
			c := NewClient(a)
			results := make(chan error, 2*Outstanding)
			for range 2 * Outstanding { // half of them wait for a slot
				go func() {
					_, err := call(t.Context(), c, opEcho, "")
					results <- err
				}()
			}
			for range Outstanding {
				next(t, b)
			}
			end(b, c)
			for range 2 * Outstanding {
				if err := <-results; err != ErrClosed {
					t.Fatalf("got %v, want ErrClosed", err)
				}
			}
			if _, err := call(t.Context(), c, opEcho, ""); err != ErrClosed {
				t.Errorf("afterwards: got %v, want ErrClosed", err)
			}
			c.Close()
		})
	}
}

func TestAnswerFilesBelongToTheCaller(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	c := startClient(t, s)
	p, err := c.Call(t.Context(), opOpen, time.Minute, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.CloseFiles()
	defer p.Release()
	p.Open()
	if _, err := p.Files[1].WriteString("through"); err != nil {
		t.Error(err)
	}
	p.Files[1].Close()
	if got, err := io.ReadAll(p.Files[0]); string(got) != "through" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// The server answers a call that nobody waits for any more with files; they
// are closed.
func TestAnswersToAbandonedCallsAreClosed(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 4096)
	c := NewClient(a)
	defer c.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := call(ctx, c, opOpen, "")
		done <- err
	}()
	asked := next(t, b)
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if p := next(t, b); p.Type != Cancel || p.Call != asked.Call {
		t.Errorf("got %+v, want a cancel", p)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := b.Send(t.Context(), time.Second, &Packet{Type: Reply, Call: asked.Call, Files: []*os.File{w}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	// No other call is made: the other end must not have to wait for one.
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %d, %v, want io.EOF: the file is still open", n, err)
	}
	c.left.Wait()
	if len(c.slots) != Outstanding {
		t.Errorf("%d calls are outstanding", Outstanding-len(c.slots))
	}
}

// A worker may talk to another worker, so a Client trusts its server no more
// than a server its clients.
func TestHostileServer(t *testing.T) {
	for _, tt := range []struct {
		name string
		send func(call uint32) Packet
	}{
		{"answer to a later call", func(call uint32) Packet { return Packet{Type: Reply, Call: call + 1} }},
		{"answer to call 0", func(uint32) Packet { return Packet{Type: Reply} }},
		{"a request for an answer", func(call uint32) Packet { return Packet{Type: Request, Call: call} }},
		{"a start for an answer", func(call uint32) Packet { return Packet{Type: Start, Call: call} }},
		{"files beside the wrong answer", func(call uint32) Packet {
			return Packet{Type: Reply, Call: call + 1, Files: []*os.File{os.Stdin, os.Stdin}}
		}},
		{"larger than expected", func(call uint32) Packet { return Packet{Type: Reply, Call: call, Body: make([]byte, 5000)} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NoLeaks(t)
			a, b := connPair(t, 4096)
			c := NewClient(a)
			defer c.Close()
			done := make(chan error)
			go func() {
				_, err := call(t.Context(), c, opEcho, "")
				done <- err
			}()
			asked := next(t, b)
			p := tt.send(asked.Call)
			b.Use(NewBuffers(MaxPacket))
			if err := b.Send(t.Context(), time.Second, &p); err != nil {
				t.Fatal(err)
			}
			if err := <-done; !isProtocolError(err, "") {
				t.Errorf("got %v, want a ProtocolError", err)
			}
		})
	}
	t.Run("the same answer twice", func(t *testing.T) {
		testenv.NoLeaks(t)
		a, b := connPair(t, 4096)
		c := NewClient(a)
		defer c.Close()
		go func() {
			var p Packet
			b.Receive(&p)
			p.Release()
			for range 2 {
				b.Send(context.Background(), time.Second, &Packet{Type: Reply, Call: p.Call})
			}
		}()
		if _, err := call(t.Context(), c, opEcho, ""); err != nil {
			t.Error(err)
		}
		if _, err := call(t.Context(), c, opEcho, ""); !isProtocolError(err, "no call") {
			t.Errorf("got %v, want a ProtocolError", err)
		}
	})
	t.Run("files with a refusal", func(t *testing.T) {
		testenv.NoLeaks(t)
		a, b := connPair(t, 4096)
		c := NewClient(a)
		defer c.Close()
		go func() {
			var p Packet
			b.Receive(&p)
			p.Release()
			b.Send(context.Background(), time.Second, &Packet{Type: Refusal, Call: p.Call, Value: 2, Files: []*os.File{os.Stdin}})
		}()
		if _, err := call(t.Context(), c, opEcho, ""); err == nil {
			t.Error("got nil")
		}
	})
}

// The limit that the other side hears is never shorter than the caller's.
func TestMilliseconds(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want uint32
	}{
		{1, 1}, {time.Millisecond, 1}, {time.Millisecond + 1, 2}, {10 * time.Second, 10_000},
		{1 << 62, 1<<32 - 1}, {1<<63 - 1, 1<<32 - 1},
	} {
		if got := milliseconds(tt.d); got != tt.want {
			t.Errorf("%v: got %d, want %d", tt.d, got, tt.want)
		}
	}
}

// A null call is the unit in which everything here is paid. The numbers are
// those of both sides; a test's context can end, so it costs a little more.
func TestNullCallAllocations(t *testing.T) {
	s, _ := newScript()
	c := startClient(t, s)
	for _, tt := range []struct {
		ctx  context.Context
		most float64
	}{{context.Background(), 22}, {t.Context(), 26}} {
		// Not testing.AllocsPerRun: it leaves one P for both sides, and while
		// one of them waits in the kernel for as long as sysmon sleeps, the
		// other can't go on.
		const calls = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range calls {
			p, err := c.Call(tt.ctx, opEcho, time.Minute, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			p.Release()
		}
		runtime.ReadMemStats(&after)
		got := float64(after.Mallocs-before.Mallocs) / calls
		t.Logf("%v allocations", got)
		if got > tt.most {
			t.Errorf("%v: %v allocations a call, want %v", tt.ctx, got, tt.most)
		}
	}
}

func BenchmarkNullCall(b *testing.B) {
	s, _ := newScript()
	c := startClient(b, s)
	body := binary.LittleEndian.AppendUint64(nil, 1)
	b.ReportAllocs()
	for b.Loop() {
		p, err := c.Call(b.Context(), opEcho, time.Minute, body, nil)
		if err != nil {
			b.Fatal(err)
		}
		p.Release()
	}
}
