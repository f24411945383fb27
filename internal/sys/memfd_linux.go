package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// SealedMemfd returns a memfd that is empty and sealed for good.
func SealedMemfd(name string) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, SealsAll); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Duplicate returns another descriptor, close-on-exec, of what fd is of.
func Duplicate(fd uintptr) (int, error) { return unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3) }

// LockByte locks one byte of what fd is of, for this open file description and
// no other, until it is unlocked or the last descriptor of that description is
// closed (fcntl(2), F_OFD_SETLK). It waits for nobody: locked is false if another
// has it. fd must be open for writing.
func LockByte(fd uintptr, at int64) (locked bool, err error) {
	err = setLock(fd, unix.F_WRLCK, at)
	if err == syscall.EAGAIN || err == syscall.EACCES {
		return false, nil
	}
	return err == nil, err
}

// UnlockByte gives back what [LockByte] took.
func UnlockByte(fd uintptr, at int64) error { return setLock(fd, unix.F_UNLCK, at) }

func setLock(fd uintptr, how int16, at int64) error {
	return unix.FcntlFlock(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: how, Start: at, Len: 1})
}
