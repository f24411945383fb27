package sys

import (
	"golang.org/x/sys/unix"
)

// Sendfile moves up to n bytes of the file in, from *offset on, into out and
// advances *offset. 0 means the file ends here. See sendfile(2).
func Sendfile(out, in int, offset *int64, n int) (int, error) {
	for {
		sent, err := unix.Sendfile(out, in, offset, n)
		if err != unix.EINTR {
			return max(sent, 0), err
		}
	}
}

// Splice moves up to n bytes from in to out, one of which is a pipe, without
// waiting on the pipe. Both use their own file position. See splice(2).
func Splice(out, in, n int) (int, error) {
	for {
		moved, err := unix.Splice(in, nil, out, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return max(int(moved), 0), err
		}
	}
}

// SetPipeSize asks for a pipe of n bytes and returns what the pipe holds now.
// EPERM: n is over pipe-max-size, or the user's pipes hold more than
// pipe-user-pages-soft already. See pipe(7).
func SetPipeSize(fd, n int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, n) }

// Cork keeps a TCP socket from sending a segment that is not full, until it is
// shut down or closed, for at most 200 ms (TCP_CORK in tcp(7)). It does nothing
// for a socket that isn't TCP.
func Cork(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) }

// TCPProgress tells how far a socket is with what was written to it.
type TCPProgress struct {
	Acked uint64 // bytes that the peer's kernel has acknowledged
	Done  bool   // after a shutdown: nothing is on its way any more, for good or ill (see SO_ERROR)
}

// ReadTCPProgress reads TCP_INFO. It fails for a socket that isn't TCP.
func ReadTCPProgress(fd int) (TCPProgress, error) {
	// x/sys has no name for the state, TCP_INFO's first byte.
	const finWait2, timeWait, closed = 5, 6, 7
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return TCPProgress{}, err
	}
	done := info.State == finWait2 || info.State == timeWait || info.State == closed
	return TCPProgress{Acked: info.Bytes_acked, Done: done}, nil
}

// SocketError takes the pending error of a socket (SO_ERROR), nil if none.
func SocketError(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if errno != 0 {
		return unix.Errno(errno)
	}
	return nil
}

// Pipe returns a nonblocking pipe. The descriptors stay out of the runtime's
// poller: its user splices into it just what it splices out again.
func Pipe() (r, w int, err error) {
	var fds [2]int
	err = unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK)
	return fds[0], fds[1], err
}
