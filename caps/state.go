package caps

import (
	"strings"

	"github.com/go-privsep/sallyport/internal/sys"
)

// State is what one thread may do (effective), may raise (permitted), and may
// hand to the files that it executes (inheritable). It reports; nothing in
// this package takes a State to put in force.
type State struct{ Effective, Permitted, Inheritable Set }

// Current returns the calling thread's state. After [Drop] or [Limit] it is
// every thread's. The error is a syscall.Errno, or errors.ErrUnsupported.
func Current() (State, error) {
	e, p, i, err := sys.Capget()
	return State{Set{e}, Set{p}, Set{i}}, err
}

// flags are libcap's letters for a State's sets, in the order of sets.
const flags = "eip"

func (s *State) sets() [3]*Set { return [3]*Set{&s.Effective, &s.Inheritable, &s.Permitted} }

// String returns libcap's text, such as "cap_chown=ep cap_kill+i", as
// cap_from_text(3) reads it. Unlike libcap, it never abbreviates to "all".
func (s State) String() string {
	var words []string
	op := "=" // only the first: in libcap's Go package each = forgets what came before
	for _, letters := range []string{"e", "p", "ep", "i", "ei", "ip", "eip"} {
		which := s.Effective.Union(s.Permitted).Union(s.Inheritable)
		for n, set := range s.sets() {
			if strings.IndexByte(letters, flags[n]) >= 0 {
				which.bits &= set.bits
			} else {
				which.bits &^= set.bits
			}
		}
		if !which.Empty() {
			words = append(words, which.String()+op+letters)
			op = "+"
		}
	}
	if words == nil {
		return "="
	}
	return strings.Join(words, " ")
}

// ParseState reads the text form of cap_from_text(3): words of a list and at
// least one of =, + and - followed by the letters of sets. In what is read,
// "all" and an empty list before = stand for the capabilities this package has
// names for. Names are in lower case. The error is a [*ParseError].
func ParseState(text string) (State, error) {
	var s State
	words := strings.Fields(text)
	if len(words) == 0 {
		return State{}, &ParseError{text, "has no word"}
	}
	for _, word := range words {
		at := max(strings.IndexAny(word, "=+-"), 0)
		list, ops := word[:at], word[at:]
		which := Set{1<<len(names) - 1}
		if list != "" && list != "all" {
			var err error
			if which, err = Parse(list); err != nil {
				return State{}, err
			}
		}
		for first := true; first || ops != ""; first = false {
			op, rest := ops[0], strings.TrimLeft(ops[1:], flags)
			letters := ops[1 : len(ops)-len(rest)]
			ops = rest
			if !(op == '=' && first && (list != "" || rest == "")) &&
				(op != '+' && op != '-' || list == "" || letters == "") {
				return State{}, &ParseError{word, "is not a list followed by =, + or - and the letters e, i, p"}
			}
			for n, set := range s.sets() {
				named := strings.IndexByte(letters, flags[n]) >= 0
				if op == '=' || op == '-' && named {
					*set = set.Minus(which)
				}
				if op != '-' && named {
					*set = set.Union(which)
				}
			}
		}
	}
	return s, nil
}
