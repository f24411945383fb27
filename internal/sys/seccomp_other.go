//go:build !linux

package sys

import "errors"

type BPF struct {
	Code            uint16
	IfTrue, IfFalse uint8
	K               uint32
}

func FilterActionAvailable(action uint32) error           { return errors.ErrUnsupported }
func InstallFilter(program []BPF) (thread int, err error) { return 0, errors.ErrUnsupported }
