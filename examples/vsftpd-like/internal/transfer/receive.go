package transfer

import (
	"context"
	"os"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Receive moves what the connection src brings, until it ends, to the file
// dst at its own position, and returns how many bytes the file has taken. A
// connection that was reset is an [Error] with Network; without an error the
// peer has closed in order and every byte was written. Closing dst may still
// bring an error, and is the caller's.
//
// A short upload passes through the buffer, because a pipe costs more than it
// saves; a long one is spliced through a pipe of 1 MiB, or where the kernel
// grants no such pipe goes on through a larger buffer.
func (m *Mover) Receive(ctx context.Context, dst, src *os.File) (int64, error) {
	w, err := m.watch(ctx, src)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)

	most := int64(long)
	if m.Secure != nil {
		most = unlimited
	}
	ended, err := m.pump(w, dst, m.over(src), fromNetwork, plain, most)
	if ended || err != nil {
		return m.Moved(), err
	}
	p, ok := openPipe()
	if !ok {
		_, err = m.pump(w, dst, src, fromNetwork, plain, unlimited)
		return m.Moved(), err
	}
	defer p.close()
	err = m.splice(w, dst, src, p)
	return m.Moved(), err
}

// splice moves the rest of src to dst through p.
func (m *Mover) splice(w *watch, dst, src *os.File, p pipe) error {
	in, err := src.SyscallConn()
	if err != nil {
		return w.network(err)
	}
	out, err := dst.SyscallConn()
	if err != nil {
		return failedFile(err)
	}
	var waiting, lost, failed error
	err = out.Control(func(to uintptr) {
		waiting = in.Read(func(from uintptr) bool {
			for w.progress() {
				k, err := sys.Splice(p.w, int(from), chunk)
				switch {
				case err == syscall.EAGAIN: // of the connection, because the pipe is empty here
					return false
				case err != nil:
					lost = err
					return true
				case k == 0:
					return true
				}
				k, failed = m.drain(int(to), p.r, k)
				m.moved.Add(int64(k))
				if failed != nil {
					return true
				}
			}
			return true
		})
	})
	switch {
	case err != nil:
		return failedFile(err)
	case failed != nil:
		return failedFile(failed)
	case waiting != nil:
		return w.network(waiting)
	}
	return w.network(lost)
}

// drain writes the n bytes that are in a pipe to a file. A file that can't be
// spliced to (EINVAL: opened to append, or on some file systems) is written
// from the buffer.
func (m *Mover) drain(to, from, n int) (done int, err error) {
	for done < n {
		k, err := sys.Splice(to, from, n-done)
		if err == syscall.EINVAL {
			k, err = m.drainByHand(to, from)
		}
		done += k
		if err != nil {
			return done, err
		}
		if k == 0 {
			return done, syscall.EIO
		}
	}
	return done, nil
}

func (m *Mover) drainByHand(to, from int) (done int, err error) {
	buf := m.buffer()
	n, err := retry(func() (int, error) { return syscall.Read(from, buf) })
	for err == nil && done < n {
		var k int
		k, err = retry(func() (int, error) { return syscall.Write(to, buf[done:n]) })
		done += max(k, 0)
	}
	return done, err
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// pipe is the kernel's buffer between a connection and a file. It lives as
// long as one transfer, not as a session: a user's pipes are rationed
// (pipe-user-pages-soft: 64 MiB), and all session workers are one user.
type pipe struct{ r, w int }

// pipeSize is the least that beats a buffer: measured on loopback, a pipe of
// 64 KiB takes a tenth more processor time than a buffer of 256 KiB, one of
// 1 MiB a third less.
const pipeSize = 1 << 20

func openPipe() (pipe, bool) {
	r, w, err := sys.Pipe()
	if err != nil {
		return pipe{}, false
	}
	p := pipe{r, w}
	if _, err := sys.SetPipeSize(w, pipeSize); err != nil {
		p.close()
		return pipe{}, false
	}
	return p, true
}

func (p pipe) close() {
	syscall.Close(p.r)
	syscall.Close(p.w)
}
