package privsep_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/privsep"
)

// killsVariable is how often each of TestNothingSurvives kills. Empty: often enough
// to see that it works. The lanes that kill are the load of each other.
const killsVariable = "SALLYPORT_KILLS"

const killLanes = 4

func kills(t *testing.T) int {
	n := 40
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%s=%q: want a number", killsVariable, text)
		}
	} else if testing.Short() {
		n = 8
	}
	return n
}

// A victim is a process and a handle on it, which no other process gets.
type victim struct{ pid, fd int }

func newVictim(t *testing.T, pid int) victim {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Errorf("process %d: %v", pid, err)
	}
	return victim{pid, fd}
}

// await waits until all have ended and returns how long that took.
func await(t *testing.T, all []victim) time.Duration {
	t.Helper()
	began := time.Now()
	for _, v := range all {
		poll := []unix.PollFd{{Fd: int32(v.fd), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(poll, 10_000)
			if err == unix.EINTR {
				continue
			}
			if n != 1 {
				t.Errorf("process %d lives on, 10 s after the kill (%v)", v.pid, err)
			}
			break
		}
		unix.Close(v.fd)
	}
	return time.Since(began)
}

// tell logs how long the ends took, for who repeats them often.
func tell(t *testing.T, took []time.Duration) {
	if len(took) == 0 {
		return
	}
	slices.Sort(took)
	late := 0
	for _, d := range took {
		if d > 100*time.Millisecond {
			late++
		}
	}
	t.Logf("%d kills: all were gone after a median of %v, p99 %v, at most %v; %d took more than 100 ms",
		len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1], late)
}

// repeat calls kill n times from several lanes at once.
func repeat(t *testing.T, n int, kill func() (time.Duration, bool)) {
	var mu sync.Mutex
	var took []time.Duration
	var lanes sync.WaitGroup
	for lane := range killLanes {
		lanes.Go(func() {
			for range (n + lane) / killLanes {
				d, ok := kill()
				if !ok {
					return
				}
				mu.Lock()
				took = append(took, d)
				mu.Unlock()
			}
		})
	}
	lanes.Wait()
	tell(t, took)
}

// TestNothingSurvives: with a process that is killed in the middle of a request
// everything ends that hangs on it, and what it held is there for the next.
func TestNothingSurvives(t *testing.T) {
	n := kills(t)
	t.Run("worker", func(t *testing.T) {
		noLeaks(t)
		p, ph := newHeld()
		m := newMonitor(t, p, spareIDs(killLanes))
		repeat(t, n, func() (time.Duration, bool) { return killHeldWorker(t, m, ph) })
	})
	for _, of := range []string{"monitor", "launcher"} {
		t.Run(of, func(t *testing.T) {
			repeat(t, n, func() (time.Duration, bool) { return killDaemon(t, of) })
		})
	}
}

// killHeldWorker serves a session and kills its worker.
func killHeldWorker(t *testing.T, m *privsep.Monitor, ph *privsep.Phase[held]) (time.Duration, bool) {
	h := &held{make(chan string, 1)}
	ended := make(chan error, 1)
	go func() { ended <- privsep.Serve(context.Background(), m, ph, h) }()
	select {
	case own := <-h.asked:
		pid, err := strconv.Atoi(hostNumber(own))
		if err != nil {
			t.Error(err)
			return 0, false
		}
		v := newVictim(t, pid)
		if err := unix.PidfdSendSignal(v.fd, unix.SIGKILL, nil, 0); err != nil {
			t.Error(err)
		}
		took := await(t, []victim{v})
		var exit *privsep.ExitError
		if err := <-ended; !errors.As(err, &exit) || exit.Class != privsep.Crashed || exit.PID != pid {
			t.Errorf("worker %d was killed: got %v", pid, err)
			return took, false
		}
		return took, true
	case err := <-ended:
		t.Errorf("the session did not begin: %v", err) // also for want of a user of its own
		return 0, false
	}
}

// killDaemon starts a daemon and kills one of its processes.
func killDaemon(t *testing.T, of string) (time.Duration, bool) {
	cmd := exec.Command("/proc/self/exe", survivorArgument)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return 0, false
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return 0, false
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		_ = cmd.Process.Kill()
		t.Errorf("the daemon said %q: %v, %v", line, err, cmd.Wait())
		return 0, false
	}
	launchers := childrenOf(cmd.Process.Pid)
	if len(launchers) != 1 || len(childrenOf(launchers[0])) != survivorSessions {
		_ = cmd.Process.Kill()
		t.Errorf("launchers %v; %v", launchers, cmd.Wait())
		return 0, false
	}
	all := []victim{newVictim(t, cmd.Process.Pid), newVictim(t, launchers[0])}
	for _, pid := range childrenOf(launchers[0]) {
		all = append(all, newVictim(t, pid))
	}
	prey := all[0]
	if of == "launcher" {
		prey = all[1]
	}
	if err := unix.PidfdSendSignal(prey.fd, unix.SIGKILL, nil, 0); err != nil {
		t.Error(err)
	}
	took := await(t, all)
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("%s was killed: the daemon ended with %v", of, err)
		return took, false
	}
	status := exit.Sys().(syscall.WaitStatus)
	if of == "monitor" && status.Signal() != syscall.SIGKILL || of == "launcher" && status.ExitStatus() != survivorEnd {
		t.Errorf("%s was killed: the daemon ended with %v", of, err)
		return took, false
	}
	return took, true
}
