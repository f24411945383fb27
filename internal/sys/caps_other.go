//go:build !linux

package sys

import "errors"

const (
	SecurebitsLocked   = 0
	SecurebitsKeepCaps = 0
)

func Gettid() int { return 0 }

func Capget() (effective, permitted, inheritable uint64, err error) {
	return 0, 0, 0, errors.ErrUnsupported
}

func Capset(effective, permitted, inheritable uint64) error    { return errors.ErrUnsupported }
func CapsetAll(effective, permitted, inheritable uint64) error { return errors.ErrUnsupported }
func BoundingHas(n int) (bool, error)                          { return false, errors.ErrUnsupported }
func BoundingDrop(n int) error                                 { return errors.ErrUnsupported }
func BoundingDropAll(n int) error                              { return errors.ErrUnsupported }
func Securebits() (uint, error)                                { return 0, errors.ErrUnsupported }
func SecurebitsAll() (uint, error)                             { return 0, errors.ErrUnsupported }
func SetSecurebits(bits uint) error                            { return errors.ErrUnsupported }
func SetSecurebitsAll(bits uint) error                         { return errors.ErrUnsupported }
func AmbientHas(n int) (bool, error)                           { return false, errors.ErrUnsupported }
func AmbientRaise(n int) error                                 { return errors.ErrUnsupported }
func AmbientLower(n int) error                                 { return errors.ErrUnsupported }
func AmbientClear() error                                      { return errors.ErrUnsupported }
