package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// PathOnly is set in the flags of a descriptor that only names a file.
const PathOnly = unix.O_PATH

// SealsAll fix a memfd's content and size, and themselves, for good (fcntl(2)).
// F_SEAL_FUTURE_WRITE would not: an older mapping may still write.
const SealsAll = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// Socket is what the kernel says of a socket.
type Socket struct {
	Domain, Type, Protocol int
	Listening, Connected   bool
}

// DescribeSocket fails with ENOTSOCK for other files. It does not read
// SO_ERROR, because reading clears it.
func DescribeSocket(fd uintptr) (s Socket, err error) {
	var answers [4]int
	for i, option := range [...]int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL, unix.SO_ACCEPTCONN} {
		if answers[i], err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option); err != nil {
			return Socket{}, err
		}
	}
	_, err = unix.Getpeername(int(fd))
	return Socket{answers[0], answers[1], answers[2], answers[3] != 0, err == nil}, nil
}

// File is what the kernel says of any open file.
type File struct {
	Flags  int    // F_GETFL: access mode and status
	Mode   uint32 // st_mode
	System int64  // the magic number of its file system
	Seals  int    // F_GET_SEALS; none if it can't be sealed
}

// DescribeFile retries on EINTR, which a FUSE file system may return.
func DescribeFile(fd uintptr) (f File, err error) {
	var stat unix.Stat_t
	var system unix.Statfs_t
	for again := true; again; again = err == syscall.EINTR {
		if err = unix.Fstat(int(fd), &stat); err == nil {
			err = unix.Fstatfs(int(fd), &system)
		}
	}
	if err == nil {
		f.Flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0)
	}
	if seals, sealErr := unix.FcntlInt(fd, unix.F_GET_SEALS, 0); sealErr == nil {
		f.Seals = seals
	}
	f.Mode, f.System = stat.Mode, system.Type
	return f, err
}
