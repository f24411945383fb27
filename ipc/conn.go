package ipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
)

// maxFiles is the most descriptors that a message may declare.
const maxFiles = 16

// Buffers are what Conns with one limit receive into. An idle Conn holds none,
// so a thousand waiting sessions cost no buffer.
type Buffers struct {
	size  atomic.Int64
	pool  sync.Pool
	brisk atomic.Int32 // Conns that wait in [Conn.receiveBriskly]
}

// NewBuffers returns buffers for packets whose body is at most size bytes, and
// at most what [MaxPacket] allows.
func NewBuffers(size int) *Buffers {
	b := new(Buffers)
	b.Grow(size)
	return b
}

// Grow raises the limit to size, or leaves it.
func (b *Buffers) Grow(size int) {
	want := int64(min(max(size, 0), MaxPacket-headerSize) + headerSize)
	for have := b.size.Load(); have < want; have = b.size.Load() {
		b.size.CompareAndSwap(have, want)
	}
}

// get returns a buffer that holds a packet and, behind it, a control message
// with as many descriptors as the kernel can deliver.
func (b *Buffers) get() *[]byte {
	size := int(b.size.Load()) + sys.ControlSize
	if p, ok := b.pool.Get().(*[]byte); ok && len(*p) >= size {
		return p
	}
	p := make([]byte, size)
	return &p
}

func (b *Buffers) put(p *[]byte) { b.pool.Put(p) }

// A Conn is one end of a SOCK_SEQPACKET connection. Send may be called from
// many goroutines at once, Receive from one at a time.
type Conn struct {
	file    *os.File // not in the runtime's poller
	socket  syscall.RawConn
	watch   *os.File // an epoll instance around the socket, which is
	watched syscall.RawConn
	buffers *Buffers

	bounded bool // a blocking receive ends soon

	// The receiver's own.
	brisk    bool // the last wait was short
	watching bool // packets wake the poller

	mu     sync.Mutex // never held over a wait
	unread int        // descriptors sent since the peer had last read all
}

// Pair returns the two ends of a new connection, close-on-exec and
// non-blocking. The caller owns both.
func Pair() (a, b *os.File, err error) {
	x, y, err := sys.SocketPair()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(x), "channel"), os.NewFile(uintptr(y), "channel"), nil
}

// NewConn takes ownership of f, a connected SOCK_SEQPACKET socket, also when it
// fails, and makes it blocking. Packets larger than buffers are protocol errors.
// Short waits take twice the time on a socket that is not from [Pair].
func NewConn(f *os.File, buffers *Buffers) (*Conn, error) {
	c := &Conn{file: f, buffers: buffers}
	err := KindChannel.Verify(f)
	if err == nil {
		err = c.open()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) open() (err error) {
	if c.socket, err = c.file.SyscallConn(); err != nil {
		return err
	}
	dup, epoll := -1, -1
	_ = c.socket.Control(func(fd uintptr) {
		if dup, err = sys.Unpolled(fd); dup >= 0 {
			fd = uintptr(dup)
		}
		if err == nil {
			c.bounded = sys.Waits(fd)
			epoll, err = sys.NewWatch(fd)
		}
	})
	if dup >= 0 {
		c.file.Close()
		c.file = os.NewFile(uintptr(dup), "channel")
		c.socket, _ = c.file.SyscallConn()
	}
	if err != nil {
		return fmt.Errorf("ipc: connection: %w", err)
	}
	c.watch = os.NewFile(uintptr(epoll), "channel's epoll")
	c.watched, _ = c.watch.SyscallConn()
	return c.watch.SetReadDeadline(time.Time{}) // fails without the poller: no deadline would reach who waits
}

// Use replaces what later packets are received into.
func (c *Conn) Use(buffers *Buffers) { c.buffers = buffers }

// CloseRead makes the peer's further packets fail where they are sent.
func (c *Conn) CloseRead() error {
	var result error
	err := c.socket.Control(func(fd uintptr) { result = syscall.Shutdown(int(fd), syscall.SHUT_RD) })
	return errors.Join(err, result)
}

// Close closes the connection and wakes whoever waits on it.
func (c *Conn) Close() error { return errors.Join(c.watch.Close(), c.file.Close()) }

// Send sends p, and waits while the peer's queue is full, at most until ctx
// ends or limit has passed: [os.ErrDeadlineExceeded]. The caller keeps p.Files.
// A packet is sent whole, or not at all and Send fails.
func (c *Conn) Send(ctx context.Context, limit time.Duration, p *Packet) error {
	return retry(ctx, limit, func() error { return c.send(p) })
}

// crowdLimit is how long a packet with descriptors waits for those of others.
const crowdLimit = time.Second

// retry calls try until there is room for its packet. Such waits are rare, so
// they sleep and ask again: the kernel wakes nobody when descriptors in flight
// become fewer.
func retry(ctx context.Context, limit time.Duration, try func() error) error {
	err := try()
	if err != syscall.EAGAIN && err != syscall.ETOOMANYREFS {
		return err
	}
	start, pause := time.Now(), 50*time.Microsecond
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		waited := time.Since(start)
		switch err = try(); {
		case err == syscall.EAGAIN && waited >= limit:
			return os.ErrDeadlineExceeded
		case err == syscall.ETOOMANYREFS && waited < min(limit, crowdLimit), err == syscall.EAGAIN:
		default:
			return err
		}
		pause = min(2*pause, 5*time.Millisecond)
		timer.Reset(max(0, min(pause, limit-waited)))
	}
}

