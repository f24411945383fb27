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

// Outstanding is how many calls of one connection may be unanswered at once. A
// Client makes further callers wait; a peer that sends more is no Client.
const Outstanding = 32

// ErrClosed is returned for calls on a connection whose other side is gone, or
// that was closed on this side.
var ErrClosed = errors.New("ipc: connection closed")

// A Client makes calls over a Conn, from many goroutines at once. One of the
// callers that wait receives for all of them. While no call is unanswered
// nobody does.
type Client struct {
	conn    *Conn
	slots   chan struct{}  // a token for each call that may yet be sent
	lead    chan struct{}  // one token: its holder receives for all
	left    sync.WaitGroup // calls that were abandoned and are unanswered
	answers sync.Pool      // of chan Packet

	mu      sync.Mutex             // never held over a wait
	last    uint32                 // newest call number sent
	pending map[uint32]chan Packet // nil: nobody waits for it any more
	err     error
}

// NewClient takes ownership of conn.
func NewClient(conn *Conn) *Client {
	c := &Client{
		conn:    conn,
		slots:   make(chan struct{}, Outstanding),
		lead:    make(chan struct{}, 1),
		pending: make(map[uint32]chan Packet),
	}
	c.answers.New = func() any { return make(chan Packet, 1) }
	for range Outstanding {
		c.slots <- struct{}{}
	}
	return c
}

// Close ends every outstanding call with [ErrClosed].
func (c *Client) Close() error {
	c.fail(ErrClosed)
	err := c.conn.Close()
	c.left.Wait()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Expect makes room for answers of up to size bytes.
func (c *Client) Expect(size int) { c.conn.buffers.Grow(size) }

// Call sends a request and waits for its answer, at most for the limit and
// while ctx lasts; both reach the other side. The caller keeps files, and owns
// the answer: its descriptors, and its Body until Release.
//
// A refusal is a [syscall.Errno].
func (c *Client) Call(ctx context.Context, op uint32, limit time.Duration, body []byte, files []*os.File) (Packet, error) {
	deadline := time.Now().Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := ended(ctx, deadline); err != nil {
		return Packet{}, err
	}
	if _, err := await(ctx, c, deadline, c.slots); err != nil {
		return Packet{}, err
	}
	answer := c.answers.Get().(chan Packet)
	call, err := c.send(ctx, deadline, op, body, files, answer)
	if err != nil {
		c.slots <- struct{}{}
		return Packet{}, sendError(err)
	}
	p, err := await(ctx, c, deadline, answer)
	if err != nil {
		c.abandon(call, answer)
		return Packet{}, err
	}
	c.answers.Put(answer)
	switch p.Type {
	case Reply:
		return p, nil
	case Refusal:
		err = syscall.Errno(p.Value)
	default: // from fail
		err = c.failed()
	}
	p.CloseFiles()
	p.Release()
	return Packet{}, err
}

// Log sends a record that nobody answers; lost is how many before it were not
// sent. It never waits: it fails with [syscall.EAGAIN] when the other side has
// not read enough. A record takes no part in the order of calls but that what
// was sent before it arrives before it.
func (c *Client) Log(lost uint32, body []byte) error {
	return sendError(c.conn.send(&Packet{Type: Log, Value: lost, Body: body}))
}

// await waits for what comes out of a channel when packets are received.
func await[T any](ctx context.Context, c *Client, deadline time.Time, from <-chan T) (v T, err error) {
	came := func() bool { return len(from) > 0 }
	var late <-chan time.Time
	for {
		leads := true
		select {
		case v = <-from:
			return v, nil
		case c.lead <- struct{}{}: // the usual case, which needs no timer
		default:
			if late == nil {
				timer := time.NewTimer(time.Until(deadline))
				defer timer.Stop()
				late = timer.C
			}
			select {
			case v = <-from:
				return v, nil
			case c.lead <- struct{}{}:
			case <-ctx.Done():
				leads = false
			case <-late:
				leads = false
			}
		}
		if leads {
			c.read(ctx, deadline, came)
			<-c.lead
		}
		if came() {
			continue
		} else if err = c.failed(); err == nil {
			err = ended(ctx, deadline)
		}
		if err != nil {
			return v, err
		}
	}
}

// ended returns why a call waits no longer.
func ended(ctx context.Context, deadline time.Time) error {
	if err := ctx.Err(); err != nil || time.Now().Before(deadline) {
		return err
	}
	return context.DeadlineExceeded
}

// read takes what comes off the connection, for all, until done or until there
// is reason to look why not. The caller holds the token of lead.
func (c *Client) read(ctx context.Context, deadline time.Time, done func() bool) {
	for !done() && c.failed() == nil && ended(ctx, deadline) == nil {
		var p Packet
		err := c.conn.receiveBriskly(&p)
		if err == syscall.EAGAIN {
			err = c.receivePatiently(ctx, deadline, &p)
		}
		if err == nil {
			err = c.deliver(p)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			p.CloseFiles()
			p.Release()
			c.fail(err)
		}
	}
}

func (c *Client) receivePatiently(ctx context.Context, deadline time.Time, p *Packet) error {
	if err := c.conn.watch.SetReadDeadline(deadline); err != nil {
		return err
	}
	if ctx.Done() != nil {
		// If it wakes the wrong reader, because it is late, that one looks
		// why and waits again.
		defer context.AfterFunc(ctx, func() { c.conn.watch.SetReadDeadline(time.Unix(1, 0)) })()
	}
	return c.conn.receivePatiently(p)
}

// fail ends the connection for all callers, with the first reason.
func (c *Client) fail(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
		err = ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	for call, answer := range c.pending {
		delete(c.pending, call)
		if answer != nil {
			answer <- Packet{}
		}
	}
}

func (c *Client) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// send numbers the call and sends it under one lock, because the other side
// demands that numbers arrive in order.
func (c *Client) send(ctx context.Context, deadline time.Time, op uint32, body []byte, files []*os.File, answer chan Packet) (call uint32, err error) {
	p := Packet{Type: Request, Op: op, Body: body, Files: files}
	err = retry(ctx, time.Until(deadline), func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil {
			return c.err
		}
		p.Call, p.Value = c.last+1, milliseconds(time.Until(deadline))
		err := c.conn.send(&p)
		if err == nil {
			c.last++
			c.pending[p.Call] = answer
		}
		return err
	})
	return p.Call, err
}

