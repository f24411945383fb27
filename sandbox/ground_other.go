//go:build !linux

package sandbox

import (
	"errors"
	"syscall"

	"github.com/go-privsep/sallyport/caps"
)

// StartCaps is empty where there are no capabilities.
func StartCaps() caps.Set { return caps.Set{} }

// A Ground is how workers are started on this host: here, not at all.
type Ground uint8

// Grounds is for Linux alone.
func Grounds() ([]Ground, error) { return nil, errors.ErrUnsupported }

// Refused reports nothing.
func (Ground) Refused(error) bool { return false }

// Missing are the mechanisms that workers started on this ground can't have.
func (Ground) Missing() Mechanisms { return allMechanisms }

// Launcher is the attributes of a launcher's process.
func (Ground) Launcher(pidfd *int) *syscall.SysProcAttr { return nil }

// Prepare fails.
func (Ground) Prepare() (Mechanisms, error) { return 0, errors.ErrUnsupported }

// Worker is the attributes of a worker's process.
func (Ground) Worker(p *Profile, pidfd *int) *syscall.SysProcAttr { return nil }
