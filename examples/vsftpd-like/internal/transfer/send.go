package transfer

import (
	"context"
	"io"
	"os"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Send moves n bytes of the file src, from offset on, to the connection dst
// and returns how many were taken by it. A file that ends earlier is an
// [Error] with [io.ErrUnexpectedEOF]: what was promised was not sent. The
// file's own position is neither used nor moved.
func (m *Mover) Send(ctx context.Context, dst, src *os.File, offset, n int64) (int64, error) {
	if m.Secure != nil {
		return m.sendSecure(ctx, dst, src, offset, n)
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return 0, &Error{Network: true, Err: err}
	}
	in, err := src.SyscallConn()
	if err != nil {
		return 0, failedFile(err)
	}
	w, err := m.watch(ctx, dst)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)

	var sent int64
	var failed, waiting error
	err = in.Control(func(from uintptr) {
		waiting = out.Write(func(to uintptr) bool {
			if sent == 0 && n <= smallBuffer {
				sys.Cork(to) // what is short goes out together with the end, in Finish
			}
			for sent < n && w.progress() {
				k, err := sys.Sendfile(int(to), int(from), &offset, int(min(n-sent, chunk)))
				sent += int64(k)
				m.moved.Store(sent)
				switch {
				case err == syscall.EAGAIN:
					return false
				case err != nil:
					failed = err
					return true
				case k == 0:
					failed = io.ErrUnexpectedEOF
					return true
				}
			}
			return true
		})
	})
	switch {
	case err != nil:
		return sent, failedFile(err)
	case waiting != nil:
		return sent, w.network(waiting)
	case failed != nil && !ofSocket(failed):
		return sent, failedFile(failed)
	}
	return sent, w.network(failed)
}

// ofSocket tells which of sendfile's two descriptors an error is about. The
// kernel doesn't say; these only a socket can give.
func ofSocket(err error) bool {
	switch err {
	case syscall.EPIPE, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.ENOTCONN, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET, syscall.EHOSTDOWN, syscall.ENOBUFS:
		return true
	}
	return false
}