// sendError is what Call returns for a connection's error.
func sendError(err error) error {
	switch {
	case errors.Is(err, syscall.EPIPE), errors.Is(err, os.ErrClosed):
		return ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return context.DeadlineExceeded
	}
	return err
}

// milliseconds rounds up, so that the other side never gives up first.
func milliseconds(d time.Duration) uint32 {
	return uint32(min((max(d, 1)-1)/time.Millisecond+1, 1<<32-1))
}

// abandon tells the other side that nobody waits for call. It counts as
// outstanding until the answer comes, because the other side counts it too.
func (c *Client) abandon(call uint32, answer chan Packet) {
	c.mu.Lock()
	_, waiting := c.pending[call]
	if waiting {
		c.pending[call] = nil
		c.left.Add(1)
	}
	c.mu.Unlock()
	if waiting {
		// A failure here means that the connection is ending anyway.
		_ = c.conn.Send(context.Background(), time.Second, &Packet{Type: Cancel, Call: call})
		go c.outwait(call)
		return
	}
	p := <-answer // it came in between
	p.CloseFiles()
	p.Release()
}

// outwait reads until an abandoned call is answered. The answer may bring a file
// whose other end somebody watches: unread it would stay open until the next
// call, which may never come.
func (c *Client) outwait(call uint32) {
	defer c.left.Done()
	answered := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, unanswered := c.pending[call]
		return !unanswered
	}
	for !answered() {
		c.lead <- struct{}{}
		c.read(context.Background(), time.Now().Add(time.Hour), answered)
		<-c.lead
	}
}

// deliver gives an answer to whoever waits for it. If it fails, p is still the
// caller's.
func (c *Client) deliver(p Packet) error {
	c.mu.Lock()
	answer, known := c.pending[p.Call]
	if known = known && (p.Type == Reply || p.Type == Refusal); known {
		delete(c.pending, p.Call) // what stays is ended with the connection
	}
	c.mu.Unlock()
	if !known {
		return &ProtocolError{"answer to no call: " + p.Type.String()}
	}
	c.slots <- struct{}{}
	if answer == nil {
		p.CloseFiles()
		p.Release()
		return nil
	}
	answer <- p
	return nil
}
