package seccomp

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		_ = mustCompile(b, Host(), everyone)
	}
}

// BenchmarkCall measures calls under the full filter and under none: with a
// rule by number only, and with one that looks at an argument.
func BenchmarkCall(b *testing.B) {
	for _, mode := range []string{"none", "filter"} {
		for name, nr := range map[string]uint32{"getppid": mustNumber(b, Host(), "getppid"), "prctl": mustNumber(b, Host(), "prctl")} {
			b.Run(name+"/"+mode, func(b *testing.B) {
				out, stderr, _ := run(b, nil, everyone, "bench", mode, fmt.Sprint(nr), fmt.Sprint(b.N))
				took, err := strconv.ParseInt(out[:max(0, len(out)-len("done"))], 10, 64)
				if err != nil {
					b.Fatal(err, stderr)
				}
				b.ReportMetric(float64(took)/float64(b.N), "ns/call")
				b.ReportMetric(0, "ns/op") // the child's start
			})
		}
	}
}

func benchCalls(p Promises, args []string) {
	if args[0] == "filter" {
		install(p)
	}
	nr, n := must1(strconv.Atoi(args[1])), must1(strconv.Atoi(args[2]))
	start := time.Now()
	for range n {
		_, _, _ = syscall.RawSyscall6(uintptr(nr), prSetVMA, prSetVMAAnonName, 1, 0, 0, 0) // EINVAL from prctl
	}
	fmt.Fprint(os.Stdout, int64(time.Since(start)))
}
