// Package ftp speaks FTP with one client: RFC 959, with what RFCs 775, 1123,
// 2389, 2428, 2640 and 3659 add.
//
// The package holds no power. It opens no file and no socket and checks no
// password: it asks a [Login], a [Data] and a [Files], each of which is another
// process in the server that it is written for, and gets descriptors. So it can
// run with no file system, no network and no capability.
//
// Limits: a command line of 4096 bytes, a path of 2048, 64 commands waiting
// behind a transfer, three failed logins, one transfer at a time, 64 KiB of
// listing in a reply to STAT.
//
// Where the standards leave a choice, or servers differ:
//
//   - A line ends with LF, whether or not CR stands before it.
//   - A longer line than the limit is answered once with 500 and read to its
//     end; no part of it is taken for a command.
//   - SIZE, and REST to other than 0, are refused in ASCII: there the bytes of
//     the file are not those of the transfer.
//   - APPE after REST is refused unless the file ends there.
//   - STOR after REST keeps what the file holds behind the bytes sent.
//   - NLST of a directory gives names that RETR takes as they are (RFC 1123).
//   - A transfer's 150 is sent before the data connection is made; if that
//     fails, 425 follows. That of a download of up to 64 KiB may come 2 ms
//     late, and then in one piece with the 226 if all has arrived by then.
//   - TLS begins with AUTH TLS before the login (RFC 4217) and stays; REIN ends
//     PROT. What was sent in the clear behind AUTH is thrown away, or breaks the
//     handshake.
//   - Under PROT P an upload is complete when the client has said so with
//     close_notify: 226. A connection that ends without it may have been cut by
//     anybody: 426, and what came is kept.
//   - A download under TLS is complete when the content is acknowledged. A client
//     that has not read close_notify when it leaves resets the connection: before
//     its kernel has acknowledged the content, that is 426.
//   - Data connections get no session ticket; they may resume the control
//     connection's session.
//   - 226 to a download means that the client's kernel has acknowledged all
//     bytes, to an upload that the file was written and closed without error.
//
// It does not protect from a Files that doesn't keep the user within a root:
// paths given to it are clean, but links are its business.
package ftp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

// Control is a control connection: an [os.File] over a nonblocking socket, or
// a [net.Conn]. Whoever accepts it sets two options, because Serve may not be
// allowed to: TCP_NODELAY, or the second of two replies to a command waits for
// the client's delayed acknowledgement, and SO_OOBINLINE, or an ABOR sent as
// urgent data (ftplib's) loses its last byte, the line's end.
type Control interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Login checks passwords.
type Login interface {
	// Login returns what the user may touch. [fs.ErrPermission] means that
	// the name or the password is wrong. It is asked again after a failure,
	// but never after the third, and again after REIN.
	Login(ctx context.Context, user, password string) (Files, LoginInfo, error)
}

// LoginInfo is what a session knows about its user. The zero value is a user
// of whom nothing is known.
type LoginInfo struct {
	Dir     string         // where the session starts; "" means "/"
	Message []string       // lines for the reply to PASS
	HideIDs bool           // owners and groups are not shown
	Viewer  listing.Viewer // whom the perm fact is about
}

// Data makes data connections, only with the control connection's peer. The
// caller owns the files, which are connected, nonblocking TCP sockets.
type Data interface {
	// Listen waits for a connection in place of any earlier Listen. It
	// returns the address to tell the client.
	Listen(ctx context.Context) (netip.AddrPort, error)

	// Accept takes the one connection that Listen waits for, and ends the
	// waiting. It returns when ctx ends.
	Accept(ctx context.Context) (*os.File, error)

	// Connect connects to a port of the client's address, and ends the
	// waiting of an earlier Listen.
	Connect(ctx context.Context, port uint16) (*os.File, error)
}

// Files is a user's tree. Paths are absolute within it, clean, at most
// MaxPath bytes, and hold no NUL. Errors are found with [errors.Is] and by
// their [syscall.Errno]; nothing else of them is looked at. One call is made
// at a time. The caller owns the files returned.
type Files interface {
	// Stat follows a link; one that leads nowhere is described itself.
	Stat(ctx context.Context, path string) (files.Info, error)

	// Open opens a regular file to read it.
	Open(ctx context.Context, path string) (*os.File, files.Info, error)

	// Create opens a regular file to write it, and returns its path. For
	// files.Unique that is a new one, in path if that is a directory.
	Create(ctx context.Context, path string, mode files.CreateMode) (*os.File, string, error)

	// List writes a directory to w, a pipe, as lines that end with CRLF.
	// It doesn't close w.
	List(ctx context.Context, path string, o files.ListOptions, w *os.File) error

	Mkdir(ctx context.Context, path string) error
	Rmdir(ctx context.Context, path string) error
	Remove(ctx context.Context, path string) error
	Rename(ctx context.Context, from, to string) error

	// Close ends the user's part of the session: at its end, or at REIN.
	Close() error
}

// Config is how sessions are served. The zero value is ready.
type Config struct {
	Greeting       string         // of the 220 reply; "" means "FTP server ready."
	BinaryOnly     bool           // TYPE A is answered, but the bytes move as they are
	MaxLine        int            // bytes of a command line; 0 means 4096
	MaxQueue       int            // commands that wait behind a transfer; 0 means 64. More are left unread.
	PassiveOnly    bool           // PORT and EPRT are refused
	TLSLogin       bool           // USER is refused in the clear
	TLSData        bool           // transfers are refused but under PROT P
	TLSReuse       bool           // data connections must resume the control connection's TLS session
	LoginOnce      bool           // REIN is refused once a user is logged in
	IdleTimeout    time.Duration  // between commands while no transfer runs; 0 means 300 s
	ReplyTimeout   time.Duration  // for the client to take a reply; 0 means 60 s
	ConnectTimeout time.Duration  // to make a data connection; 0 means 60 s
	StallTimeout   time.Duration  // for a transfer that moves nothing; 0 means 300 s
	Log            func(Transfer) // called after each transfer, between two commands; nil means not
}

// Transfer is what became of a transfer.
type Transfer struct {
	Verb  string // RETR, STOR, APPE, STOU, LIST, NLST or MLSD
	Path  string
	Bytes int64 // on the data connection
	Time  time.Duration
	Code  int   // the reply's
	Err   error // nil if the transfer is complete
}

// Why a session ended, if not by QUIT, nor by the client's leaving.
var (
	ErrIdle   = errors.New("ftp: no command came in time")
	ErrLogins = errors.New("ftp: too many failed logins")
	ErrNotFTP = errors.New("ftp: the client speaks HTTP")
	ErrTLS    = errors.New("ftp: no TLS with this client")
)

// Session is one control connection and what it is served with. All fields but
// Config must be set.
type Session struct {
	Control Control        // Serve closes it
	Peer    netip.AddrPort // the client's, of the control connection
	Login   Login
	Data    Data
	Config  Config

	// TLS gives the configuration for one session, which asks at AUTH TLS;
	// nil means that there is no TLS. It has one certificate and keys for
	// tickets that no other session knows: a data connection that resumes
	// has then the control connection's client on its other end.
	TLS func(context.Context) (*tls.Config, error)
}

// Serve speaks with the client until it leaves, gives cause to end the session,
// or ctx ends. When it returns, nothing that it started goes on, and the control
// connection and the user's Files are closed.
//
// It returns nil if the client has left, with QUIT or without; [ErrIdle],
// [ErrLogins] or [ErrNotFTP]; the context's cause; or the error of writing a reply.
func (s *Session) Serve(ctx context.Context) error {
	e := newEngine(s)
	return e.serve(ctx)
}

func (c *Config) greeting() string {
	if c.Greeting == "" {
		return "FTP server ready."
	}
	return c.Greeting
}

func (c *Config) maxLine() int {
	if c.MaxLine <= 0 {
		return 4096
	}
	return c.MaxLine
}

func (c *Config) maxQueue() int {
	if c.MaxQueue <= 0 {
		return 64
	}
	return c.MaxQueue
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}
