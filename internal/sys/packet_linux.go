package sys

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxFiles is SCM_MAX_FD, the most descriptors that Linux delivers with one
// message (include/net/scm.h).
const MaxFiles = 253

// ControlSize is the size of a control buffer from which no descriptor of a
// legal message can be lost. A buffer for one int would silently hold two,
// because CMSG_SPACE rounds up, and lose the rest without a trace but
// MSG_CTRUNC. The second part is room for credentials and a pidfd that a
// socket option could add.
var ControlSize = unix.CmsgSpace(MaxFiles*4) + unix.CmsgSpace(64)

// Flags that the kernel sets on a received message.
const (
	Truncated        = unix.MSG_TRUNC
	ControlTruncated = unix.MSG_CTRUNC
)

// tick is the shortest time that a receive may be limited to: the kernel counts
// it in timer interrupts, 1 to 10 ms apart, and waits for one or two.
var tick = unix.Timeval{Usec: 1}

// SocketPair returns the two ends of a new AF_UNIX SOCK_SEQPACKET connection,
// close-on-exec and non-blocking; if made blocking, a receive ends within what
// [Waits] says. The caller owns both.
func SocketPair() (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	for i := 0; i < len(fds) && err == nil; i++ {
		if err = unix.SetsockoptTimeval(fds[i], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick); err != nil {
			Close(fds[0])
			Close(fds[1])
		}
	}
	return fds[0], fds[1], err
}

// Waits reports whether a blocking receive from fd returns within 20 ms, with
// EAGAIN if nothing has come.
func Waits(fd uintptr) bool {
	var limit unix.Timeval
	size := uint32(unsafe.Sizeof(limit))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO,
		uintptr(unsafe.Pointer(&limit)), uintptr(unsafe.Pointer(&size)), 0)
	return errno == 0 && limit.Nano() > 0 && limit.Nano() <= (20*time.Millisecond).Nanoseconds()
}

// Unread reports whether the peer of a socket has not yet received all that was
// sent: the memory of a packet is the sender's until then (sock_diag(7)).
func Unread(fd uintptr) bool {
	var memory [9]uint32
	size := uint32(unsafe.Sizeof(memory))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&memory)), uintptr(unsafe.Pointer(&size)), 0)
	return errno != 0 || memory[unix.SK_MEMINFO_WMEM_ALLOC] > 0
}

// StreamPair returns the two ends of a new AF_UNIX SOCK_STREAM connection,
// close-on-exec, and a non-blocking; b holds about size bytes that a has not read.
// The caller owns both.
func StreamPair(size int) (a, b int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, err
	}
	_ = unix.SetNonblock(fds[0], true)                                    // which can't fail
	_ = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUF, size) // less memory, if it works
	return fds[0], fds[1], nil
}

// Send sends one message and the descriptors of rights, without blocking and
// without SIGPIPE. The caller keeps its descriptors.
func Send(fd uintptr, data []byte, rights []int) error {
	var iov unix.Iovec
	iov.Base = &data[0]
	iov.SetLen(len(data))
	var msg unix.Msghdr
	msg.Iov = &iov
	msg.SetIovlen(1)
	if len(rights) > 0 {
		oob := unix.UnixRights(rights...)
		msg.Control = &oob[0]
		msg.SetControllen(len(oob))
	}
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return errno
		case int(n) != len(data):
			return syscall.EMSGSIZE // a packet is never sent in part (unix(7)); a stream would be
		}
		return nil
	}
}

// Receive receives one message, every descriptor in it close-on-exec from
// birth. It returns the bytes of data and of control written and the flags of
// the message. Without wait it fails with EAGAIN if there is none; with it, the
// socket says how long it waits, and a signal ends that with EAGAIN too.
func Receive(fd uintptr, data, control []byte, wait bool) (n, nc, flags int, err error) {
	// unix.Recvmsg would allocate a source address for each packet. The
	// header and what it points to stay on this stack or are kept alive by
	// the caller's slices until the call returns.
	var iov unix.Iovec
	iov.Base = &data[0]
	iov.SetLen(len(data))
	var msg unix.Msghdr
	msg.Iov = &iov
	msg.SetIovlen(1)
	msg.Control = &control[0]
	msg.SetControllen(len(control))
	var r uintptr
	var errno syscall.Errno
	if wait {
		r, _, errno = unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_CMSG_CLOEXEC)
	} else {
		r, _, errno = unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	}
	switch errno {
	case 0:
		return int(r), int(msg.Controllen), int(msg.Flags), nil
	case unix.EINTR:
		errno = unix.EAGAIN
	}
	return 0, 0, 0, errno
}

// Waiting reports whether a message waits on fd, which it leaves there with its
// descriptors. It fails with EAGAIN if there is none, but might come.
func Waiting(fd uintptr) (bool, error) {
	var first byte
	iov := unix.Iovec{Base: &first}
	iov.SetLen(1)
	msg := unix.Msghdr{Iov: &iov}
	msg.SetIovlen(1)
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch errno {
	case 0:
		return n > 0, nil
	case unix.EINTR:
		errno = unix.EAGAIN
	}
	return false, errno
}

// Rights returns every descriptor in a received control buffer. The caller
// owns them, also when err is not nil: some can be had from a buffer whose
// rest makes no sense.
func Rights(control []byte) (fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET || m.Header.Type != unix.SCM_RIGHTS {
			err = syscall.EPROTO // credentials and the like were not asked for
			continue
		}
		got, e := unix.ParseUnixRights(m)
		if e != nil {
			err = e
		}
		fds = append(fds, got...)
	}
	return fds, err
}

// Close closes a descriptor that no os.File owns.
func Close(fd int) { _ = unix.Close(fd) }

// NewWatch returns an epoll instance, non-blocking and close-on-exec, for fd
// alone. It watches nothing until [Watch]. The caller owns it.
func NewWatch(fd uintptr) (int, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, err
	}
	if err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, int(fd), new(unix.EpollEvent)); err == nil {
		err = unix.SetNonblock(epoll, true)
	}
	if err != nil {
		Close(epoll)
	}
	return epoll, err
}

// Watch makes epoll readable when fd is, or ends that but for a hang-up.
func Watch(epoll, fd uintptr, on bool) error {
	var event unix.EpollEvent
	if on {
		event.Events = unix.EPOLLIN
	}
	return unix.EpollCtl(int(epoll), unix.EPOLL_CTL_MOD, int(fd), &event)
}

// Unpolled makes a non-blocking descriptor blocking, and returns a duplicate,
// close-on-exec, that the runtime's poller does not watch. It returns -1 for
// one that is blocking already.
func Unpolled(fd uintptr) (int, error) {
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		return -1, err
	}
	dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		err = unix.SetNonblock(dup, false)
	}
	return dup, err
}
