package ftp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/transfer"
)

// handshakeTimeout is how long TLS may take to begin, on either connection.
const handshakeTimeout = 30 * time.Second

// secured is what TLS has made of a session. The zero value is no TLS.
type secured struct {
	control *tls.Conn   // nil: in the clear
	config  *tls.Config // the control connection's
	pbsz    bool
	private bool // PROT P
}

// auth begins TLS on the control connection (RFC 4217). What the client has
// sent in the clear behind its line, before it could know the answer, is never
// read as commands: somebody else may have put it there (CVE-2011-0411).
func (e *engine) auth(ctx context.Context, arg string) {
	mechanism := strings.ToUpper(strings.TrimSpace(arg))
	switch {
	case e.TLS == nil:
		e.reply(ctx, 502, "No security mechanism here.")
	case e.sec.control != nil, e.files != nil:
		e.reply(ctx, 503, "Too late.")
	case mechanism != "TLS" && mechanism != "TLS-C":
		e.reply(ctx, 504, "AUTH TLS is the only one.")
	default:
		config, err := e.TLS(ctx)
		if err != nil {
			e.reply(ctx, 431, "No TLS now.")
			break
		}
		e.reply(ctx, 234, "Begin.")
		conn := tls.Server(plainConn{e.Control}, config)
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if !e.over {
			if err := conn.HandshakeContext(ctx); err != nil {
				e.end(ErrTLS) // there is nobody to tell
				break
			}
			e.Control.SetWriteDeadline(time.Time{})
			e.name, e.control = "", conn // whom the client said it was, it said in the clear
			e.sec = secured{control: conn, config: config}
		}
	}
}

func (e *engine) setPbsz(ctx context.Context, arg string) {
	if e.sec.control == nil {
		e.reply(ctx, 503, "AUTH first.")
		return
	}
	if _, err := strconv.ParseUint(strings.TrimSpace(arg), 10, 32); err != nil {
		e.reply(ctx, 501, "Not a size.")
		return
	}
	e.sec.pbsz = true
	e.reply(ctx, 200, "PBSZ=0")
}

func (e *engine) setProt(ctx context.Context, arg string) {
	switch level := strings.ToUpper(strings.TrimSpace(arg)); {
	case e.sec.control == nil:
		e.reply(ctx, 503, "AUTH first.")
	case !e.sec.pbsz:
		e.reply(ctx, 503, "PBSZ first.")
	case level == "C" && e.Config.TLSData:
		e.reply(ctx, 534, "Only P here.")
	case level == "C", level == "P":
		e.sec.private = level == "P"
		e.reply(ctx, 200, "As you say.")
	case level == "S", level == "E":
		e.reply(ctx, 536, "Only P or C here.")
	default:
		e.reply(ctx, 504, "Only P or C here.")
	}
}

// refusedInTheClear answers for the client whose password, or data, would cross
// the network readable where that isn't wanted.
func (e *engine) refusedInTheClear(ctx context.Context, data bool) bool {
	switch {
	case !data && e.Config.TLSLogin && e.sec.control == nil:
		e.reply(ctx, 530, "AUTH TLS first.")
	case data && e.Config.TLSData && !e.sec.private:
		e.reply(ctx, 522, "PBSZ 0 and PROT P first.")
	default:
		return false
	}
	return true
}

// secureData begins TLS on a data connection. It takes the control connection's
// tickets and gives none: a client that uploads reads nothing, and if it closes
// with a ticket unread its kernel throws away what it has not yet sent. That is
// how uploads under TLS 1.3 get lost.
func (e *engine) secureData(ctx context.Context, conn *os.File) (*transfer.Secure, error) {
	config := e.sec.config.Clone()
	// Tickets are looked at first and made last, both only if they are not
	// disabled. Between the two, on this goroutine, one of these is called. In
	// TLS 1.2, where a certificate is chosen before and a ticket is part of the
	// handshake, so that nobody leaves it unread, nothing need be done.
	certificates := config.Certificates
	config.Certificates = nil
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		config.SessionTicketsDisabled = slices.Contains(hello.SupportedVersions, tls.VersionTLS13)
		return &certificates[0], nil
	}
	config.UnwrapSession = func(identity []byte, state tls.ConnectionState) (*tls.SessionState, error) {
		session, err := e.sec.config.DecryptTicket(identity, state)
		config.SessionTicketsDisabled = session != nil && state.Version == tls.VersionTLS13
		return session, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	s, err := transfer.Secured(ctx, conn, config)
	if err != nil {
		return nil, errors.Join(errNoTLS, err)
	}
	if e.Config.TLSReuse && !s.ConnectionState().DidResume {
		s.CloseWrite()
		return nil, errNoReuse
	}
	return s, nil
}

// A plainConn is a control connection as TLS wants it.
type plainConn struct{ Control }

func (plainConn) LocalAddr() net.Addr  { return &net.TCPAddr{} }
func (plainConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// Close leaves the connection to the session, and wakes who waits on it.
func (c plainConn) Close() error { return c.SetDeadline(time.Unix(1, 0)) }

func (c plainConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.Control.SetWriteDeadline(t))
}

// SetWriteDeadline does nothing: it is by the session that writes are bounded,
// and package tls would allow close_notify 5 seconds.
func (plainConn) SetWriteDeadline(time.Time) error { return nil }

var (
	errNoTLS   = errors.New("ftp: no TLS on the data connection")
	errNoReuse = errors.New("ftp: data connection of another TLS session")
)
