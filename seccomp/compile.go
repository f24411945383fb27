package seccomp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/go-privsep/sallyport/internal/arch"
	"github.com/go-privsep/sallyport/internal/sys"
)

// Compile returns the filter that keeps promises for the process whose id is
// selfPID in its own PID namespace. It reads nothing of the host: the same
// arguments give the same filter everywhere. The error is an
// [errors.ErrUnsupported] for an architecture without filters.
func Compile(a Arch, promises Promises, selfPID int) (Filter, error) {
	return compile(a, promises, selfPID, Kill)
}

// CompileReport is [Compile] with last words: before a call kills the process,
// its number goes to descriptor 2, if that is a socket. See [ReportedCall]. What
// would be killed is trapped, and [Filter.Install] gives SIGSYS a handler that
// sends and then makes a call at which the kernel kills. Code that has taken over
// the process can't change the handler, because no call may; it can make it
// report the wrong number. What follows another architecture's convention is
// killed without a word.
func CompileReport(a Arch, promises Promises, selfPID int) (Filter, error) {
	return compile(a, promises, selfPID, Trap, reportRules()...)
}

// ReportedCall separates what came from descriptor 2 of a process that its filter
// killed into what it wrote and the name of the call, or "".
func ReportedCall(a Arch, output []byte) (rest []byte, name string) {
	n := len(output) - sys.TrapSize
	if n < 0 || !bytes.HasPrefix(output[n:], []byte(sys.TrapMark)) {
		return output, ""
	}
	// A number that has no name is not trapped, so to report it is a lie.
	name, _ = Name(a, binary.LittleEndian.Uint32(output[len(output)-4:]))
	return output[:n], name
}

// CompileDebug is [Compile] for development: what would kill the process is
// refused by a signal instead (SECCOMP_RET_TRAP), at which the Go runtime
// prints "SIGSYS: bad system call" with the goroutine's stack and the
// registers, of which rax (x8 on arm64) holds the number, and exits with
// status 2. No more calls pass than with Compile, but code that has taken over
// the process can catch the signal and go on trying: not for production.
func CompileDebug(a Arch, promises Promises, selfPID int) (Filter, error) {
	return compile(a, promises, selfPID, Trap)
}

func compile(a Arch, promises Promises, selfPID int, kill Action, first ...rule) (Filter, error) {
	audit, err := a.audit()
	if err != nil {
		return Filter{}, err
	}
	if promises >= end {
		return Filter{}, fmt.Errorf("seccomp: unknown promises in %v", promises)
	}
	if selfPID <= 0 {
		return Filter{}, fmt.Errorf("seccomp: process id %d", selfPID)
	}
	report, foreign := len(first) > 0, kill
	if report {
		foreign = Kill
	}
	rules := append(first, a.rules(uint64(selfPID))...)
	return a.emit(audit, verdicts(rules, promises), kill, foreign, report)
}

// emit makes a filter of verdicts: otherwise is what happens to a known call
// without one, foreign what happens to another architecture's.
func (a Arch) emit(audit uint32, v map[string][]alternative, otherwise, foreign Action, report bool) (Filter, error) {
	var s assembler
	tree := s.search(layout(arch.Calls(string(a)), v, otherwise))
	if a == AMD64 || report {
		// The numbers of the x32 convention; see arch/x86/include/uapi/asm/unistd.h.
		// The first of them is also the call at which the handler of SIGSYS dies.
		tree = s.jump(jumpGreaterEqual, 0x4000_0000, s.ret(foreign), tree)
	}
	tree = s.load(offsetNumber, tree)
	s.load(offsetArch, s.jump(jumpEqual, audit, tree, s.ret(foreign)))
	if err := s.err(); err != nil {
		return Filter{}, err
	}
	return Filter{a, s.program(), report}, nil
}

// An alternative is what happens to a call if all of the conditions hold.
type alternative struct {
	when []cond
	do   Action
}

// verdicts returns, for each call with a rule, the alternatives in order.
func verdicts(rules []rule, promises Promises) map[string][]alternative {
	m := make(map[string][]alternative)
	for _, r := range rules {
		if r.promise != 0 && r.promise&promises == 0 {
			continue
		}
		if r.do == 0 {
			r.do = Allow
		}
		for _, name := range r.names() {
			before := m[name]
			if n := len(before); n > 0 && len(before[n-1].when) == 0 {
				continue // what is there applies always
			}
			m[name] = append(before, alternative{r.when, r.do})
		}
	}
	return m
}

// A span is a range of numbers, up to the next span's, with one verdict: the
// alternatives in order, then the action.
type span struct {
	from         uint32
	alternatives []alternative
	otherwise    Action
}

// layout covers all numbers: a gap between known calls and what is beyond the
// last get ENOSYS.
func layout(calls []arch.Call, verdicts map[string][]alternative, kill Action) []span {
	var spans []span
	add := func(s span) {
		if n := len(s.alternatives); n > 0 && len(s.alternatives[n-1].when) == 0 {
			s.otherwise, s.alternatives = s.alternatives[n-1].do, s.alternatives[:n-1]
		}
		if n := len(spans); n > 0 && s.alternatives == nil && spans[n-1].alternatives == nil && s.otherwise == spans[n-1].otherwise {
			return
		}
		spans = append(spans, s)
	}
	next := uint32(0)
	for _, c := range calls {
		if c.Number > next {
			add(span{from: next, otherwise: NoSys})
		}
		add(span{c.Number, slices.Clone(verdicts[c.Name]), kill})
		next = c.Number + 1
	}
	add(span{from: next, otherwise: NoSys})
	return spans
}

// search emits a binary search for the number in the accumulator.
func (s *assembler) search(spans []span) label {
	if len(spans) == 1 {
		return s.verdict(spans[0])
	}
	middle := len(spans) / 2
	above := s.search(spans[middle:])
	below := s.search(spans[:middle])
	return s.jump(jumpGreaterEqual, spans[middle].from, above, below)
}

// verdict emits the end of the search.
func (s *assembler) verdict(v span) label {
	next := s.ret(v.otherwise)
	for _, a := range slices.Backward(v.alternatives) {
		pass := s.ret(a.do)
		for _, c := range slices.Backward(a.when) {
			pass = s.cond(c, pass, next)
		}
		next = pass
	}
	return next
}

// cond emits the test of both words of an argument.
func (s *assembler) cond(c cond, pass, fail label) label {
	hit := pass
	at := fail
	for _, v := range slices.Backward(c.values) {
		at = s.jump(jumpEqual, uint32(v), hit, at)
	}
	at = s.load(offsetArgs+8*uint32(c.arg), s.and(uint32(c.mask), at))
	at = s.jump(jumpEqual, uint32(c.values[0]>>32), at, fail)
	return s.load(offsetArgs+8*uint32(c.arg)+4, s.and(uint32(c.mask>>32), at))
}
