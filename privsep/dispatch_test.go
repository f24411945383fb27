package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// A house has a porch and a room. What happens there is decided by the word in
// the request, so that one policy serves all tests of this file.
type porch struct {
	mu   sync.Mutex
	said []string
	wait chan struct{} // a parallel call runs until it is closed
	in   chan struct{} // told when it runs
}

type room struct{ *porch }

type wordRequest struct {
	Word string `privsep:"max=32"`
}

func (r *wordRequest) Check() error {
	switch r.Word {
	case "bad form":
		return errors.New("a form that no word has")
	case "panic in Check":
		panic("in Check")
	}
	return nil
}

type wordReply struct {
	Phase string `privsep:"max=32"`
}

type fileRequest struct {
	Word string   `privsep:"max=32"`
	File *os.File `privsep:"kind=pipe-read"`
}

func (r *fileRequest) Check() error { return (&wordRequest{r.Word}).Check() }

type fileReply struct {
	File *os.File `privsep:"kind=pipe-read"`
	Text string   `privsep:"max=32"`
}

var (
	enterOp = privsep.Op[wordRequest, wordReply]{Name: "enter", Calls: 5}
	sayOp   = privsep.Op[wordRequest, wordReply]{Name: "say", Calls: privsep.Unlimited}
	fewOp   = privsep.Op[wordRequest, wordReply]{Name: "few", Calls: 3}
	knockOp = privsep.Op[wordRequest, wordReply]{Name: "knock", Calls: privsep.Unlimited, Parallel: true}
	fileOp  = privsep.Op[fileRequest, fileReply]{Name: "file", Calls: privsep.Unlimited}
	roomOp  = privsep.Op[wordRequest, wordReply]{Name: "sit", Calls: privsep.Unlimited}
)

func newHouse(launch func(*porch) privsep.Launch) (*privsep.Policy, *privsep.Phase[porch]) {
	p := new(privsep.Policy)
	outside := privsep.NewPhase(p, "porch", launch)
	inside := privsep.NewPhase[room](p, "room", nil)
	privsep.Advance(outside, enterOp, inside, (*porch).enter)
	privsep.Permit(outside, sayOp, (*porch).say)
	privsep.Permit(outside, fewOp, (*porch).say)
	privsep.Permit(outside, knockOp, (*porch).knock)
	privsep.Permit(outside, fileOp, (*porch).file)
	privsep.Permit(inside, fewOp, (*room).say)
	privsep.Permit(inside, roomOp, (*room).say)
	return p, outside
}

var errTrouble = errors.New("some trouble of the monitor's own: /secret/path")

// answer is what a word leads to.
func answer(ctx context.Context, word string) error {
	switch word {
	case "ENOENT":
		return &os.PathError{Op: "open", Path: "/secret/path", Err: syscall.ENOENT}
	case "EACCES":
		return fmt.Errorf("no: %w", syscall.EACCES)
	case "errno 0":
		return syscall.Errno(0)
	case "trouble":
		return errTrouble
	case "canceled":
		return fmt.Errorf("wrapped: %w", context.Canceled)
	case "late":
		return fmt.Errorf("wrapped: %w", context.DeadlineExceeded)
	case "violation":
		return fmt.Errorf("wrapped: %w", privsep.Violation("nobody says that"))
	case "panic":
		panic("at the word")
	case "wait":
		<-ctx.Done()
		return ctx.Err()
	case "kill":
		return syscall.Kill(workers()[0], syscall.SIGKILL) // the only one
	}
	return nil
}

func (p *porch) say(ctx context.Context, r wordRequest) (wordReply, error) {
	word := r.Word
	if own, ok := strings.CutPrefix(word, "I am "); ok {
		word = hostNumber(own)
	}
	p.mu.Lock()
	p.said = append(p.said, word)
	p.mu.Unlock()
	return wordReply{"porch"}, answer(ctx, r.Word)
}

func (p *porch) words() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.said)
}

