package caps

import (
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// Set is a set of capabilities. It is a value: == compares, and it can be a
// map's key. The zero Set is empty.
type Set struct{ bits uint64 } // unexported, so that ^0 cannot be written elsewhere

// Of returns the set of the given capabilities. It panics on an invalid one.
func Of(list ...Cap) Set {
	var s Set
	for _, c := range list {
		if c == 0 || c > maxCap {
			panic(fmt.Sprintf("caps: Of: Cap(%d) is no capability", uint8(c)))
		}
		s.bits |= 1 << (c - 1)
	}
	return s
}

// Has reports whether c is in s. No set has an invalid Cap.
func (s Set) Has(c Cap) bool { return s.bits>>(c-1)&1 == 1 } // 0-1 wraps: shifts all out

// Union returns what is in either.
func (s Set) Union(t Set) Set { return Set{s.bits | t.bits} }

// Minus returns what is in s and not in t.
func (s Set) Minus(t Set) Set { return Set{s.bits &^ t.bits} }

// Empty reports whether s has no capability.
func (s Set) Empty() bool { return s.bits == 0 }

// Bits returns s as the kernel has it: bit n is the capability of number n.
func (s Set) Bits() uint64 { return s.bits }

// All iterates over the capabilities in s, in the kernel's order.
func (s Set) All() iter.Seq[Cap] {
	return func(yield func(Cap) bool) {
		for c := Cap(1); c <= maxCap; c++ {
			if s.Has(c) && !yield(c) {
				return
			}
		}
	}
}

// String returns the names joined by commas, for example "cap_chown,cap_kill",
// which libcap takes as the list before an operator. The empty set is "".
func (s Set) String() string {
	var list []string
	for c := range s.All() {
		list = append(list, c.String())
	}
	return strings.Join(list, ",")
}

// Parse reads what [Set.String] prints; the order and repetitions do not
// matter. A word that names no capability is a [*ParseError]: to ignore it
// would run a program with less than its configuration says. "all" is such a
// word.
func Parse(text string) (Set, error) {
	var s Set
	if text == "" {
		return s, nil
	}
next:
	for word := range strings.SplitSeq(text, ",") {
		for c := Cap(1); c <= maxCap; c++ {
			if c.String() == word {
				s.bits |= 1 << (c - 1)
				continue next
			}
		}
		return Set{}, &ParseError{word, "is not a capability"}
	}
	return s, nil
}

// ParseHex reads a set as the Cap lines of /proc/PID/status have it, such as
// "0000000000000400". The error is a [*ParseError].
func ParseHex(text string) (Set, error) {
	bits, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return Set{}, &ParseError{text, "is not a hexadecimal set"}
	}
	return Set{bits}, nil
}

// ParseError is a text that cannot be read.
type ParseError struct {
	Word   string // the part at fault
	Reason string
}

func (e *ParseError) Error() string { return fmt.Sprintf("caps: %q %s", e.Word, e.Reason) }
