package ipc

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Kind is what a descriptor must be. The zero Kind is none, and no descriptor
// is of it.
type Kind uint8

const (
	KindListener    Kind = iota + 1 // "listener": a TCP socket that listens
	KindStream                      // "stream": a connected TCP socket
	KindChannel                     // "channel": a connected AF_UNIX SOCK_SEQPACKET socket
	KindRegular                     // "regular": a regular file, in any access mode
	KindRegularRead                 // "regular-read": a regular file opened only for reading
	KindPipeRead                    // "pipe-read": the read end of a pipe; a FIFO is none
	KindPipeWrite                   // "pipe-write": the write end of a pipe
	KindMemfd                       // "memfd": a memfd sealed for good against writing, growing and shrinking
	KindDirectory                   // "directory": a directory
	KindProcess                     // "process": a pidfd
	KindUnixStream                  // "unix-stream": a connected AF_UNIX SOCK_STREAM socket
)

const (
	anyAccess = -1
	mptcp     = 262        // IPPROTO_MPTCP, which Go's listeners are where the kernel has it
	pipeFS    = 0x50495045 // PIPEFS_MAGIC, the kernel's own file system of pipes
)

// kinds says what the kernel must answer. A socket's answer equals its row.
var kinds = [...]struct {
	word   string
	mode   uint32 // of a file: its S_IFMT
	access int    // of a file: its O_ACCMODE
	seals  int    // of a file: these and perhaps more
	socket sys.Socket
}{
	KindListener:    {word: "listener", socket: sys.Socket{Domain: syscall.AF_INET, Type: syscall.SOCK_STREAM, Protocol: syscall.IPPROTO_TCP, Listening: true}},
	KindStream:      {word: "stream", socket: sys.Socket{Domain: syscall.AF_INET, Type: syscall.SOCK_STREAM, Protocol: syscall.IPPROTO_TCP, Connected: true}},
	KindChannel:     {word: "channel", socket: sys.Socket{Domain: syscall.AF_UNIX, Type: syscall.SOCK_SEQPACKET, Connected: true}},
	KindRegular:     {word: "regular", mode: syscall.S_IFREG, access: anyAccess},
	KindRegularRead: {word: "regular-read", mode: syscall.S_IFREG, access: syscall.O_RDONLY},
	KindPipeRead:    {word: "pipe-read", mode: syscall.S_IFIFO, access: syscall.O_RDONLY},
	KindPipeWrite:   {word: "pipe-write", mode: syscall.S_IFIFO, access: syscall.O_WRONLY},
	KindMemfd:       {word: "memfd", mode: syscall.S_IFREG, access: anyAccess, seals: sys.SealsAll},
	KindDirectory:   {word: "directory", mode: syscall.S_IFDIR, access: anyAccess},
	KindProcess:     {word: "process"},
	KindUnixStream:  {word: "unix-stream", socket: sys.Socket{Domain: syscall.AF_UNIX, Type: syscall.SOCK_STREAM, Connected: true}},
}

// controls are file systems (linux/magic.h) whose regular files are the kernel's
// levers or its objects. Some ask who writes, not who opened: a worker that
// passed /proc/PID/uid_map off as a regular file would borrow the monitor's
// rights (CVE-2013-1959).
var controls = []int64{
	0x9fa0, 0x62656572, 0x0027e0eb, 0x63677270, // proc, sysfs, cgroup, cgroup2
	0x64626720, 0x74726163, 0x73636673, 0x62656570, // debugfs, tracefs, securityfs, configfs
	0xcafe4a11, 0xde5e81e4, 0xf97cff8c, 0x43415d53, // bpf, efivarfs, selinuxfs, smackfs
	0x42494e4d, 0x65735543, 0x07655821, 0x6165676c, // binfmt_misc, fusectl, resctrl, pstore
	0x6e736673, 0x50494446, 0x19800202, 0x444d4142, 0x5345434d, // nsfs, pidfs, mqueue, dmabuf, secretmem
}

