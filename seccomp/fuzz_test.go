package seccomp

import (
	"encoding/binary"
	"testing"

	"github.com/go-privsep/sallyport/internal/arch"
)

// holds, decide and their callers are the oracle: the rules read in order, one
// after another, without a compiler.
func (c cond) holds(args [6]uint64) bool {
	for _, v := range c.values {
		if args[c.arg]&c.mask == v {
			return true
		}
	}
	return false
}

func decide(alternatives []alternative, otherwise Action, args [6]uint64) Action {
next:
	for _, a := range alternatives {
		for _, c := range a.when {
			if !c.holds(args) {
				continue next
			}
		}
		return a.do
	}
	return otherwise
}

func oracle(a Arch, p Promises, d Data) Action {
	audit, _ := a.audit()
	if d.Arch != audit || a == AMD64 && d.Number >= 0x4000_0000 {
		return Kill
	}
	name, ok := Name(a, d.Number)
	if !ok {
		return NoSys
	}
	var list []alternative
	for _, r := range a.rules(self) {
		for _, n := range r.names() {
			if n == name && (r.promise == 0 || r.promise&p != 0) {
				if r.do == 0 {
					r.do = Allow
				}
				list = append(list, alternative{r.when, r.do})
			}
		}
	}
	return decide(list, Kill, d.Args)
}

// FuzzEval compares compiled policies with the oracle.
func FuzzEval(f *testing.F) {
	for _, a := range arches {
		audit, _ := a.audit()
		for _, c := range arch.Calls(string(a)) {
			f.Add(a == ARM64, uint64(everyone), c.Number, audit, uint64(self), uint64(3), uint64(0), uint64(0), uint64(0))
		}
	}
	f.Add(false, uint64(0), uint32(56), uint32(0xc000003e), uint64(0xd0f00), uint64(0), uint64(0), uint64(0), uint64(0))
	f.Add(false, uint64(32), uint32(257), uint32(0xc000003e), uint64(0), uint64(0), uint64(0x80241), uint64(0o4755), uint64(0))
	f.Add(true, uint64(1), uint32(208), uint32(0xc00000b7), uint64(0), uint64(1)<<32|6, uint64(18), uint64(0), uint64(0))
	filters := map[Arch]map[Promises]Filter{AMD64: {}, ARM64: {}}
	for _, a := range arches {
		for p := range end {
			filters[a][p] = mustCompile(f, a, p)
		}
	}
	f.Fuzz(func(t *testing.T, arm bool, promises uint64, nr, audit uint32, a0, a1, a2, a3, a4 uint64) {
		a := AMD64
		if arm {
			a = ARM64
		}
		p := Promises(promises) % end
		d := Data{Number: nr, Arch: audit, Args: [6]uint64{a0, a1, a2, a3, a4}}
		if got, want := filters[a][p].Eval(d), oracle(a, p, d); got != want {
			t.Errorf("%s %v: %+v: got %v, want %v", a, p, d, got, want)
		}
		// The same a short way from something that is in the rules.
		for _, r := range a.rules(self) {
			for _, c := range r.when {
				d.Args[c.arg] ^= c.values[0]
			}
		}
		if got, want := filters[a][p].Eval(d), oracle(a, p, d); got != want {
			t.Errorf("%s %v: %+v: got %v, want %v", a, p, d, got, want)
		}
	})
}

// FuzzCompile compiles policies made of arbitrary bytes, many of them larger
// than the real one so that jumps get long, and compares with the oracle.
func FuzzCompile(f *testing.F) {
	f.Add([]byte("\x01\x02\x03\x04\x05\x06\x07\x08"), uint32(3), uint64(4), uint64(5))
	f.Add([]byte{}, uint32(0), uint64(0), uint64(0))
	long := make([]byte, 1200)
	for i := range long {
		long[i] = byte(i * i)
	}
	f.Add(long, uint32(77), uint64(1)<<32, uint64(9))
	f.Fuzz(func(t *testing.T, policy []byte, nr uint32, a0, a1 uint64) {
		var calls []arch.Call
		m, known := map[string][]alternative{}, map[uint32]bool{}
		actions := []Action{Allow, NoSys, Refused, Trap}
		next := uint32(0)
		take := func() (v byte) {
			if len(policy) > 0 {
				v, policy = policy[0], policy[1:]
			}
			return v
		}
		for len(policy) > 0 && len(calls) < 300 {
			next += uint32(take()%3) + 1
			name := string(binary.LittleEndian.AppendUint32(nil, next))
			known[next] = true
			calls = append(calls, arch.Call{Number: next, Name: name})
			for range take() % 3 {
				alt := alternative{do: actions[take()%4]}
				for range take() % 3 {
					c := cond{arg: int(take() % 2), mask: ^uint64(0) << (take() % 40)}
					high := uint64(take()%3) << 32
					for range take()%3 + 1 {
						c.values = append(c.values, (high|uint64(take()%16))&c.mask)
					}
					alt.when = append(alt.when, c)
				}
				m[name] = append(m[name], alt)
				if alt.when == nil {
					break
				}
			}
		}
		var s assembler
		s.load(offsetNumber, s.search(layout(calls, m, Kill)))
		if s.err() != nil {
			return
		}
		filter := Filter{arch: AMD64, program: s.program()}
		check := func(nr uint32, args [6]uint64) {
			want := NoSys
			if known[nr] {
				want = decide(m[string(binary.LittleEndian.AppendUint32(nil, nr))], Kill, args)
			}
			if got := filter.Eval(Data{Number: nr, Args: args}); got != want {
				t.Fatalf("call %d%#x: got %v, want %v", nr, args, got, want)
			}
		}
		check(nr, [6]uint64{a0, a1})
		for nr := range next + 3 {
			check(nr, [6]uint64{a0, a1})
			for _, alt := range m[string(binary.LittleEndian.AppendUint32(nil, nr))] {
				args := [6]uint64{a0, a1}
				for _, c := range alt.when {
					args[c.arg] = c.values[0]
					check(nr, args)
				}
				for _, c := range alt.when {
					args[c.arg] ^= 1 << (a0 % 64)
					check(nr, args)
				}
			}
		}
	})
}
