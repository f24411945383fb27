package seccomp

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/go-privsep/sallyport/internal/arch"
)

// An Arch is an architecture that filters can be made for, as GOARCH names it.
type Arch string

// The architectures that have filters.
const (
	AMD64 Arch = "amd64"
	ARM64 Arch = "arm64"
)

// Host returns the architecture of this process. [Compile] refuses it if it
// has no filters.
func Host() Arch { return Arch(runtime.GOARCH) }

// Name returns the name of a system call; ok is false for a number that this
// package's table lacks.
func Name(a Arch, nr uint32) (name string, ok bool) {
	for _, c := range arch.Calls(string(a)) {
		if c.Number == nr {
			return c.Name, true
		}
	}
	return "", false
}

// Number returns the number of the system call of that name; ok is false if
// the architecture has none.
func Number(a Arch, name string) (nr uint32, ok bool) {
	for _, c := range arch.Calls(string(a)) {
		if c.Name == name {
			return c.Number, true
		}
	}
	return 0, false
}

// audit returns the architecture as the kernel names it to filters, AUDIT_ARCH_*
// of linux/audit.h.
func (a Arch) audit() (uint32, error) {
	switch a {
	case AMD64:
		return 0xc000003e, nil
	case ARM64:
		return 0xc00000b7, nil
	}
	return 0, fmt.Errorf("seccomp: no filters for %q: %w", string(a), errors.ErrUnsupported)
}
