//go:build !linux

package sys

import (
	"errors"
	"net/netip"
)

// Listen is for Linux alone.
func Listen(local netip.AddrPort, zone uint32, backlog int) (int, error) {
	return -1, errors.ErrUnsupported
}

// Accept is for Linux alone.
func Accept(fd uintptr) (int, netip.Addr, error) { return -1, netip.Addr{}, errors.ErrUnsupported }

// OnlyLoopback is for Linux alone.
func OnlyLoopback() (bool, error) { return false, errors.ErrUnsupported }
