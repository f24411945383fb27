// Package transfer moves bytes between a data connection and a file.
//
// In binary the bytes stay in the kernel: sendfile(2) for a download,
// splice(2) through a pipe for an upload. ASCII and listings pass through one
// buffer.
//
// It needs no privilege and opens nothing: every descriptor is handed in,
// stays its giver's, and is used by one transfer at a time. A connection, or a
// listing's pipe, must be nonblocking and known to the runtime's poller (an
// [os.File] of [os.NewFile] over a nonblocking descriptor is), or a stalled
// peer could not be left: such a transfer fails with [os.ErrNoDeadline].
//
// Under TLS everything passes through a buffer.
//
// It doesn't judge what it moves. Without [Secure] it doesn't protect the
// content: who can read the network reads the bytes.
package transfer

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultStall is how long a transfer may move nothing.
const DefaultStall = 300 * time.Second

const (
	smallBuffer = 64 << 10  // for what passes through user space, kept for the session's next transfer
	largeBuffer = 256 << 10 // once a transfer has shown that it is long, for the rest of it
	long        = 256 << 10 // bytes after which a transfer is long
	chunk       = 1 << 20   // most bytes for one call into the kernel: between two a transfer can be stopped
)

// Mover carries out the transfers of one session, one after another. The zero
// value is ready. Only Moved may be called while a transfer runs.
type Mover struct {
	// Stall ends a transfer that has moved nothing for so long.
	// Zero means DefaultStall.
	Stall time.Duration
	// Secure is TLS over the connection of the next transfer; nil: none.
	Secure *Secure

	moved atomic.Int64
	buf   []byte
}

// Moved returns how many bytes the transfer under way, or the last one, has
// moved on the connection.
func (m *Mover) Moved() int64 { return m.moved.Load() }

// Reset makes Moved return 0 until the next transfer moves something.
func (m *Mover) Reset() { m.moved.Store(0) }

func (m *Mover) stall() time.Duration {
	if m.Stall > 0 {
		return m.Stall
	}
	return DefaultStall
}

func (m *Mover) buffer() []byte {
	if m.buf == nil {
		m.buf = make([]byte, smallBuffer)
	}
	return m.buf
}

// Error is how a transfer fails. It tells the two sides apart, because one is
// the client's trouble and the other the server's.
type Error struct {
	Network bool  // the connection failed or stalled, or the transfer was stopped; else the file, or the listing's writer, did
	Err     error // a [syscall.Errno], [os.ErrDeadlineExceeded] for a stall, or the context's cause
}

func (e *Error) Error() string {
	if e.Network {
		return "transfer: connection: " + e.Err.Error()
	}
	return "transfer: file: " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// watch holds the deadlines of a transfer's pollable ends: the stall time
// after the last progress, or now once the context has ended.
type watch struct {
	ctx   context.Context
	stall time.Duration
	ends  []*os.File

	mu      sync.Mutex // serialises SetDeadline, so that "now" is never moved again
	stopped atomic.Bool
	moved   time.Time // when the deadlines were last set
	release func() bool
	fired   chan struct{}
}

func (m *Mover) watch(ctx context.Context, ends ...*os.File) (*watch, error) {
	w := &watch{ctx: ctx, stall: m.stall(), ends: ends, fired: make(chan struct{})}
	w.moved = time.Now()
	if err := w.set(w.moved.Add(w.stall)); err != nil {
		return nil, &Error{Network: true, Err: err}
	}
	w.release = context.AfterFunc(ctx, func() {
		defer close(w.fired)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.stopped.Store(true)
		w.set(time.Unix(1, 0))
	})
	return w, nil
}

func (w *watch) set(t time.Time) error {
	for _, f := range w.ends {
		if err := f.SetDeadline(t); err != nil {
			return err
		}
	}
	return nil
}

// progress notes that bytes have moved and reports whether to go on. Setting a
// deadline costs a lock of the poller, so it is moved seldom: a stall is
// noticed up to 1/8 of its time early.
func (w *watch) progress() bool {
	if w.stopped.Load() {
		return false
	}
	now := time.Now()
	if now.Sub(w.moved) < w.stall/8 {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped.Load() {
		return false
	}
	w.moved = now
	return w.set(now.Add(w.stall)) == nil
}

// end lets the watch go, and leaves no goroutine and no deadline behind.
// It must be called once.
func (w *watch) end() {
	if !w.release() {
		<-w.fired
	}
	w.set(time.Time{})
}

// network makes an Error of what a connection's call returned. An ended
// context is the reason for whatever else then went wrong.
func (w *watch) network(err error) error {
	if w.ctx.Err() != nil {
		return &Error{Network: true, Err: context.Cause(w.ctx)}
	}
	if err == nil {
		return nil
	}
	return &Error{Network: true, Err: bare(err)}
}

func failedFile(err error) error { return &Error{Err: bare(err)} }

// failed makes an Error of what either side's call returned.
func (w *watch) failed(err error, network bool) error {
	if network || w.ctx.Err() != nil {
		return w.network(err)
	}
	return failedFile(err)
}

// bare takes the path and the verb off an error: they are names of this
// process only.
func bare(err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return os.ErrDeadlineExceeded
	case errors.As(err, &errno):
		return errno
	}
	return err
}
