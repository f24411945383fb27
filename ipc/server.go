package ipc

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// sendLimit is how long an answer may wait for a peer that does not read. A
// Client always reads, so this is longer than any scheduling delay and short
// enough that a stalled session is noticed.
const sendLimit = 10 * time.Second

// A Handler judges and performs the calls of one connection.
type Handler interface {
	// Begin judges the form of a request when it arrives. It must not wait.
	// p.Body is valid until it returns. If it succeeds, it takes over p's
	// descriptors. An error is a violation and ends Serve.
	Begin(p *Packet) (Call, error)
}

// A Logger is a Handler that takes log records. To any other they are no
// message at all.
type Logger interface {
	// Log takes one record. It must not wait, and p is valid until it
	// returns. An error is a violation and ends Serve.
	Log(p *Packet) error
}

// A Call is a request whose form is good.
type Call interface {
	// Parallel says that the call may run beside others. All other calls of
	// a connection run one after another, in the order of their arrival,
	// and after the parallel ones that were sent before have begun.
	Parallel() bool

	// Start is called once, in the order of the calls' arrival: when what is
	// not Parallel and came before has ended, and nothing that is not and
	// comes after has started. It must not wait. Run or Drop follows.
	Start()

	// Limit is the longest that the call may take, whatever its caller says.
	Limit() time.Duration

	// Run performs the call and returns the answer: a reply's body and
	// files, which Serve closes, or a refusal: a [syscall.Errno] or a
	// context's error, as it is. Any other error ends Serve, whatever it
	// wraps.
	Run(ctx context.Context) (body []byte, files []*os.File, err error)

	// Drop gives up the call before it ran. An error ends Serve: what may not
	// be called may not be called and cancelled either.
	Drop() error
}

// A Mourner is a Handler that is told at once why Serve will return, while
// calls still run and before descriptors of a violation are closed, which may
// take their server's time.
type Mourner interface{ Failed(error) }

// Serve answers the calls that arrive on conn until the peer closes it (nil),
// ctx ends, or something is wrong: then the error that a Handler returned, or
// a [ProtocolError]. It returns when every call has, and leaves conn open.
func Serve(ctx context.Context, conn *Conn, h Handler) error {
	s := &server{conn: conn, handler: h, calls: make(map[uint32]*callContext)}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	defer s.cancel(nil)
	// The reader may be waiting in a receive when something else fails.
	stop := context.AfterFunc(s.ctx, func() { conn.watch.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	s.running.Go(s.read)
	s.running.Wait()
	if err := context.Cause(s.ctx); err != errPeerGone {
		return err
	}
	return nil
}

var errPeerGone = errors.New("ipc: peer closed the connection")

// A server is one connection being served.
//
// Calls usually run in the goroutine that received them: a hand-over to
// another goroutine would cost more than most calls. Only when a handler is
// about to wait, which shows in its asking for ctx.Done(), does a new
// goroutine take over reading, so that cancellation can reach the handler.
type server struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	failed  sync.Once
	conn    *Conn
	handler Handler
	running sync.WaitGroup // goroutines of this connection
	last    uint32         // newest call number seen; the reader's own, as is:
	cancels uint32         // cancels seen

	mu     sync.Mutex
	calls  map[uint32]*callContext // outstanding
	queue  []*callContext          // not started
	busy   bool                    // a goroutine starts what is in queue,
	inline bool                    // and it is the one that reads
}

// fail ends the connection; the first error counts.
func (s *server) fail(err error) {
	s.failed.Do(func() {
		s.cancel(err)
		if m, ok := s.handler.(Mourner); ok && err != errPeerGone {
			m.Failed(err)
		}
	})
}

// read receives packets until the connection ends or another goroutine took
// over.
func (s *server) read() {
	for reads := true; reads && s.ctx.Err() == nil; {
		var p Packet
		err := s.conn.Receive(&p)
		if err == nil {
			reads, err = s.take(&p)
		} else if err == io.EOF {
			err = errPeerGone
		}
		if err != nil {
			s.fail(err) // keeps an earlier cause: a deadline is how we were told
			p.CloseFiles()
			p.Release()
			return
		}
	}
}

// take judges a packet, and runs what it brings. It reports whether its
// goroutine still is the one that reads.
func (s *server) take(p *Packet) (reads bool, err error) {
	switch logger, ok := s.handler.(Logger); {
	case p.Type == Log && ok:
		if p.Call != 0 || p.Op != 0 || len(p.bare) > 0 {
			return false, &ProtocolError{"a log record with a call, an operation or files"}
		}
		err = logger.Log(p)
	case p.Type == Cancel:
		s.cancels++
		if p.Call == 0 || p.Call > s.last || s.cancels > s.last || len(p.Body)+len(p.bare) > 0 {
			return false, &ProtocolError{"cancels no call"}
		}
		s.mu.Lock()
		if c := s.calls[p.Call]; c != nil {
			c.end()
		}
		s.mu.Unlock()
	case p.Type == Request:
		var c *callContext
		if c, err = s.begin(p); err == nil {
			p.Release()
			return s.start(c), nil
		}
	default:
		err = &ProtocolError{"not a request: " + p.Type.String()}
	}
	p.Release()
	return true, err
}

func (s *server) begin(p *Packet) (*callContext, error) {
	if p.Call != s.last+1 {
		return nil, &ProtocolError{"call out of order"}
	}
	s.last = p.Call
	s.mu.Lock()
	outstanding := len(s.calls)
	s.mu.Unlock()
	if outstanding >= Outstanding {
		return nil, &ProtocolError{"too many calls outstanding"}
	}
	if p.Value == 0 { // no Client sends one
		return nil, &ProtocolError{"a call without time"}
	}
	call, err := s.handler.Begin(p)
	if err != nil {
		return nil, err
	}
	limit := min(call.Limit(), time.Duration(p.Value)*time.Millisecond)
	return &callContext{Context: s.ctx, server: s, call: call, number: p.Call, deadline: time.Now().Add(limit)}, nil
}

// start runs c, or leaves it to the goroutine that is busy. Order is kept for
// all calls: what was sent after an operation that changes the phase is judged
// in the new phase.
func (s *server) start(c *callContext) (reads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[c.number] = c
	s.queue = append(s.queue, c)
	if s.busy {
		return true
	}
	for s.busy, s.inline = true, true; len(s.queue) > 0; {
		c, s.queue = s.queue[0], s.queue[1:]
		s.mu.Unlock()
		if c.call.Start(); c.call.Parallel() {
			s.running.Go(c.run)
		} else {
			c.run()
		}
		s.mu.Lock()
	}
	reads, s.busy, s.inline, s.queue = s.inline, false, false, s.queue[:0]
	return reads
}

// takeOver starts a new reader if the one there is runs a call.
func (s *server) takeOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inline {
		s.inline = false
		s.running.Go(s.read)
	}
}

