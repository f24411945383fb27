//go:build !linux

package sys

import (
	"errors"
	"time"
)

// SlackenTimers is for Linux alone.
func SlackenTimers(slack time.Duration) error { return errors.ErrUnsupported }
