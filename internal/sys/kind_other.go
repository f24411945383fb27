//go:build !linux

package sys

import "errors"

const (
	PathOnly = 1 << 30
	SealsAll = 0xf
)

type Socket struct {
	Domain, Type, Protocol int
	Listening, Connected   bool
}

type File struct {
	Flags  int
	Mode   uint32
	System int64
	Seals  int
}

func DescribeSocket(fd uintptr) (Socket, error) { return Socket{}, errors.ErrUnsupported }
func DescribeFile(fd uintptr) (File, error)     { return File{}, errors.ErrUnsupported }
