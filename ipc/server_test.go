package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// A script is a Handler in which each operation is a function.
type script struct {
	ops   map[uint32]op
	drops atomic.Int32
}

type op struct {
	parallel bool
	limit    time.Duration
	run      func(ctx context.Context, p *Packet) ([]byte, []*os.File, error)
}

func (s *script) Begin(p *Packet) (Call, error) {
	o, ok := s.ops[p.Op]
	if !ok {
		return nil, errUnknown
	}
	if o.limit == 0 {
		o.limit = time.Minute
	}
	p.Open()
	kept := *p
	kept.Body = slices.Clone(p.Body)
	return &scriptCall{s, o, kept}, nil
}

var errUnknown = errors.New("unknown operation")

type scriptCall struct {
	script *script
	op     op
	packet Packet
}

func (c *scriptCall) Parallel() bool       { return c.op.parallel }
func (c *scriptCall) Limit() time.Duration { return c.op.limit }
func (c *scriptCall) Start()               {}
func (c *scriptCall) Drop() error          { c.script.drops.Add(1); c.packet.CloseFiles(); return nil }
func (c *scriptCall) Run(ctx context.Context) ([]byte, []*os.File, error) {
	defer c.packet.CloseFiles()
	return c.op.run(ctx, &c.packet)
}

// The operations of tests.
const (
	opEcho     = iota // answers with the request's body
	opWait            // waits for its context, and answers with its error
	opParallel        // the same beside others
	opOpen            // answers with two files
	opRefuse          // ENOENT
	opFail            // ends Serve
	opSleep           // 20 ms, and never asks for its context
)

var errFail = errors.New("handler's error")

// newScript has the operations, and tells on started when opWait, opParallel
// or opSleep runs.
func newScript() (s *script, started chan uint32) {
	started = make(chan uint32, 1000)
	wait := func(ctx context.Context, p *Packet) ([]byte, []*os.File, error) {
		started <- p.Call
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}
	return &script{ops: map[uint32]op{
		opEcho:     {run: func(_ context.Context, p *Packet) ([]byte, []*os.File, error) { return p.Body, nil, nil }},
		opWait:     {run: wait},
		opParallel: {run: wait, parallel: true},
		opOpen: {run: func(context.Context, *Packet) ([]byte, []*os.File, error) {
			r, w, err := os.Pipe()
			return nil, []*os.File{r, w}, err
		}},
		opRefuse: {run: func(context.Context, *Packet) ([]byte, []*os.File, error) { return nil, nil, syscall.ENOENT }},
		opFail:   {run: func(context.Context, *Packet) ([]byte, []*os.File, error) { return nil, nil, errFail }},
		opSleep: {run: func(_ context.Context, p *Packet) ([]byte, []*os.File, error) {
			started <- p.Call
			time.Sleep(20 * time.Millisecond)
			return nil, nil, nil
		}},
	}}, started
}

// serve serves h to the returned Conn and returns how to wait for its end.
func serve(t testing.TB, h Handler) (peer *Conn, end func() error) {
	t.Helper()
	a, b := connPair(t, 4096)
	result := make(chan error, 1)
	go func() {
		result <- Serve(t.Context(), b, h)
		b.Close()
	}()
	var once sync.Once
	var err error
	end = func() error {
		t.Helper()
		once.Do(func() {
			select {
			case err = <-result:
			case <-time.After(10 * time.Second):
				buf := make([]byte, 1<<16)
				t.Fatalf("Serve does not return:\n%s", buf[:runtime.Stack(buf, true)])
			}
		})
		return err
	}
	t.Cleanup(func() { a.Close(); end() })
	return a, end
}

// request sends a request as no Client need do.
func request(t testing.TB, c *Conn, op, call uint32) {
	t.Helper()
	if err := c.Send(t.Context(), time.Second, &Packet{Type: Request, Op: op, Call: call, Value: 60_000}); err != nil {
		t.Fatal(err)
	}
}

// next receives an answer.
func next(t testing.TB, c *Conn) Packet {
	t.Helper()
	var p Packet
	c.watch.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := c.Receive(&p); err != nil {
		t.Fatal(err)
	}
	p.Release()
	return p
}

