//go:build !linux

package sys

import "errors"

// Sendfile is for Linux alone.
func Sendfile(out, in int, offset *int64, n int) (int, error) { return 0, errors.ErrUnsupported }

// Splice is for Linux alone.
func Splice(out, in, n int) (int, error) { return 0, errors.ErrUnsupported }

// SetPipeSize is for Linux alone.
func SetPipeSize(fd, n int) (int, error) { return 0, errors.ErrUnsupported }

// Cork is for Linux alone.
func Cork(fd uintptr) {}

// TCPProgress is for Linux alone.
type TCPProgress struct {
	Acked uint64
	Done  bool
}

// ReadTCPProgress is for Linux alone.
func ReadTCPProgress(fd int) (TCPProgress, error) { return TCPProgress{}, errors.ErrUnsupported }

// SocketError is for Linux alone.
func SocketError(fd int) error { return errors.ErrUnsupported }

// Pipe is for Linux alone.
func Pipe() (r, w int, err error) { return -1, -1, errors.ErrUnsupported }
