//go:build !linux

package sys

import (
	"errors"
	"syscall"
)

func DenyWriteExecute() error            { return errors.ErrUnsupported }
func NotDumpable() error                 { return errors.ErrUnsupported }
func DieWithParent() error               { return errors.ErrUnsupported }
func SetFSUser(uid, gid int) error       { return errors.ErrUnsupported }
func Limit(resource int, n uint64) error { return errors.ErrUnsupported }

const (
	LimitCore = iota
	LimitData
	LimitFileSize
	LimitFiles
	LimitLocked
	LimitQueues
)

func MountProc() error { return errors.ErrUnsupported }

func OpenDirectory(path string) (int, error) { return -1, errors.ErrUnsupported }
func OpenRegular(path string) (int, error)   { return -1, errors.ErrUnsupported }
func WaitExited(pidfd uintptr) (syscall.WaitStatus, bool, error) {
	return 0, false, errors.ErrUnsupported
}
func Exited(pidfd uintptr) (syscall.WaitStatus, bool, error) {
	return 0, false, errors.ErrUnsupported
}
func IsProcess(fd uintptr) error          { return errors.ErrUnsupported }
func HasEnded(pidfd uintptr) bool         { return false }
func SetNonblock(fd int) error            { return errors.ErrUnsupported }
func Kill(pidfd uintptr) error            { return errors.ErrUnsupported }
func PipeSize(fd uintptr, size int) error { return errors.ErrUnsupported }
func CloseOnExecFrom(first uint) error    { return errors.ErrUnsupported }
