package ftp

import (
	"context"
	"io"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/transfer"
)

// engine is a session being served. Three goroutines work on it, and no lock
// is needed: one reads lines, one runs a transfer, and the one that called
// serve does all else. It alone writes replies, so replies come in the order
// of the commands; only what the client sends to be heard at once (ABOR, STAT)
// goes before what waits behind a transfer.
type engine struct {
	*Session
	table []command
	in    chan line // from the reader
	// control is what lines come from and replies go to: Session's Control, or
	// TLS over it. resume lets the reader, which waits after each AUTH, go on.
	control Control
	resume  chan Control
	sec     secured
	queue   []line // behind a transfer
	out     []byte // replies not yet written

	over  bool // the session ends after this command
	cause error

	name       string // of USER, waiting for PASS
	failures   int
	files      Files // nil before the login
	info       LoginInfo
	dir        string
	renameFrom string

	ascii   bool
	rest    int64
	facts   files.Facts
	way     way
	epsvAll bool

	mover   transfer.Mover
	running *running
}

func newEngine(s *Session) *engine {
	e := &engine{Session: s, table: table(), in: make(chan line), control: s.Control, resume: make(chan Control)}
	e.mover.Stall = s.Config.StallTimeout
	e.reset()
	return e
}

// reset makes everything that commands set what it is at first.
func (e *engine) reset() {
	e.name, e.files, e.info, e.dir, e.renameFrom = "", nil, LoginInfo{}, "/", ""
	e.ascii, e.rest, e.facts = true, 0, files.DefaultFacts
	e.way, e.epsvAll = way{}, false
	e.sec.pbsz, e.sec.private = false, false
}

// end ends the session after the command under way. The first cause counts.
func (e *engine) end(cause error) {
	if !e.over {
		e.over, e.cause = true, cause
	}
}

func (e *engine) serve(ctx context.Context) error {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		e.read(stop)
	}()
	// A reply that the client doesn't take must not hold up the end.
	hurried := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		e.Control.SetWriteDeadline(time.Now().Add(time.Second))
		close(hurried)
	})

	e.reply(ctx, 220, e.Config.greeting())
	for !e.over {
		e.step(ctx)
	}

	e.stop(errLeft)
	if !release() {
		<-hurried
	}
	if e.files != nil {
		e.files.Close()
	}
	e.hangUp(stop, stopped)
	return e.cause
}

// read passes lines on until the connection ends, or the session.
func (e *engine) read(stop <-chan struct{}) {
	src := e.Session.Control
	r := lineReader{src: src, max: e.Config.maxLine()}
	for {
		var l line
		l.text, l.tooLong, l.err = r.next()
		verb, _ := parse(l.text)
		l.waits = verb == "AUTH" && l.err == nil
		select {
		case e.in <- l:
		case <-stop:
			if l.err == nil {
				io.Copy(io.Discard, src) // see hangUp
			}
			return
		}
		if l.waits {
			select {
			case next := <-e.resume:
				if next != src {
					src, r = next, lineReader{src: next, max: e.Config.maxLine()}
				}
			case <-stop:
				io.Copy(io.Discard, src)
				return
			}
		}
		if l.err != nil {
			return
		}
	}
}

// lingering is how long the client has to read the last reply.
const lingering = 500 * time.Millisecond

// hangUp closes the control connection such that the last reply arrives: a
// socket that is closed with bytes unread sends a reset, which may overtake
// the reply. So the sending side ends, and what still comes is thrown away.
func (e *engine) hangUp(stop chan<- struct{}, stopped <-chan struct{}) {
	e.Control.SetReadDeadline(time.Now().Add(lingering))
	if e.sec.control != nil {
		e.Control.SetWriteDeadline(time.Now().Add(lingering))
		e.sec.control.CloseWrite()
	}
	switch c := e.Control.(type) {
	case interface{ CloseWrite() error }:
		c.CloseWrite()
	case syscall.Conn:
		if raw, err := c.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { syscall.Shutdown(int(fd), syscall.SHUT_WR) })
		}
	default: // it can't end one side only
		e.Control.SetReadDeadline(time.Unix(1, 0))
	}
	close(stop)
	<-stopped
	e.Control.Close()
}

// step waits for one thing to happen and answers it.
func (e *engine) step(ctx context.Context) {
	if e.running == nil && len(e.queue) > 0 {
		l := e.queue[0]
		e.queue = e.queue[1:]
		e.take(ctx, l)
		return
	}
	in := e.in
	var done <-chan outcome
	var idle <-chan time.Time
	if e.running != nil {
		done = e.running.done
		if len(e.queue) >= e.Config.maxQueue() {
			in = nil // the client's own buffers are next
		}
	} else {
		e.queue = nil
		t := time.NewTimer(orDefault(e.Config.IdleTimeout, 300*time.Second))
		defer t.Stop()
		idle = t.C
	}
	select {
	case l := <-in:
		if e.running != nil {
			e.during(ctx, l)
		} else {
			e.take(ctx, l)
		}
	case o := <-done:
		e.finished(o)
		e.flush(ctx)
	case <-idle:
		e.reply(ctx, 421, "No command for too long.")
		e.end(ErrIdle)
	case <-ctx.Done():
		e.reply(ctx, 421, "The server ends this session.")
		e.end(context.Cause(ctx))
	}
}

func (e *engine) take(ctx context.Context, l line) {
	if l.err != nil {
		e.end(nil) // the client has left, whatever it calls that
		return
	}
	e.execute(ctx, l)
	if l.waits && !e.over {
		e.resume <- e.control
	}
}

// during handles a line that comes while a transfer runs. A client that leaves
// has given its transfer up, unless it has said QUIT before.
func (e *engine) during(ctx context.Context, l line) {
	verb, arg := parse(l.text)
	switch {
	case l.tooLong:
	case verb == "ABOR", verb == "STAT" && arg == "", http(verb):
		e.execute(ctx, l)
		return
	case l.err != nil && !e.quits():
		e.end(nil)
		return
	}
	e.queue = append(e.queue, l)
}

func (e *engine) quits() bool {
	for _, l := range e.queue {
		if verb, _ := parse(l.text); verb == "QUIT" && !l.tooLong {
			return true
		}
	}
	return false
}