func (p *porch) enter(ctx context.Context, r wordRequest) (wordReply, *room, error) {
	switch err := answer(ctx, r.Word); {
	case err != nil:
		return wordReply{}, &room{p}, err // a careless handler: the error must win
	case r.Word != "friend":
		return wordReply{"porch"}, nil, nil
	}
	return wordReply{"room"}, &room{p}, nil
}

func (p *porch) knock(ctx context.Context, r wordRequest) (wordReply, error) {
	p.in <- struct{}{}
	select {
	case <-p.wait:
	case <-ctx.Done():
		return wordReply{}, ctx.Err()
	}
	return p.say(ctx, r)
}

func (p *porch) file(ctx context.Context, r fileRequest) (fileReply, error) {
	if r.Word == "no reply" {
		return fileReply{}, nil // which has no file: the monitor's own mistake
	}
	reader, w, err := os.Pipe()
	if err != nil {
		return fileReply{}, err
	}
	defer w.Close()
	io.Copy(w, r.File)
	reply := fileReply{File: reader}
	if r.Word == "too long" {
		reply.Text = strings.Repeat("x", 33)
	}
	return reply, answer(ctx, r.Word)
}

func (r *room) say(ctx context.Context, q wordRequest) (wordReply, error) {
	return wordReply{"room"}, answer(ctx, q.Word)
}

// visit serves the house in this process and returns who calls, what the
// monitor would log is not kept.
func visit(t testing.TB) (c *privsep.Conn, state *porch, end func() error) {
	t.Helper()
	mine, state, end := serveHouse(t)
	c, err := privsep.NewConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, state, end
}

func serveHouse(t testing.TB) (mine *os.File, state *porch, end func() error) {
	t.Helper()
	_, ph := newHouse(launchPorch)
	mine, theirs, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	state = &porch{wait: make(chan struct{}), in: make(chan struct{}, 100)}
	result := make(chan error, 1)
	go func() { result <- privsep.ServeConn(t.Context(), ph, state, theirs) }()
	end = sync.OnceValue(func() error {
		select {
		case err := <-result:
			return err
		case <-time.After(10 * time.Second):
			return errors.New("ServeConn does not return")
		}
	})
	t.Cleanup(func() {
		mine.Close()
		end()
	})
	return mine, state, end
}

func launchPorch(*porch) privsep.Launch { return launch("nothing") }

// hostile is the other side of a house, without the checks of a Conn.
func hostile(t testing.TB) (c *ipc.Client, state *porch, end func() error) {
	t.Helper()
	mine, state, end := serveHouse(t)
	conn, err := ipc.NewConn(mine, ipc.NewBuffers(4096))
	if err != nil {
		t.Fatal(err)
	}
	c = ipc.NewClient(conn)
	t.Cleanup(func() { c.Close() })
	return c, state, end
}

