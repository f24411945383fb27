//go:build !linux

package sys

import "errors"

const (
	MaxFiles         = 253
	Truncated        = 1
	ControlTruncated = 2
)

var ControlSize = MaxFiles*4 + 64

func StreamPair(int) (a, b int, err error) { return -1, -1, errors.ErrUnsupported }

func SocketPair() (a, b int, err error)                { return -1, -1, errors.ErrUnsupported }
func Send(fd uintptr, data []byte, rights []int) error { return errors.ErrUnsupported }
func Receive(fd uintptr, data, control []byte, wait bool) (n, nc, flags int, err error) {
	return 0, 0, 0, errors.ErrUnsupported
}
func Rights(control []byte) ([]int, error)   { return nil, errors.ErrUnsupported }
func Close(fd int)                           {}
func Waits(fd uintptr) bool                  { return false }
func Unread(fd uintptr) bool                 { return true }
func Waiting(fd uintptr) (bool, error)       { return false, errors.ErrUnsupported }
func NewWatch(fd uintptr) (int, error)       { return -1, errors.ErrUnsupported }
func Watch(epoll, fd uintptr, on bool) error { return errors.ErrUnsupported }
func Unpolled(fd uintptr) (int, error)       { return -1, errors.ErrUnsupported }
