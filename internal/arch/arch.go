// Package arch holds the names and numbers of Linux system calls for each
// architecture that the library supports. The tables are generated, the same
// on every host, and hold no policy.
package arch

//go:generate go run ./gen

// A Call is one system call of an architecture.
type Call struct {
	Number uint32
	Name   string // in lower case, as the kernel's tables and strace(1) spell it
}

// Calls returns the calls of an architecture, named as GOARCH names it, in the
// order of their numbers. It is nil for one without a table. The caller must
// not change it.
func Calls(goarch string) []Call {
	switch goarch {
	case "amd64":
		return amd64
	case "arm64":
		return arm64
	}
	return nil
}
