package ipc

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Await waits until something was sent to f, an end of a [Pair], and leaves it
// there for whoever receives it: true. It is false if the other end is closed
// first, and for an empty packet, which no [Conn] sends. Else its error is the
// cause of ctx's end, or what the host had no room for.
//
// The caller keeps f, and receives nothing from it meanwhile.
func Await(ctx context.Context, f *os.File) (bool, error) {
	socket, err := f.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("ipc: await: %w", err)
	}
	// Around f, as in a Conn: f may be blocking, which the runtime's poller is
	// not for, and is somebody else's afterwards.
	watch, err := newWatch(socket)
	if err != nil {
		return false, fmt.Errorf("ipc: await: %w", err)
	}
	defer watch.Close()
	stop := context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	watched, err := watch.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("ipc: await: %w", err)
	}
	var waiting bool
	var result error
	err = watched.Read(func(uintptr) bool {
		if e := socket.Control(func(fd uintptr) { waiting, result = sys.Waiting(fd) }); e != nil {
			result = os.ErrClosed
		}
		return result != syscall.EAGAIN
	})
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err == nil {
		err = result
	}
	return waiting, err
}

// newWatch is an epoll instance that is readable when socket is.
func newWatch(socket syscall.RawConn) (*os.File, error) {
	epoll, err := -1, error(os.ErrClosed)
	_ = socket.Control(func(fd uintptr) {
		if epoll, err = sys.NewWatch(fd); err != nil {
			return
		}
		if err = sys.Watch(uintptr(epoll), fd, true); err != nil {
			sys.Close(epoll)
		}
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(epoll), "channel's epoll"), nil
}
