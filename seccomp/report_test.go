package seccomp

import (
	"encoding/binary"
	"testing"

	"github.com/go-privsep/sallyport/internal/arch"
	"github.com/go-privsep/sallyport/internal/sys"
)

// A filter that reports lets no more pass than one that does not, and kills at
// what the handler of SIGSYS lives by.
func TestReportIsNoWider(t *testing.T) {
	for _, a := range []Arch{AMD64, ARM64} {
		for p := Promises(0); p < end; p++ {
			plain, err := Compile(a, p, 7)
			if err != nil {
				t.Fatal(err)
			}
			report, err := CompileReport(a, p, 7)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range arch.Calls(string(a)) {
				for _, args := range [][]uint64{{}, {2, 0, 12, 0x4040}, {31}, {1, 7}, {7, 1031}, {0, 0, 0x80000}, {0, 0, 0, 3}} {
					want := plain.Eval(plain.Call(c.Number, args...))
					got := report.Eval(report.Call(c.Number, args...))
					switch {
					case c.Name == "rt_sigaction" && len(args) > 0 && args[0] == 31:
						want = Kill
					case c.Name == "mremap" && len(args) > 3 && args[3]&2 != 0:
						want = Kill
					case c.Name == "sendto" && len(args) > 0 && args[0] == 2:
						want = Allow
					case want == Kill:
						want = Trap
					}
					if got != want {
						t.Fatalf("%s, %v: %s%v is %v, want %v", a, p, c.Name, args, got, want)
					}
				}
			}
			for _, nr := range []uint32{0x4000_0000, 0x4000_0001, 0x7fff_ffff, 1<<32 - 1} {
				if got := report.Eval(report.Call(nr)); got != Kill {
					t.Fatalf("%s, %v: %#x is %v", a, p, nr, got)
				}
			}
			if got := report.Eval(Data{Arch: 0x4000_0003}); got != Kill {
				t.Fatalf("%s, %v: another architecture's is %v", a, p, got)
			}
		}
	}
}

func TestReportedCall(t *testing.T) {
	report := func(nr uint32) string {
		return string(binary.LittleEndian.AppendUint32([]byte(sys.TrapMark), nr))
	}
	for _, a := range []Arch{AMD64, ARM64} {
		for _, c := range arch.Calls(string(a)) {
			if rest, name := ReportedCall(a, []byte("words"+report(c.Number))); string(rest) != "words" || name != c.Name {
				t.Errorf("%s: %d is %q, want %s", a, c.Number, name, c.Name)
			}
		}
	}
	for _, output := range []string{"", "words", report(1)[1:], report(1) + "x", sys.TrapMark} {
		if rest, name := ReportedCall(AMD64, []byte(output)); name != "" || string(rest) != output {
			t.Errorf("%q: got %q and %q", output, rest, name)
		}
	}
	// No series of a metric for each number that a liar can think of.
	if rest, name := ReportedCall(AMD64, []byte("words"+report(1<<20))); name != "" || string(rest) != "words" {
		t.Errorf("an unknown number: got %q and %q", rest, name)
	}
}