// send sends p at once. It fails with EAGAIN while the peer's queue is full or
// holds too many descriptors, and with ETOOMANYREFS if the kernel lets this
// user have no more under way. It counts those of all processes of a user
// together and compares them with the sender's own RLIMIT_NOFILE (unix(7)), so
// another worker of the same user can bring this about with one packet.
func (c *Conn) send(p *Packet) error {
	if len(p.Files) > maxFiles {
		return fmt.Errorf("ipc: %d descriptors in one message: at most %d", len(p.Files), maxFiles)
	}
	buffer := c.buffers.get()
	defer c.buffers.put(buffer)
	data := append(p.appendHeader((*buffer)[:0]), p.Body...)
	if len(data) > MaxPacket {
		return fmt.Errorf("ipc: message of %d bytes: at most %d", len(data), MaxPacket)
	}
	return withDescriptors(p.Files, nil, func(rights []int) (err error) {
		if e := c.socket.Control(func(fd uintptr) { err = c.sendTo(fd, data, rights) }); e != nil {
			return os.ErrClosed
		}
		return err
	})
}

// sendTo lets at most maxFiles descriptors be under way: until the peer has
// received them they live on, whatever becomes of those here.
func (c *Conn) sendTo(fd uintptr, data []byte, rights []int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(rights) > 0 && c.unread > 0 && !sys.Unread(fd) {
		c.unread = 0
	}
	if c.unread += len(rights); c.unread > maxFiles {
		c.unread -= len(rights)
		return syscall.EAGAIN
	}
	err := sys.Send(fd, data, rights)
	if err != nil {
		c.unread -= len(rights)
	}
	if err == syscall.ECONNRESET {
		return syscall.EPIPE // it closed with packets of ours unread; the kernel says so once
	}
	return err
}

// withDescriptors calls f with the descriptors of files, each held open
// meanwhile. os.File.Fd would be shorter and would, before Go 1.25 and for
// some files still, make the descriptor blocking for everyone who shares it.
func withDescriptors(files []*os.File, rights []int, f func([]int) error) error {
	if len(files) == 0 {
		return f(rights)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) {
		result = withDescriptors(files[1:], append(rights, int(fd)), f)
	})
	if err != nil {
		return err
	}
	return result
}

// Receive waits for the next packet into p. The caller calls p.Release, and owns
// the descriptors, also of a packet that is refused: p.CloseFiles. They are bare
// until [Packet.Open] or [Plan.Decode]: whoever sent them may have chosen files
// that make every use wait.
//
// It returns io.EOF when the peer is gone, and a [ProtocolError] for a packet
// that is too large, that lost descriptors on the way or that has no legal header.
func (c *Conn) Receive(p *Packet) error {
	err := c.receiveBriskly(p)
	if err == syscall.EAGAIN {
		err = c.receivePatiently(p)
	}
	return err
}

