package caps

import "slices"

// Answer is yes, no, or it depends. The zero Answer is none of them.
type Answer uint8

const (
	Yes Answer = iota + 1
	No
	Conditional
)

func (a Answer) String() string {
	if a == 0 || a > Conditional {
		return "invalid answer"
	}
	return [...]string{"yes", "no", "conditional"}[a-1]
}

// Risk is what holding one capability, and no other, amounts to on an ordinary
// Linux host in the initial user namespace. "No" means that no way to root is
// known, not that none exists: what is named then is the harm.
type Risk struct {
	Cap       Cap
	Root      Answer // whether it equals root
	Condition string // what the way in needs
	Way       string // the way in, or the harm
	// Survives says whether the way, its condition given, is still open under
	// no_new_privs with the securebits locked. These close what goes through
	// executing a file, and nothing else.
	Survives Answer
	// Source is where the judgement is from: "Spengler" is Brad Spengler,
	// "False Boundaries and Arbitrary Code Execution" (2011); "measured" means
	// that a process of an unprivileged user with just this capability, ambient,
	// tried the way on Linux 6.18, without and with the two restrictions.
	Source string
}

// Risks returns the table, in the kernel's order. The caller owns the slice.
func Risks() []Risk { return slices.Clone(risks[:]) }

// Risk returns c's row. For a capability that this package has no name for it
// is the zero Risk, whose answers are invalid: a caller who wants a No gets none.
func (c Cap) Risk() Risk {
	if c == 0 || int(c) > len(risks) {
		return Risk{}
	}
	return risks[c.Number()]
}
