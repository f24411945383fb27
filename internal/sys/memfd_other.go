//go:build !linux

package sys

import "errors"

// SealedMemfd is for Linux alone.
func SealedMemfd(name string) (fd int, err error) { return -1, errors.ErrUnsupported }

// Duplicate is for Linux alone.
func Duplicate(fd uintptr) (int, error) { return -1, errors.ErrUnsupported }

func LockByte(fd uintptr, at int64) (locked bool, err error) { return false, errors.ErrUnsupported }
func UnlockByte(fd uintptr, at int64) error                  { return errors.ErrUnsupported }