// briskly is how soon a packet must have come for the next one to be waited for
// in the kernel.
const briskly = time.Millisecond

// receiveBriskly waits as one waits for a file: a blocking call of 4 to 20 ms,
// from which the scheduler takes the P if others need it. That saves the two
// system calls and the wake-up of another thread that the poller would cost. It
// fails with EAGAIN if that is not worth trying, or nothing has come.
//
// The scheduler is slow to take a P, and nobody looks into its poller while the
// last thread that ran is in such a call: whoever else the process has to serve
// would wait as long. So one P stays free, where there is more than one, and a
// thread is sent to look.
func (c *Conn) receiveBriskly(p *Packet) error {
	if !c.brisk {
		return syscall.EAGAIN
	}
	err := error(syscall.EAGAIN)
	free := runtime.GOMAXPROCS(0) - 1
	if c.buffers.enterKernel(free) {
		if c.watching {
			c.setWatch(false)
			if free > 0 {
				go func() {}() // who runs it goes on to the poller
			}
		}
		err = c.receive(p, true)
	}
	c.buffers.leaveKernel()
	c.brisk = err == nil
	return err
}

// enterKernel counts one more Conn that would wait in the kernel, and reports
// whether there is a P for it: free at most, or one. Either way leaveKernel is
// due.
func (b *Buffers) enterKernel(free int) bool {
	return b.brisk.Add(1) <= int32(max(1, free))
}

func (b *Buffers) leaveKernel() { b.brisk.Add(-1) }

// receivePatiently waits in the runtime's poller, in which a thousand idle
// Conns cost nothing. Until c.watch's read deadline.
func (c *Conn) receivePatiently(p *Packet) (err error) {
	start := time.Now()
	failed := c.watched.Read(func(uintptr) bool {
		if err = c.receive(p, false); err == syscall.EAGAIN && !c.watching {
			// What came in between woke nobody: the socket may still
			// be in epoll's list of the ready from the last time, and
			// then ep_modify (fs/eventpoll.c) does not wake either.
			if err = c.setWatch(true); err == nil {
				err = c.receive(p, false)
			}
		}
		return err != syscall.EAGAIN
	})
	c.brisk = c.bounded && time.Since(start) < briskly
	if errors.Is(failed, os.ErrDeadlineExceeded) {
		return failed
	} else if failed != nil {
		return os.ErrClosed // a RawConn's error is none of package os's
	}
	return err
}

// setWatch lets the poller hear of packets, or of none: while one waits in the
// kernel each would wake another thread for nothing.
func (c *Conn) setWatch(on bool) error {
	err := error(os.ErrClosed)
	_ = c.watched.Control(func(epoll uintptr) {
		_ = c.socket.Control(func(fd uintptr) { err = sys.Watch(epoll, fd, on) })
	})
	c.watching = on
	return err
}

func (c *Conn) receive(p *Packet, wait bool) error {
	buffer := c.buffers.get()
	data, control := split(*buffer)
	var n, nc, flags int
	var err error
	if c.socket.Control(func(fd uintptr) { n, nc, flags, err = sys.Receive(fd, data, control, wait) }) != nil {
		err = os.ErrClosed
	}
	switch err {
	case nil:
		*p = Packet{buffer: buffer, pool: c.buffers}
		if err = p.parse(data[:n], control[:nc], flags); err != nil {
			p.Release()
		}
		return err
	case syscall.ECONNRESET:
		err = io.EOF // it closed with packets of ours unread
	case syscall.EAGAIN, os.ErrClosed:
	default:
		err = os.NewSyscallError("recvmsg", err)
	}
	c.buffers.put(buffer)
	return err
}

// split divides a buffer into room for a packet and for its control message.
func split(buffer []byte) (data, control []byte) {
	n := len(buffer) - sys.ControlSize
	return buffer[:n], buffer[n:]
}
