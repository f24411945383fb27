package seccomp

import (
	"fmt"

	"github.com/go-privsep/sallyport/internal/sys"
)

// An Action is what a filter does with a call, as the kernel numbers it
// (seccomp(2)).
type Action uint32

// The actions of this package's filters. The numbers of errors are Linux's,
// whatever the host.
const (
	Kill    Action = 0x8000_0000      // the process ends with SIGSYS, all threads at once
	Trap    Action = 0x0003_0000      // the thread gets SIGSYS; see [CompileDebug]
	NoSys   Action = 0x0005_0000 | 38 // the call fails with ENOSYS
	Refused Action = 0x0005_0000 | 13 // the call fails with EACCES
	Denied  Action = 0x0005_0000 | 1  // the call fails with EPERM; see [CompileMonitor]
	Allow   Action = 0x7fff_0000
)

// String returns the action as a verb in the passive, for [Explain].
func (a Action) String() string {
	switch a {
	case Kill:
		return "killed"
	case Trap:
		return "trapped"
	case NoSys:
		return "answered with ENOSYS"
	case Refused:
		return "answered with EACCES"
	case Denied:
		return "answered with EPERM"
	case Allow:
		return "allowed"
	}
	return fmt.Sprintf("Action(%#x)", uint32(a))
}

// Data is a system call as a filter sees it (struct seccomp_data).
type Data struct {
	Number  uint32
	Arch    uint32 // AUDIT_ARCH_*
	Pointer uint64 // where the instruction is; filters don't look
	Args    [6]uint64
}

// word returns the aligned word at an offset.
func (d *Data) word(offset uint32) (uint32, bool) {
	switch {
	case offset%4 != 0 || offset >= offsetArgs+8*uint32(len(d.Args)):
		return 0, false
	case offset == offsetNumber:
		return d.Number, true
	case offset == offsetArch:
		return d.Arch, true
	case offset < offsetArgs:
		return uint32(d.Pointer >> (offset % 8 * 8)), true
	}
	return uint32(d.Args[(offset-offsetArgs)/8] >> (offset % 8 * 8)), true
}

// A Filter is a compiled policy. The zero Filter kills at every call and can't be
// installed.
type Filter struct {
	arch    Arch
	program []sys.BPF
	report  bool // Install takes SIGSYS
}

// Call returns the Data of a call by f's architecture's own convention.
func (f Filter) Call(nr uint32, args ...uint64) Data {
	audit, _ := f.arch.audit()
	d := Data{Number: nr, Arch: audit}
	copy(d.Args[:], args)
	return d
}

// Eval returns what the filter does with a call, by running the very program
// that the kernel gets. It works on any host.
func (f Filter) Eval(d Data) Action {
	var a uint32
	for pc := 0; pc < len(f.program); pc++ {
		switch i := f.program[pc]; i.Code {
		case loadWord:
			v, ok := d.word(i.K)
			if !ok {
				return Kill
			}
			a = v
		case andWord:
			a &= i.K
		case jumpAlways:
			pc += int(i.K)
		case jumpEqual:
			pc += branch(i, a == i.K)
		case jumpGreaterEqual:
			pc += branch(i, a >= i.K)
		case returnWord:
			return Action(i.K)
		default:
			return Kill
		}
	}
	return Kill // no program that the kernel accepts gets here
}

func branch(i sys.BPF, taken bool) int {
	if taken {
		return int(i.IfTrue)
	}
	return int(i.IfFalse)
}
