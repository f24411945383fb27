package transfer

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Finish ends the stream of a connection that was sent to, and waits until the
// peer's kernel has acknowledged all of it. Without the wait "complete" would
// mean that the bytes are in this host's buffer, megabytes before the client,
// and a client's reset would be taken for success.
//
// Under TLS close_notify goes out before the end, and the peer need not
// acknowledge it: a client that knows the size leaves when it has the content,
// and what it left unread resets the connection.
//
// The connection stays the caller's to close. One that isn't TCP is not waited
// for. A context's end is noticed within 50 ms.
func (m *Mover) Finish(ctx context.Context, conn *os.File) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return &Error{Network: true, Err: bare(err)}
	}
	if m.Secure == nil {
		return m.finish(ctx, conn, raw)
	}
	content := m.Secure.raw.sent()
	w, err := m.watch(ctx, conn)
	if err != nil {
		return err
	}
	err = w.failed(m.Secure.CloseWrite(), true)
	w.end()
	if err == nil {
		err = m.finish(ctx, conn, raw)
	}
	if err != nil && acknowledged(raw) >= content {
		return nil
	}
	return err
}

// acknowledged is how many bytes the peer's kernel has of a connection's; 0 of
// one that isn't TCP.
func acknowledged(raw syscall.RawConn) uint64 {
	var now sys.TCPProgress
	_ = raw.Control(func(fd uintptr) { now, _ = sys.ReadTCPProgress(int(fd)) })
	return now.Acked
}

// finish is Finish once all is written.
func (m *Mover) finish(ctx context.Context, conn *os.File, raw syscall.RawConn) (err error) {
	var lost, unknown error
	err = raw.Control(func(fd uintptr) { lost = syscall.Shutdown(int(fd), syscall.SHUT_WR) })
	var now sys.TCPProgress
	moved := time.Now()
	open := true
	for pause := time.Millisecond; err == nil && lost == nil; pause = min(2*pause, 50*time.Millisecond) {
		before := now
		err = raw.Control(func(fd uintptr) {
			now, unknown = sys.ReadTCPProgress(int(fd))
			if now.Done || unknown != nil {
				lost = sys.SocketError(int(fd))
			}
		})
		switch {
		case err != nil || lost != nil:
			continue
		case now.Done || unknown != nil:
			return nil
		case ctx.Err() != nil:
			lost = context.Cause(ctx)
		case now != before:
			moved = time.Now()
		case time.Since(moved) > m.stall():
			lost = os.ErrDeadlineExceeded
		}
		if !open {
			time.Sleep(pause)
			continue
		}
		// The kernel has no event for "all acknowledged". But a client that
		// has read to the end closes, and that is one; where nothing comes
		// (it may wait for the 226 first) this is the pause.
		open, err = quiet(conn, pause)
	}
	if lost != nil {
		err = lost
	}
	return &Error{Network: true, Err: bare(err)}
}

// quiet waits for the peer to close and reports whether it hasn't. Of a peer
// that sends, where it should receive, no more is read than this.
func quiet(conn *os.File, pause time.Duration) (bool, error) {
	if err := conn.SetReadDeadline(time.Now().Add(pause)); err != nil {
		return false, err
	}
	var b [256]byte // of TLS, its close_notify: unread bytes make of the close a reset
	switch _, err := conn.Read(b[:]); {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return true, nil
	case err == nil, err == io.EOF:
		return false, nil
	default:
		return false, err
	}
}
