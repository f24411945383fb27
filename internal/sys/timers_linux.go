package sys

import (
	"time"

	"golang.org/x/sys/unix"
)

// SlackenTimers lets the kernel make every sleep and every wait with a limit of
// this process up to slack longer (PR_SET_TIMERSLACK(2const); the default is
// 50 us). It is set for each thread, and passed on to threads and processes
// started later, across exec.
func SlackenTimers(slack time.Duration) error {
	_, err := prctlAll(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()))
	return err
}
