//go:build !linux || !(amd64 || arm64)

package sys

import "errors"

const (
	TrapMark = "\x00SIGSYS\x00"
	TrapSize = len(TrapMark) + 4
)

func ReportTraps() error { return errors.ErrUnsupported }
