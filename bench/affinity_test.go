package bench

import (
	"math/bits"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"
)

// placements are where both sides of a round trip may run. Left to itself, the
// scheduler puts them on one processor or on two from one moment to the next;
// a wake-up on another, idle one costs up to 20 times as much, on a virtual
// machine above all. So a ratio of two free runs says more about the scheduler
// than about either side, and the one on one processor is the one to judge by.
var placements = []struct {
	name  string
	place func(testing.TB)
}{
	{"one-cpu", onOneCPU},
	{"free", func(testing.TB) {}},
}

// onOneCPU keeps this process, and what it starts from now on, on the first
// processor that it may use, until the test ends.
func onOneCPU(tb testing.TB) {
	tb.Helper()
	var before, one cpuSet
	if err := before.get(); err != nil {
		tb.Fatal("sched_getaffinity:", err)
	}
	for i, word := range before {
		if word != 0 {
			one[i] = 1 << bits.TrailingZeros64(word)
			break
		}
	}
	procs := runtime.GOMAXPROCS(1) // as the runtime would have started there
	tb.Cleanup(func() {
		if err := before.set(); err != nil {
			tb.Error("sched_setaffinity:", err)
		}
		runtime.GOMAXPROCS(procs)
	})
	if err := one.set(); err != nil {
		tb.Fatal("sched_setaffinity:", err)
	}
}

type cpuSet [16]uint64 // 1024 processors, as glibc's

func (s *cpuSet) get() error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(*s), uintptr(unsafe.Pointer(s)))
	if errno != 0 {
		return errno
	}
	return nil
}

// set is for all threads. One that starts meanwhile has its parent's set, so
// the second pass finds it.
func (s *cpuSet) set() error {
	for range 2 {
		entries, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return err
		}
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				return err
			}
			_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(*s), uintptr(unsafe.Pointer(s)))
			if errno != 0 && errno != syscall.ESRCH {
				return errno
			}
		}
	}
	return nil
}
