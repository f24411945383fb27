//go:build !linux

package sandbox

import (
	"errors"

	"github.com/go-privsep/sallyport/caps"
)

// Enter is for Linux alone.
func (c *Confinement) Enter(caps.Set) (Mechanisms, error) { return 0, errors.ErrUnsupported }