func TestViolationsEndServe(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		packets      []Packet
	}{
		{"first call is not 1", "out of order", []Packet{{Type: Request, Call: 2}}},
		{"call 0", "out of order", []Packet{{Type: Request, Call: 0}}},
		{"a number twice", "out of order", []Packet{{Type: Request, Call: 1}, {Type: Request, Call: 1}}},
		{"a number left out", "out of order", []Packet{{Type: Request, Call: 1}, {Type: Request, Call: 3}}},
		{"cancel before any call", "cancels no call", []Packet{{Type: Cancel, Call: 1}}},
		{"cancel of call 0", "cancels no call", []Packet{{Type: Request, Call: 1}, {Type: Cancel, Call: 0}}},
		{"cancel of the next call", "cancels no call", []Packet{{Type: Request, Call: 1}, {Type: Cancel, Call: 2}}},
		{"cancel twice", "cancels no call", []Packet{{Type: Request, Call: 1}, {Type: Cancel, Call: 1}, {Type: Cancel, Call: 1}}},
		{"cancel with a body", "cancels no call", []Packet{{Type: Request, Call: 1}, {Type: Cancel, Call: 1, Body: []byte{1}}}},
		{"cancel with a file", "cancels no call", []Packet{{Type: Request, Call: 1}, {Type: Cancel, Call: 1, Files: []*os.File{os.Stdin}}}},
		{"reply", "not a request: reply", []Packet{{Type: Reply, Call: 1}}},
		{"refusal", "not a request: refusal", []Packet{{Type: Refusal, Call: 1}}},
		{"ready", "not a request: ready", []Packet{{Type: Ready, Files: []*os.File{os.Stdin}}}},
		{"enter", "not a request: enter", []Packet{{Type: Enter}}},
		{"log record to a handler that takes none", "not a request: log", []Packet{{Type: Log}}},
		{"start", "not a request: start", []Packet{{Type: Start}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NoLeaks(t)
			s, _ := newScript()
			conn, end := serve(t, s)
			for i := range tt.packets {
				tt.packets[i].Value = 60_000
				if err := conn.Send(t.Context(), time.Second, &tt.packets[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := end(); !isProtocolError(err, tt.reason) {
				t.Errorf("got %v, want a ProtocolError: %s", err, tt.reason)
			}
		})
	}
}

func TestServeReturnsTheFirstError(t *testing.T) {
	for _, tt := range []struct {
		op   uint32
		want error
	}{{99, errUnknown}, {opFail, errFail}} {
		t.Run(tt.want.Error(), func(t *testing.T) {
			testenv.NoLeaks(t)
			s, started := newScript()
			conn, end := serve(t, s)
			request(t, conn, opParallel, 1) // runs on meanwhile, and ends with Serve
			request(t, conn, opWait, 2)     // a reader of its own is in Receive when the error comes
			<-started
			<-started
			request(t, conn, opParallel, 3)
			if tt.op == opFail {
				if err := conn.Send(t.Context(), time.Second, &Packet{Type: Cancel, Call: 2}); err != nil {
					t.Fatal(err)
				}
			}
			request(t, conn, tt.op, 4)
			if err := end(); err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// Outstanding is what a Client keeps to; one more is nobody's mistake.
func TestTooManyOutstanding(t *testing.T) {
	for _, op := range []uint32{opParallel, opWait} {
		t.Run(fmt.Sprint(op), func(t *testing.T) {
			testenv.NoLeaks(t)
			s, started := newScript()
			conn, end := serve(t, s)
			for i := range uint32(Outstanding) {
				request(t, conn, op, i+1)
			}
			<-started
			request(t, conn, op, Outstanding+1)
			if err := end(); !isProtocolError(err, "too many") {
				t.Errorf("got %v, want a ProtocolError", err)
			}
		})
	}
}

// A peer that reads no answer makes this side keep no more than the answers
// to its outstanding calls: else each 20-byte request of an unlimited,
// parallel operation would cost a goroutine and a buffer for ten seconds.
func TestUnreadAnswersAreBounded(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	s.ops[opEcho] = op{parallel: true, run: func(context.Context, *Packet) ([]byte, []*os.File, error) {
		return make([]byte, 4096), nil, nil
	}}
	conn, end := serve(t, s)
	before := runtime.NumGoroutine()
	most, refused := 0, false
	for i := range uint32(5000) {
		err := conn.Send(t.Context(), 100*time.Millisecond, &Packet{Type: Request, Op: opEcho, Call: i + 1, Value: 60_000})
		if err != nil {
			refused = true
			break
		}
		if i%16 == 15 {
			time.Sleep(2 * time.Millisecond) // the handlers return meanwhile
		}
		most = max(most, runtime.NumGoroutine()-before)
	}
	if !refused || most > 3*Outstanding {
		t.Errorf("a peer that reads nothing keeps %d goroutines, refused %t", most, refused)
	}
	if refused {
		if err := end(); !isProtocolError(err, "too many") {
			t.Errorf("got %v, want a ProtocolError", err)
		}
	}
}

// Order holds for all but parallel calls, whatever waits.
func TestCallsRunInOrder(t *testing.T) {
	testenv.NoLeaks(t)
	var mu sync.Mutex
	var order []uint32
	running := 0
	s := &script{ops: map[uint32]op{
		0: {run: func(ctx context.Context, p *Packet) ([]byte, []*os.File, error) {
			mu.Lock()
			order = append(order, p.Call)
			running++
			if running > 1 {
				t.Errorf("call %d runs beside another", p.Call)
			}
			mu.Unlock()
			if p.Call%5 == 1 {
				ctx.Done() // another goroutine reads from here
				time.Sleep(2 * time.Millisecond)
			}
			mu.Lock()
			running--
			mu.Unlock()
			return nil, nil, nil
		}},
	}}
	conn, end := serve(t, s)
	const n = 300
	go func() {
		tokens := uint32(0)
		for i := range uint32(n) {
			for i-tokens >= Outstanding {
				var p Packet
				if conn.Receive(&p) != nil {
					return
				}
				p.Release()
				tokens++
			}
			conn.Send(context.Background(), time.Second, &Packet{Type: Request, Call: i + 1, Value: 60_000})
		}
		for ; tokens < n; tokens++ {
			var p Packet
			if conn.Receive(&p) != nil {
				return
			}
			p.Release()
		}
		conn.Close()
	}()
	if err := end(); err != nil {
		t.Error(err)
	}
	if len(order) != n || !slices.IsSorted(order) {
		t.Errorf("%d calls ran, in the order %v", len(order), order)
	}
}

// What is parallel and comes while a sequential call runs waits for it, and
// then runs beside what is next.
func TestParallelWaitsForWhatWasBefore(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	conn, end := serve(t, s)
	request(t, conn, opWait, 1)
	if got := <-started; got != 1 {
		t.Fatalf("call %d started, want 1", got)
	}
	request(t, conn, opParallel, 2)
	request(t, conn, opParallel, 3)
	request(t, conn, opWait, 4)
	time.Sleep(20 * time.Millisecond)
	if n := len(started); n != 0 {
		t.Fatalf("%d calls run beside a sequential one", n)
	}
	if err := conn.Send(t.Context(), time.Second, &Packet{Type: Cancel, Call: 1}); err != nil {
		t.Fatal(err)
	}
	var got []uint32
	for range 3 {
		got = append(got, <-started)
	}
	slices.Sort(got)
	if !slices.Equal(got, []uint32{2, 3, 4}) {
		t.Errorf("calls %v started, want 2, 3 and 4 at once", got)
	}
	if p := next(t, conn); p.Type != Refusal || p.Call != 1 || syscall.Errno(p.Value) != syscall.ECANCELED {
		t.Errorf("got %+v, want ECANCELED for call 1", p)
	}
	conn.Close()
	if err := end(); err != nil {
		t.Error(err)
	}
}

// A call that is cancelled while it waits for another never runs.
func TestCancelOfAQueuedCall(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	conn, end := serve(t, s)
	request(t, conn, opWait, 1)
	<-started
	request(t, conn, opWait, 2)
	for _, call := range []uint32{2, 1} {
		if err := conn.Send(t.Context(), time.Second, &Packet{Type: Cancel, Call: call}); err != nil {
			t.Fatal(err)
		}
	}
	for call := range uint32(2) {
		if p := next(t, conn); p.Call != call+1 || p.Type != Refusal || syscall.Errno(p.Value) != syscall.ECANCELED {
			t.Errorf("got %+v, want ECANCELED for call %d", p, call+1)
		}
	}
	if len(started) != 0 || s.drops.Load() != 1 {
		t.Errorf("%d more calls ran, %d were dropped, want 0 and 1", len(started), s.drops.Load())
	}
	conn.Close()
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestDeadlineReachesTheHandler(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	s.ops[opWait+100] = op{limit: 20 * time.Millisecond, run: s.ops[opWait].run}
	conn, _ := serve(t, s)
	for i, tt := range []struct {
		op, value uint32
	}{
		{opWait, 20},              // the caller's limit
		{opWait + 100, 1<<32 - 1}, // the operation's own
	} {
		start := time.Now()
		if err := conn.Send(t.Context(), time.Second, &Packet{Type: Request, Op: tt.op, Call: uint32(i + 1), Value: tt.value}); err != nil {
			t.Fatal(err)
		}
		p := next(t, conn)
		if p.Type != Refusal || syscall.Errno(p.Value) != syscall.ETIMEDOUT {
			t.Errorf("%+v: got %+v, want ETIMEDOUT", tt, p)
		}
		if d := time.Since(start); d > 5*time.Second || d < 20*time.Millisecond {
			t.Errorf("%+v: answered after %v", tt, d)
		}
		<-started
	}
}

// A call without time could be refused before anybody has judged it, so it is
// none that a Client makes.
func TestCallWithoutTime(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	conn, end := serve(t, s)
	if err := conn.Send(t.Context(), time.Second, &Packet{Type: Request, Op: opWait, Call: 1}); err != nil {
		t.Fatal(err)
	}
	var protocol *ProtocolError
	if err := end(); !errors.As(err, &protocol) || len(started) != 0 {
		t.Errorf("got %v, ran %d times; want a protocol error", err, len(started))
	}
}

// A call's context behaves as any: its error comes with the end of Done and
// stays, and contexts made from it end with it.
func TestCallContext(t *testing.T) {
	testenv.NoLeaks(t)
	type result struct {
		before, derived, own, later error
		hasDeadline                 bool
	}
	results := make(chan result, 1)
	s := &script{ops: map[uint32]op{0: {run: func(ctx context.Context, _ *Packet) ([]byte, []*os.File, error) {
		r := result{before: ctx.Err()}
		_, r.hasDeadline = ctx.Deadline()
		derived, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		<-derived.Done()
		r.derived, r.own = context.Cause(derived), ctx.Err()
		time.Sleep(5 * time.Millisecond)
		r.later = ctx.Err()
		results <- r
		return nil, nil, nil
	}}}}
	conn, _ := serve(t, s)
	request(t, conn, 0, 1)
	if err := conn.Send(t.Context(), time.Second, &Packet{Type: Cancel, Call: 1}); err != nil {
		t.Fatal(err)
	}
	want := result{nil, context.Canceled, context.Canceled, context.Canceled, true}
	if got := <-results; got != want {
		t.Errorf("cancelled: got %v, want %v", got, want)
	}
	next(t, conn)
	if err := conn.Send(t.Context(), time.Second, &Packet{Type: Request, Call: 2, Value: 10}); err != nil {
		t.Fatal(err)
	}
	want = result{nil, context.DeadlineExceeded, context.DeadlineExceeded, context.DeadlineExceeded, true}
	if got := <-results; got != want {
		t.Errorf("late: got %v, want %v", got, want)
	}
}

// What a handler's goroutine does with the context after the call has ended
// must not start a second reader.
func TestContextOutlivesItsCall(t *testing.T) {
	testenv.NoLeaks(t)
	contexts := make(chan context.Context, 1)
	s, _ := newScript()
	s.ops[100] = op{run: func(ctx context.Context, _ *Packet) ([]byte, []*os.File, error) {
		contexts <- ctx
		return nil, nil, nil
	}}
	conn, _ := serve(t, s)
	for i := range uint32(100) {
		request(t, conn, 100, 2*i+1)
		next(t, conn)
		ctx := <-contexts
		var done sync.WaitGroup
		done.Go(func() { <-ctx.Done() })
		request(t, conn, opEcho, 2*i+2)
		done.Wait()
		if ctx.Err() == nil {
			t.Fatal("the context of a call that has ended has not")
		}
		next(t, conn)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	for _, op := range []uint32{opEcho, opWait, opParallel} {
		t.Run(fmt.Sprint(op), func(t *testing.T) {
			testenv.NoLeaks(t)
			s, started := newScript()
			a, b := connPair(t, 4096)
			ctx, cancel := context.WithCancelCause(t.Context())
			result := make(chan error)
			go func() { result <- Serve(ctx, b, s) }()
			request(t, a, op, 1)
			if op != opEcho {
				<-started
			}
			why := errors.New("why")
			cancel(why)
			if err := <-result; err != why {
				t.Errorf("got %v, want %v", err, why)
			}
			if err := a.Send(t.Context(), time.Second, &Packet{Type: Request}); err != nil {
				t.Errorf("Serve closed the connection: %v", err)
			}
		})
	}
}

func TestPeerGoneEndsServe(t *testing.T) {
	for _, op := range []uint32{opEcho, opWait, opParallel, opOpen, opSleep} {
		t.Run(fmt.Sprint(op), func(t *testing.T) {
			testenv.NoLeaks(t)
			s, started := newScript()
			conn, end := serve(t, s)
			request(t, conn, op, 1)
			request(t, conn, opOpen, 2)
			if op == opWait || op == opParallel || op == opSleep {
				<-started
			}
			conn.Close()
			if err := end(); err != nil {
				t.Errorf("operation %d: got %v, want nil", op, err)
			}
		})
	}
}

func TestFilesOfRequestsAreClosed(t *testing.T) {
	testenv.NoLeaks(t)
	s, started := newScript()
	conn, end := serve(t, s)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, op := range []uint32{opEcho, opRefuse, opWait, opEcho, opParallel, 99} {
		p := Packet{Type: Request, Op: op, Call: uint32(i + 1), Value: 60_000, Files: []*os.File{w, w}}
		if err := conn.Send(t.Context(), time.Second, &p); err != nil {
			t.Fatal(err)
		}
	}
	<-started
	w.Close()
	if err := end(); err != errUnknown {
		t.Errorf("got %v, want %v", err, errUnknown)
	}
	if n, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %d, %v: a file of a request is still open", n, err)
	}
}

func BenchmarkServe(b *testing.B) {
	s, _ := newScript()
	conn, _ := serve(b, s)
	var p Packet
	for i := uint32(1); b.Loop(); i++ {
		if err := conn.Send(b.Context(), time.Second, &Packet{Type: Request, Op: opEcho, Call: i, Value: 60_000}); err != nil {
			b.Fatal(err)
		}
		if err := conn.Receive(&p); err != nil {
			b.Fatal(err)
		}
		p.Release()
	}
}

func Example() {
	near, far, err := Pair()
	if err != nil {
		panic(err)
	}
	serving, err := NewConn(far, NewBuffers(64))
	if err != nil {
		panic(err)
	}
	s, _ := newScript()
	go Serve(context.Background(), serving, s)

	calling, err := NewConn(near, NewBuffers(64))
	if err != nil {
		panic(err)
	}
	client := NewClient(calling)
	defer client.Close()
	answer, err := client.Call(context.Background(), opEcho, time.Second, []byte("hello"), nil)
	fmt.Printf("%s %v\n", answer.Body, err)
	answer.Release()
	_, err = client.Call(context.Background(), opRefuse, time.Second, nil, nil)
	fmt.Println(err)
	// Output:
	// hello <nil>
	// no such file or directory
}