// send makes a call of which nothing is checked before it is sent.
func send(t testing.TB, c *ipc.Client, op string, request any, files ...*os.File) error {
	t.Helper()
	h := fnv.New32a()
	io.WriteString(h, op)
	body, ok := request.([]byte)
	if !ok {
		var plan *ipc.Plan
		var err error
		switch request.(type) {
		case *wordRequest:
			plan, err = ipc.PlanFor[wordRequest]()
		case *fileRequest:
			plan, err = ipc.PlanFor[fileRequest]()
		}
		if err == nil {
			body, files, err = plan.Encode(nil, request)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := c.Call(t.Context(), h.Sum32(), 10*time.Second, body, files)
	p.CloseFiles()
	p.Release()
	return err
}

// A nil state stays, and so does an error, whatever state came with it.
func TestAdvance(t *testing.T) {
	for _, tt := range []struct {
		word    string
		want    error
		advance bool
	}{
		{"stranger", nil, false},
		{"EACCES", syscall.EACCES, false},
		{"trouble", syscall.EIO, false},
		{"friend", nil, true},
	} {
		t.Run(tt.word, func(t *testing.T) {
			noLeaks(t)
			c, _, end := visit(t)
			if _, err := enterOp.Call(t.Context(), c, wordRequest{tt.word}); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			_, stillOutside := sayOp.Call(t.Context(), c, wordRequest{"hello"})
			if (stillOutside != nil) != tt.advance {
				t.Fatalf("an operation of the phase before: got %v", stillOutside)
			}
			var v *privsep.ViolationError
			if tt.advance {
				if err := end(); !errors.As(err, &v) || v.Phase != "room" || v.Op != "say" || v.Reason != "not permitted in this phase" {
					t.Errorf("got %v, want a violation in the new phase", err)
				}
				return
			}
			if _, err := roomOp.Call(t.Context(), c, wordRequest{"hello"}); err == nil {
				t.Fatal("an operation of the next phase ran")
			}
			if err := end(); !errors.As(err, &v) || v.Phase != "porch" || v.Op != "sit" {
				t.Errorf("got %v, want a violation in the old phase", err)
			}
		})
	}
}

// What was sent before an operation that advances is judged in the old phase,
// what was sent after it in the new one, however long each takes.
func TestAdvanceWaitsItsTurn(t *testing.T) {
	for range 50 {
		c, state, _ := visit(t)
		var calls sync.WaitGroup
		for i := range 3 {
			calls.Go(func() {
				if r, err := knockOp.Call(t.Context(), c, wordRequest{fmt.Sprint(i)}); err != nil || r.Phase != "porch" {
					t.Errorf("a call sent before: got %v, %v", r, err)
				}
			})
		}
		for range 3 {
			<-state.in
		}
		calls.Go(func() {
			if r, err := enterOp.Call(t.Context(), c, wordRequest{"friend"}); err != nil || r.Phase != "room" {
				t.Errorf("got %v, %v", r, err)
			}
			if n := len(state.words()); n != 3 {
				t.Errorf("advanced while %d of 3 calls had run", n)
			}
		})
		time.Sleep(time.Millisecond)
		close(state.wait)
		calls.Wait()
		if r, err := roomOp.Call(t.Context(), c, wordRequest{}); err != nil || r.Phase != "room" {
			t.Errorf("a call sent after: got %v, %v", r, err)
		}
		c.Close()
	}
}

// The same without the pause in which a goroutine begins: a parallel call and
// one that advances, sent at once.
func TestParallelCallSentBeforeAdvance(t *testing.T) {
	for range 200 {
		mine, state, end := serveHouse(t)
		close(state.wait)
		conn, err := ipc.NewConn(mine, ipc.NewBuffers(4096))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := ipc.PlanFor[wordRequest]()
		if err != nil {
			t.Fatal(err)
		}
		for i, op := range []string{"knock", "enter"} {
			h := fnv.New32a()
			io.WriteString(h, op)
			body, _, _ := plan.Encode(nil, &wordRequest{"friend"})
			p := ipc.Packet{Type: ipc.Request, Op: h.Sum32(), Call: uint32(i + 1), Value: 1000, Body: body}
			if err := conn.Send(t.Context(), time.Second, &p); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			var p ipc.Packet
			if err := conn.Receive(&p); err != nil {
				t.Fatal(err, end())
			}
			if p.Type != ipc.Reply {
				t.Errorf("call %d: got %v %d", p.Call, p.Type, p.Value)
			}
			p.Release()
		}
		conn.Close()
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
}

// What may not be called may not be called and given up either.
func TestUnpermittedCallIsNotCancelled(t *testing.T) {
	noLeaks(t)
	mine, _, end := serveHouse(t)
	conn, err := ipc.NewConn(mine, ipc.NewBuffers(4096))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	plan, err := ipc.PlanFor[wordRequest]()
	if err != nil {
		t.Fatal(err)
	}
	packet := func(call uint32, op, word string) *ipc.Packet {
		h := fnv.New32a()
		io.WriteString(h, op)
		body, _, _ := plan.Encode(nil, &wordRequest{word})
		return &ipc.Packet{Type: ipc.Request, Op: h.Sum32(), Call: call, Value: 60_000, Body: body}
	}
	for _, p := range []*ipc.Packet{
		packet(1, "say", "wait"), packet(2, "sit", "x"), // of the next phase, behind one that runs
		{Type: ipc.Cancel, Call: 2}, {Type: ipc.Cancel, Call: 1},
	} {
		if err := conn.Send(t.Context(), time.Second, p); err != nil {
			t.Fatal(err)
		}
	}
	var violation *privsep.ViolationError
	if err := end(); !errors.As(err, &violation) || violation.Op != "sit" {
		t.Errorf("got %v, want a violation", err)
	}
}

// A cancel reaches a call for whose end one that advances waits.
func TestCancelReachesWhatAdvanceWaitsFor(t *testing.T) {
	noLeaks(t)
	c, state, _ := visit(t)
	ctx, cancel := context.WithCancel(t.Context())
	var calls sync.WaitGroup
	calls.Go(func() { knockOp.Call(ctx, c, wordRequest{}) })
	<-state.in
	calls.Go(func() {
		if _, err := enterOp.Call(t.Context(), c, wordRequest{"friend"}); err != nil {
			t.Error(err)
		}
	})
	time.Sleep(5 * time.Millisecond)
	start := time.Now()
	cancel()
	calls.Wait()
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("advanced %v after the cancel", d)
	}
}

// A budget is the session's, not the phase's.
func TestBudgetSpansPhases(t *testing.T) {
	noLeaks(t)
	c, _, end := visit(t)
	say := func(op privsep.Op[wordRequest, wordReply], word string) error {
		_, err := op.Call(t.Context(), c, wordRequest{word})
		return err
	}
	for _, word := range []string{"hello", "ENOENT"} { // a refused call is a call
		if err := say(fewOp, word); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if err := say(enterOp, "friend"); err != nil {
		t.Fatal(err)
	}
	if err := say(fewOp, "third"); err != nil {
		t.Fatal(err)
	}
	if err := say(fewOp, "fourth"); err == nil {
		t.Fatal("a call over its budget was answered")
	}
	var v *privsep.ViolationError
	if err := end(); !errors.As(err, &v) || *v != (privsep.ViolationError{Phase: "room", Op: "few", Reason: "called too often"}) {
		t.Errorf("got %v", err)
	}
}

func TestRefusals(t *testing.T) {
	noLeaks(t)
	c, _, _ := visit(t)
	for _, tt := range []struct {
		word string
		want error
	}{
		{"hello", nil},
		{"ENOENT", syscall.ENOENT},
		{"ENOENT", fs.ErrNotExist},
		{"EACCES", fs.ErrPermission},
		{"errno 0", syscall.EIO},
		{"trouble", syscall.EIO},
		{"canceled", syscall.ECANCELED},
		{"late", syscall.ETIMEDOUT},
	} {
		_, err := sayOp.Call(t.Context(), c, wordRequest{tt.word})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.word, err, tt.want)
		}
		var op *privsep.OpError
		if tt.want != nil && (!errors.As(err, &op) || op.Op != "say") {
			t.Errorf("%s: got %T, want an OpError", tt.word, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the monitor's text crossed the boundary: %v", tt.word, err)
		}
	}
}

// What ends a session is not answered at all.
func TestWhatEndsASession(t *testing.T) {
	word := func(word string) *wordRequest { return &wordRequest{word} }
	for _, tt := range []struct {
		name, op string
		request  any
		want     privsep.ViolationError
	}{
		{"unknown operation", "nonsense", word(""), privsep.ViolationError{Phase: "porch", Reason: "unknown operation"}},
		{"operation of another phase", "sit", word(""), privsep.ViolationError{Phase: "porch", Op: "sit", Reason: "not permitted in this phase"}},
		{"Check fails", "say", word("bad form"), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "a form that no word has"}},
		{"Check panics", "say", word("panic in Check"), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "in Check"}},
		{"handler's verdict", "say", word("violation"), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "nobody says that"}},
		{"verdict of one that advances", "enter", word("violation"), privsep.ViolationError{Phase: "porch", Op: "enter", Reason: "nobody says that"}},
		{"empty body", "say", []byte{}, privsep.ViolationError{Phase: "porch", Op: "say", Reason: "ends too early"}},
		{"not msgpack", "say", []byte("\xc1"), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "wrong type"}},
		{"over its bound", "say", []byte("\x81\xa4Word\xd9\x21" + strings.Repeat("x", 33)), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "longer than its bound"}},
		{"trailing byte", "say", []byte("\x81\xa4Word\xa0\x00"), privsep.ViolationError{Phase: "porch", Op: "say", Reason: "bytes after the end"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			c, _, end := hostile(t)
			if err := send(t, c, tt.op, tt.request); err != ipc.ErrClosed {
				t.Errorf("got %v, want no answer", err)
			}
			var v *privsep.ViolationError
			if err := end(); !errors.As(err, &v) || v.Phase != tt.want.Phase || v.Op != tt.want.Op || !strings.Contains(v.Reason, tt.want.Reason) {
				t.Errorf("got %v, want %v", err, &tt.want)
			}
		})
	}
	t.Run("handler panics", func(t *testing.T) {
		noLeaks(t)
		c, _, end := hostile(t)
		other, _, _ := visit(t)
		if err := send(t, c, "say", word("panic")); err != ipc.ErrClosed {
			t.Errorf("got %v, want no answer", err)
		}
		var p *privsep.PanicError
		if err := end(); !errors.As(err, &p) || p.Phase != "porch" || p.Op != "say" || p.Value != "at the word" ||
			!strings.Contains(string(p.Stack), "dispatch_test.go") {
			t.Errorf("got %v, want the panic with its stack", err)
		}
		if _, err := sayOp.Call(t.Context(), other, wordRequest{"hello"}); err != nil {
			t.Errorf("another session: %v", err)
		}
	})
}

