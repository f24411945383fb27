package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// reexecName is argument zero of this program as the bare worker.
const reexecName = "bench-reexec"

// reexecMain is the bare worker: it says that it is there and ends when nobody
// listens any more. It must be the first thing that a TestMain calls.
func reexecMain() {
	if os.Args[0] != reexecName {
		return
	}
	conn := os.NewFile(3, "parent")
	if _, err := conn.Write([]byte{1}); err != nil {
		os.Exit(1)
	}
	io.Copy(io.Discard, conn)
	os.Exit(0)
}

// BenchmarkReexec is the floor under a launch: os/exec of this program, until
// it has said over a socketpair that it runs. Its end isn't timed.
func BenchmarkReexec(b *testing.B) {
	var times []time.Duration
	benchmark(b, each(reexec, &times))
	b.ReportMetric(float64(percentile(times, 0.99)), "p99-ns")
}

func reexec() (d time.Duration, err error) {
	start := time.Now()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{reexecName}
	cmd.Env = []string{}
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() {
		ours.Close()
		err = errors.Join(err, cmd.Wait())
	}()
	theirs.Close()
	var ready [1]byte
	if _, err := io.ReadFull(ours, ready[:]); err != nil {
		return 0, fmt.Errorf("re-exec'ed process isn't ready: %w", err)
	}
	return time.Since(start), nil
}