// A callContext is the context of one call. It costs nothing until a handler
// asks for Done.
type callContext struct {
	context.Context // the connection's
	server          *server
	call            Call
	number          uint32
	deadline        time.Time

	mu     sync.Mutex
	ended  bool
	inner  context.Context // since Done
	cancel context.CancelFunc
}

func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, true }

func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.inner != nil:
		return c.inner.Err()
	case c.ended:
		return context.Canceled
	case c.Context.Err() == nil && !time.Now().Before(c.deadline):
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

func (c *callContext) Done() <-chan struct{} {
	c.server.takeOver()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithDeadline(c.Context, c.deadline)
		if c.ended {
			c.cancel()
		}
	}
	return c.inner.Done()
}

// end ends the call's context.
func (c *callContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}

// run performs a call and answers it.
func (c *callContext) run() {
	s, answer := c.server, Packet{Type: Reply, Call: c.number}
	defer answer.CloseFiles()
	err := c.Err()
	if err != nil {
		if wrong := c.call.Drop(); wrong != nil {
			err = wrong
		}
	} else {
		answer.Body, answer.Files, err = c.call.Run(c)
	}
	if errno, refused := refusal(err); refused {
		err = c.answer(&Packet{Type: Refusal, Call: c.number, Value: uint32(errno)})
	} else if err == nil {
		err = c.answer(&answer)
	}
	c.end() // as every request's context
	switch err {
	case nil:
	case syscall.EPIPE:
		s.fail(errPeerGone)
	case os.ErrDeadlineExceeded:
		s.fail(&ProtocolError{"answers are not read"})
	default:
		s.fail(err)
	}
}

// answer sends an answer. The call is outstanding until then, or a peer that
// reads no answers could have any number of them wait here. It is so no longer
// when the answer goes out, because the caller may then send its next call at
// once.
func (c *callContext) answer(p *Packet) error {
	s := c.server
	err := retry(s.ctx, sendLimit, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		err := s.conn.send(p)
		if err == nil {
			delete(s.calls, c.number)
		}
		return err
	})
	if err == syscall.ETOOMANYREFS { // another process of this user may have sent them all
		err = c.answer(&Packet{Type: Refusal, Call: c.number, Value: uint32(syscall.ETOOMANYREFS)})
	}
	return err
}

// refusal returns what a handler's error is to the caller, if it is a refusal.
func refusal(err error) (errno syscall.Errno, ok bool) {
	switch err {
	case context.Canceled:
		return syscall.ECANCELED, true
	case context.DeadlineExceeded:
		return syscall.ETIMEDOUT, true
	}
	errno, ok = err.(syscall.Errno)
	return errno, ok
}