// The worker's own Check and bounds fail before anything is sent.
func TestCheckRunsBeforeSending(t *testing.T) {
	noLeaks(t)
	c, state, _ := visit(t)
	for _, word := range []string{"bad form", strings.Repeat("x", 33)} {
		var op *privsep.OpError
		if _, err := sayOp.Call(t.Context(), c, wordRequest{word}); !errors.As(err, &op) {
			t.Errorf("got %v, want an OpError", err)
		}
	}
	if _, err := sayOp.Call(t.Context(), c, wordRequest{"good"}); err != nil {
		t.Errorf("after a mistake of its own: %v", err)
	}
	if got := state.words(); !slices.Equal(got, []string{"good"}) {
		t.Errorf("%q were said, want the good word alone", got)
	}
}

func TestFiles(t *testing.T) {
	noLeaks(t)
	c, _, _ := visit(t)
	for _, tt := range []struct {
		word string
		want error
	}{
		{"hello", nil}, {"ENOENT", syscall.ENOENT}, {"trouble", syscall.EIO},
		{"no reply", syscall.EIO}, // its file is nil
		{"too long", syscall.EIO}, // beyond the reply's bound
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "content")
		w.Close()
		reply, err := fileOp.Call(t.Context(), c, fileRequest{tt.word, r})
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.word, err, tt.want)
		}
		if err := r.Close(); err != nil {
			t.Errorf("%s: the caller's file: %v", tt.word, err)
		}
		if err != nil {
			continue
		}
		if text, err := io.ReadAll(reply.File); err != nil || string(text) != "content" {
			t.Errorf("%s: got %q, %v", tt.word, text, err)
		}
		reply.File.Close()
	}
}