// String returns the word for k in a privsep tag.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kinds) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kinds[k].word
}

func allKinds() (all []Kind) {
	for k := range kinds[1:] {
		all = append(all, Kind(k+1))
	}
	return all
}

// parseKind returns 0 if no kind is called word.
func parseKind(word string) Kind {
	return Kind(1 + slices.IndexFunc(allKinds(), func(k Kind) bool { return k.String() == word }))
}

// A KindError says that a descriptor is not of its declared kind.
//
// The kernel does not know a stream that its peer has reset from one that was
// never connected. Err is then [syscall.ENOTCONN], and a client may be to blame.
type KindError struct {
	Field string // of the message; empty from [Kind.Verify]
	Want  Kind
	Got   string
	Err   error // nil if the kernel says what else it is
}

func (e *KindError) Error() string {
	s := strings.TrimSuffix("ipc: "+e.Field, ": ") + " needs a file of kind " + e.Want.String() + ", not " + e.Got
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *KindError) Unwrap() error { return e.Err }

// Verify asks the kernel whether f is of kind k; the error is a [*KindError].
// An O_PATH descriptor is of no kind. A file of /proc, /sys or the like is not
// regular, and such a directory is no directory.
//
// Verify changes nothing about f, not even its blocking mode. Its answer is
// about now: whoever else has the open file can later disconnect a socket or
// resize a file, but not turn one type into another. It waits for no socket. A
// network or FUSE file system may make it wait for the file's server, as any
// use of the file may.
//
// Its system calls are getsockopt and getpeername for a socket, and fstat,
// fstatfs and fcntl (F_GETFL, F_GET_SEALS) for a file, and waitid for a process.
func (k Kind) Verify(f *os.File) error { return k.verify("", f) }

func (k Kind) verify(field string, f *os.File) error {
	got, err := "a closed file", error(syscall.EBADF)
	raw, closed := f.SyscallConn()
	if closed == nil && k > 0 && int(k) < len(kinds) {
		_ = raw.Control(func(fd uintptr) { got, err = k.judge(fd) })
	}
	if got == "" {
		return nil
	}
	return &KindError{field, k, got, err}
}

// judge returns what fd is, or nothing if it is of kind k.
func (k Kind) judge(fd uintptr) (got string, err error) {
	switch {
	case k == KindProcess:
		if err := sys.IsProcess(fd); err != nil {
			return "this", err
		}
		return "", nil
	case kinds[k].mode == 0:
		return k.judgeSocket(fd)
	}
	return k.judgeFile(fd)
}

func (k Kind) judgeFile(fd uintptr) (string, error) {
	f, err := sys.DescribeFile(fd)
	if err != nil {
		return "this", err
	}
	want, access := &kinds[k], f.Flags&syscall.O_ACCMODE
	if f.Flags&sys.PathOnly == 0 && f.Mode&syscall.S_IFMT == want.mode &&
		(want.access == anyAccess || want.access == access) && f.Seals&want.seals == want.seals &&
		(want.mode == syscall.S_IFIFO) == (f.System == pipeFS) && !slices.Contains(controls, f.System) {
		return "", nil
	}
	return fmt.Sprintf("one with the mode %#o, flags %#x, seals %#x, file system %#x", f.Mode, f.Flags, f.Seals, f.System), nil
}

// judgeSocket asks a file that is no socket nothing else, so that no file
// system's server hears of it.
func (k Kind) judgeSocket(fd uintptr) (string, error) {
	s, err := sys.DescribeSocket(fd)
	if err != nil {
		return "this", err
	}
	got := s
	if s.Domain == syscall.AF_INET6 {
		s.Domain = syscall.AF_INET
	}
	if s.Protocol == mptcp {
		s.Protocol = syscall.IPPROTO_TCP
	}
	if s == kinds[k].socket {
		return "", nil
	}
	if s.Connected = true; s == kinds[k].socket {
		err = syscall.ENOTCONN
	}
	return fmt.Sprintf("the socket %+v", got), err
}
