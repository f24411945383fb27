package seccomp

import (
	"fmt"
	"slices"

	"github.com/go-privsep/sallyport/internal/sys"
)

// The instructions in use (linux/bpf_common.h) and where they find the call
// (struct seccomp_data; both architectures are little-endian).
const (
	loadWord         = 0x20 // BPF_LD | BPF_W | BPF_ABS
	andWord          = 0x54 // BPF_ALU | BPF_AND | BPF_K
	jumpAlways       = 0x05 // BPF_JMP | BPF_JA
	jumpEqual        = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	jumpGreaterEqual = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	returnWord       = 0x06 // BPF_RET | BPF_K

	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16

	maxProgram = 4096 // BPF_MAXINSNS
)

// A label is a place in the program, counted from its end.
type label int

// An assembler builds a program backwards. Classic BPF only jumps forward, so
// that each target exists before its jump, and its distance is known.
type assembler struct {
	reversed []sys.BPF
	returns  map[Action]label
}

func (s *assembler) emit(i sys.BPF) label {
	s.reversed = append(s.reversed, i)
	return label(len(s.reversed))
}

// distance is how many instructions the next one emitted would skip to get to l.
func (s *assembler) distance(l label) uint32 { return uint32(len(s.reversed) - int(l)) }

// follow makes l the instruction behind the next one emitted.
func (s *assembler) follow(l label) {
	if d := s.distance(l); d > 0 {
		s.emit(sys.BPF{Code: jumpAlways, K: d})
	}
}

// near returns a label for l in reach of a conditional jump, which has 8 bits,
// even if one more instruction comes between.
func (s *assembler) near(l label) label {
	if d := s.distance(l); d > 254 {
		return s.emit(sys.BPF{Code: jumpAlways, K: d})
	}
	return l
}

func (s *assembler) jump(code uint16, k uint32, yes, no label) label {
	yes = s.near(yes)
	no = s.near(no)
	return s.emit(sys.BPF{Code: code, K: k, IfTrue: uint8(s.distance(yes)), IfFalse: uint8(s.distance(no))})
}

func (s *assembler) load(offset uint32, then label) label {
	s.follow(then)
	return s.emit(sys.BPF{Code: loadWord, K: offset})
}

func (s *assembler) and(mask uint32, then label) label {
	if mask == ^uint32(0) {
		return then
	}
	s.follow(then)
	return s.emit(sys.BPF{Code: andWord, K: mask})
}

// ret shares an earlier return while that is in reach.
func (s *assembler) ret(a Action) label {
	if l, ok := s.returns[a]; ok && s.distance(l) < 200 {
		return l
	}
	if s.returns == nil {
		s.returns = make(map[Action]label)
	}
	s.returns[a] = s.emit(sys.BPF{Code: returnWord, K: uint32(a)})
	return s.returns[a]
}

func (s *assembler) err() error {
	if n := len(s.reversed); n > maxProgram {
		return fmt.Errorf("seccomp: a filter of %d instructions, the kernel takes %d", n, maxProgram)
	}
	return nil
}

func (s *assembler) program() []sys.BPF {
	program := slices.Clone(s.reversed)
	slices.Reverse(program)
	return program
}