// Files of requests that are no requests are closed, and so are those of
// replies that are not sent.
func TestFilesOfViolations(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fmt.Fprint(w, "x")
	good := []byte("\x81\xa4Word\xa5hello")
	for _, tt := range []struct {
		name, op string
		body     any
		files    []*os.File
		reason   string
	}{
		{"none where one is declared", "file", good, nil, "wrong number of files"},
		{"two where one is declared", "file", good, []*os.File{r, r}, "wrong number of files"},
		{"one where none is declared", "say", good, []*os.File{r}, "wrong number of files"},
		{"the wrong end of a pipe", "file", good, []*os.File{w}, "needs a file of kind pipe-read"},
		{"with a bad body", "file", []byte("\xc1"), []*os.File{r}, "wrong type"},
		{"with a failing Check", "file", []byte("\x81\xa4Word\xa8bad form"), []*os.File{r}, "a form that no word has"},
		{"to an unknown operation", "nonsense", good, []*os.File{r, r, r}, "unknown operation"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			c, _, end := hostile(t)
			send(t, c, tt.op, tt.body, tt.files...)
			var v *privsep.ViolationError
			if err := end(); !errors.As(err, &v) || !strings.Contains(v.Reason, tt.reason) {
				t.Errorf("got %v, want a violation: %s", err, tt.reason)
			}
		})
	}
	for _, word := range []string{"violation", "wait"} {
		t.Run("handler with a file: "+word, func(t *testing.T) {
			noLeaks(t)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			defer r.Close()
			c, _, end := hostile(t)
			if word == "wait" {
				time.AfterFunc(20*time.Millisecond, func() { c.Close() })
			}
			send(t, c, "file", &fileRequest{word, r})
			end()
		})
	}
}

