package transfer

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// secureBuffer holds several of TLS's records, of 16 KiB at most, so that one
// system call moves them.
const secureBuffer = 128 << 10

// handshakeBuffer is for the first bytes, and all of those of a download.
const handshakeBuffer = 4 << 10

// Secure is TLS over a connection: what a Mover moves, passes through it.
type Secure struct {
	*tls.Conn
	raw *bufferedConn
}

// Secured makes the server's handshake on conn, which stays the caller's. It
// ends with ctx.
func Secured(ctx context.Context, conn *os.File, config *tls.Config) (*Secure, error) {
	raw := &bufferedConn{File: conn}
	if c, err := conn.SyscallConn(); err == nil {
		raw.before = acknowledged(c)
	}
	s := &Secure{tls.Server(raw, config), raw}
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, &Error{Network: true, Err: err}
	}
	return s, raw.flush()
}

// Write sends p as whole records. It returns when the kernel has taken them.
func (s *Secure) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if err == nil {
		err = s.raw.flush()
	}
	return n, err
}

// Read fills p as far as it can without waiting once more. [io.EOF] means that
// the peer has said that this is the end; a connection that ends without that
// is [io.ErrUnexpectedEOF], because somebody else may have ended it.
func (s *Secure) Read(p []byte) (n int, err error) {
	for n == 0 || err == nil && len(p)-n >= 16<<10 && len(s.raw.in) > 0 {
		var k int
		k, err = s.Conn.Read(p[n:])
		n += k
		if err != nil {
			break
		}
	}
	if n > 0 {
		err = nil // comes again
	}
	return n, err
}

// CloseWrite tells the peer that nothing follows.
func (s *Secure) CloseWrite() error {
	err := s.Conn.CloseWrite()
	if err == nil {
		err = s.raw.flush()
	}
	return err
}

// over is what bytes to or from conn pass through.
func (m *Mover) over(conn *os.File) io.ReadWriter {
	if m.Secure != nil {
		return m.Secure
	}
	return conn
}

// sendSecure is Send through TLS.
func (m *Mover) sendSecure(ctx context.Context, dst, src *os.File, offset, n int64) (int64, error) {
	w, err := m.watch(ctx, dst)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)
	_, err = m.pump(w, m.Secure, io.NewSectionReader(src, offset, n), toNetwork, plain, unlimited)
	if err == nil && m.Moved() < n {
		err = failedFile(io.ErrUnexpectedEOF)
	}
	return m.Moved(), err
}

// errCut is the end of a connection. Package tls takes io.EOF, and
// io.ErrUnexpectedEOF itself, between two records for an end in order, so that
// whoever can send a FIN could cut an upload and have it called complete. Where
// close_notify came before, tls does not read on.
var errCut = fmt.Errorf("connection ended within TLS: %w", io.ErrUnexpectedEOF)

// A bufferedConn is a connection as TLS wants it, with room for several records
// on either way.
type bufferedConn struct {
	*os.File
	buf, in []byte // in: what was read and not yet taken
	full    bool   // a larger buf would have taken more
	out     []byte
	wrote   uint64
	before  uint64 // what the peer had acknowledged before: its SYN
}

// sent is how many bytes the peer's kernel has acknowledged once it has all.
func (c *bufferedConn) sent() uint64 { return c.before + c.wrote }

func (c *bufferedConn) Read(p []byte) (int, error) {
	if err := c.flush(); err != nil {
		return 0, err
	}
	if len(c.in) == 0 {
		if c.full {
			c.buf, c.full = make([]byte, secureBuffer), false
		} else if c.buf == nil {
			c.buf = make([]byte, handshakeBuffer)
		}
		n, err := c.File.Read(c.buf)
		c.full = n == len(c.buf) && n < secureBuffer
		if err == io.EOF {
			err = errCut
		}
		if n == 0 {
			return 0, err
		}
		c.in = c.buf[:n]
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *bufferedConn) Write(p []byte) (int, error) {
	c.out = append(c.out, p...)
	if len(c.out) < secureBuffer {
		return len(p), nil
	}
	return len(p), c.flush()
}

func (c *bufferedConn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := c.File.Write(c.out)
	c.wrote += uint64(n)
	c.out = c.out[:0]
	return err
}

// Close leaves the file to its owner, and wakes who waits on it.
func (c *bufferedConn) Close() error { return c.SetDeadline(time.Unix(1, 0)) }

// SetWriteDeadline does nothing. Package tls sets one around close_notify, of 5
// seconds and then of now, and would lose it here, where it is written later. How
// long a write may take is for the file's owner to say.
func (c *bufferedConn) SetWriteDeadline(time.Time) error { return nil }

func (c *bufferedConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (c *bufferedConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }
