package ftp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/transfer"
)

// appendReply adds a reply of one or more lines. Each line stays one line
// whatever is in it: a control character (in a file's name, say) becomes a
// question mark, or a client could be made to read a reply that nobody gave.
// 0xFF is doubled, as Telnet wants it.
func appendReply(dst []byte, code int, lines ...string) []byte {
	for i, l := range lines {
		switch {
		case i == len(lines)-1:
			dst = append(strconv.AppendInt(dst, int64(code), 10), ' ')
		case i == 0:
			dst = append(strconv.AppendInt(dst, int64(code), 10), '-')
		default: // no line within may begin with a digit
			dst = append(dst, ' ')
		}
		for _, b := range []byte(l) {
			switch {
			case b < ' ' || b == 0x7f:
				b = '?'
			case b == telnetIAC:
				dst = append(dst, b)
			}
			dst = append(dst, b)
		}
		dst = append(dst, '\r', '\n')
	}
	return dst
}

// add puts a reply into the buffer, in front of the next one.
func (e *engine) add(code int, lines ...string) { e.out = appendReply(e.out, code, lines...) }

// reply sends a reply.
func (e *engine) reply(ctx context.Context, code int, lines ...string) {
	e.add(code, lines...)
	e.flush(ctx)
}

// flush sends what was added, in one piece. If that fails the session is over.
func (e *engine) flush(ctx context.Context) {
	out := e.out
	e.out = e.out[:0]
	if e.over {
		return
	}
	timeout := orDefault(e.Config.ReplyTimeout, 60*time.Second)
	if ctx.Err() != nil {
		timeout = min(timeout, time.Second)
	}
	err := e.Control.SetWriteDeadline(time.Now().Add(timeout))
	if err == nil {
		_, err = e.control.Write(out)
	}
	if err != nil {
		e.end(err)
	}
}

// refuse answers a command about a file that Files has refused.
func (e *engine) refuse(ctx context.Context, err error) {
	code, text := explain(err)
	e.reply(ctx, code, text)
}

// explain makes a reply of an error. Only the errno is looked at: nothing of
// what another process wrote reaches the client.
func explain(err error) (code int, text string) {
	var errno syscall.Errno
	errors.As(err, &errno)
	switch {
	case errno == syscall.ENOTEMPTY:
		return 550, "Directory not empty."
	case errno == syscall.EROFS:
		return 550, "Read-only here."
	case errno == syscall.ENOTDIR:
		return 550, "Not a directory."
	case errno == syscall.EISDIR:
		return 550, "Is a directory."
	case errno == syscall.ENAMETOOLONG:
		return 550, "Name too long."
	case errno == syscall.EINVAL:
		return 550, "Not a valid name."
	case errno == syscall.ELOOP:
		return 550, "Too many links."
	case errno == syscall.EXDEV:
		return 550, "On another file system."
	case errno == syscall.EBUSY:
		return 550, "In use."
	case errno == syscall.ENOSPC, errno == syscall.EDQUOT:
		return 452, "No space left."
	case errno == syscall.EFBIG:
		return 552, "File too large."
	case errors.Is(err, fs.ErrNotExist):
		return 550, "No such file or directory."
	case errors.Is(err, fs.ErrExist):
		return 550, "Exists already."
	case errors.Is(err, fs.ErrPermission):
		return 550, "Permission denied."
	}
	return 451, "Failed on the server's side."
}

// verdict makes the reply to a transfer of how it ended.
func verdict(err error) (code int, text string) {
	var t *transfer.Error
	switch {
	case err == nil:
		return 226, "Transfer complete."
	case errors.Is(err, errNoConnection):
		return 425, "No data connection."
	case errors.Is(err, errNoReuse):
		return 522, "Resume the control connection's TLS session."
	case errors.Is(err, errNoTLS):
		return 425, "No TLS on the data connection."
	case errors.As(err, &t) && t.Network && errors.Is(err, io.ErrUnexpectedEOF):
		return 426, "TLS ended without close_notify; the file may be cut."
	case errors.Is(err, errAborted), errors.Is(err, errLeft):
		return 426, "Transfer aborted."
	case errors.As(err, &t) && t.Network && errors.Is(err, os.ErrDeadlineExceeded):
		return 426, "Transfer timed out."
	case errors.As(err, &t) && t.Network:
		return 426, "Connection closed; transfer aborted."
	}
	if code, text = explain(err); code == 550 {
		code = 451 // after 150 that is the word for it
	}
	return code, text
}

var (
	errNoConnection = errors.New("ftp: no data connection")
	errAborted      = errors.New("ftp: aborted by the client")
	errLeft         = errors.New("ftp: the client has left")
)

func bytesOf(n int64) string {
	if n == 1 {
		return "1 byte"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