// A reply that is no reply: a worker trusts another no more than the monitor
// trusts it.
func TestWorkerRefusesBadReplies(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, tt := range []struct {
		name  string
		body  string
		files []*os.File
	}{
		{"a file that was not declared", "\x81\xa5Phase\xa0", []*os.File{r}},
		{"trailing byte", "\x81\xa5Phase\xa0\x00", nil},
		{"giant length", "\x81\xa5Phase\xdb\xff\xff\xff\xff", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			mine, theirs, err := ipc.Pair()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := ipc.NewConn(theirs, ipc.NewBuffers(4096))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() {
				var p ipc.Packet
				if conn.Receive(&p) == nil {
					p.Release()
					conn.Send(context.Background(), time.Second, &ipc.Packet{Type: ipc.Reply, Call: p.Call, Body: []byte(tt.body), Files: tt.files})
				}
			}()
			c, err := privsep.NewConn(mine)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			var format *ipc.FormatError
			if _, err := sayOp.Call(t.Context(), c, wordRequest{}); !errors.As(err, &format) {
				t.Errorf("got %v, want a FormatError", err)
			}
		})
	}
}

// A phase with a launch needs a monitor, and ServeConn is none.
func TestServeConnStartsNothing(t *testing.T) {
	noLeaks(t)
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "first", launchFirst)
	b := privsep.NewPhase(p, "second", func(*second) privsep.Launch { return launch("nothing") })
	privsep.Advance(a, move, b, forward)
	mine, theirs, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	c, err := privsep.NewConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	result := make(chan error)
	go func() { result <- privsep.ServeConn(t.Context(), a, new(first), theirs) }()
	if _, err := move.Call(t.Context(), c, empty{}); !errors.Is(err, ipc.ErrClosed) {
		t.Errorf("got %v, want no answer", err)
	}
	if err := <-result; err == nil || !strings.Contains(err.Error(), "needs a monitor") {
		t.Errorf("got %v", err)
	}
}

// Refusals and the monitor's own failures are for its log, with their text.
func TestLogTellsWhatTheWorkerIsNotTold(t *testing.T) {
	var log syncBuilder
	p, ph := newHouse(func(*porch) privsep.Launch { return launch("refusals") })
	m, err := privsep.NewMonitor(p, privsep.Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := privsep.Serve(t.Context(), m, ph, new(porch)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`level=INFO msg=refused session=1 phase=porch op=say err="open /secret/path: no such file or directory"`,
		`level=ERROR msg=failed session=1 phase=porch op=say err="some trouble of the monitor's own: /secret/path"`,
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no line %s:\n%s", want, log.String())
		}
	}
}

type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
