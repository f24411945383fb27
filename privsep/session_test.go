package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// scripts are what the workers of these tests do.
var scripts = map[string]func(ctx context.Context, w *privsep.Worker) error{
	"nothing":    func(context.Context, *privsep.Worker) error { return nil },
	"sleep":      func(context.Context, *privsep.Worker) error { time.Sleep(time.Hour); return nil },
	"error":      func(context.Context, *privsep.Worker) error { return errors.New("the role's error\n\x1b[31m") },
	"exit 1":     func(context.Context, *privsep.Worker) error { os.Exit(1); return nil },
	"panic":      func(context.Context, *privsep.Worker) error { panic("the role's panic") },
	"long panic": func(context.Context, *privsep.Worker) error { panic(strings.Repeat("x", 1<<20)) },
	"killed": func(ctx context.Context, w *privsep.Worker) error {
		_, err := sayOp.Call(ctx, w, wordRequest{"kill"})
		return err
	},
	"socket": func(context.Context, *privsep.Worker) error {
		_, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		return err
	},
	"babble": func(context.Context, *privsep.Worker) error {
		os.Stderr.SetWriteDeadline(time.Now().Add(time.Second))
		fmt.Fprint(os.Stderr, strings.Repeat("babble\n", 1000))
		return errors.New("end")
	},
	"deaf": func(_ context.Context, w *privsep.Worker) error {
		w.Close()
		time.Sleep(time.Hour)
		return nil
	},
	"refusals": func(ctx context.Context, w *privsep.Worker) error {
		for _, word := range []string{"ENOENT", "trouble"} {
			if _, err := sayOp.Call(ctx, w, wordRequest{word}); err == nil {
				return errors.New("not refused")
			}
		}
		return nil
	},
	"guest": func(ctx context.Context, w *privsep.Worker) error {
		if _, err := sayOp.Call(ctx, w, wordRequest{"hello"}); err != nil {
			return err
		}
		if _, err := enterOp.Call(ctx, w, wordRequest{"friend"}); err != nil {
			return err
		}
		for range 100 {
			if _, err := roomOp.Call(ctx, w, wordRequest{"so"}); err != nil {
				return err
			}
		}
		return nil
	},
	"early": func(ctx context.Context, w *privsep.Worker) error {
		_, err := roomOp.Call(ctx, w, wordRequest{})
		return err
	},
	"violation": func(ctx context.Context, w *privsep.Worker) error {
		_, err := sayOp.Call(ctx, w, wordRequest{"violation"})
		return err
	},
	"panicker": func(ctx context.Context, w *privsep.Worker) error {
		_, err := sayOp.Call(ctx, w, wordRequest{"panic"})
		return err
	},
	// A worker that enters and waits to be replaced or to be told.
	"enter": func(ctx context.Context, w *privsep.Worker) error {
		if _, err := moveTo.Call(ctx, w, wordRequest{"friend"}); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	},
	"second": func(ctx context.Context, w *privsep.Worker) error {
		_, err := secondOp.Call(ctx, w, empty{})
		return err
	},
	"second asks like the first": func(ctx context.Context, w *privsep.Worker) error {
		_, err := moveTo.Call(ctx, w, wordRequest{"friend"})
		return err
	},
	"inventory": func(ctx context.Context, w *privsep.Worker) error {
		if env := os.Environ(); len(env) > 0 {
			return fmt.Errorf("environment %q", env)
		}
		if files := w.Files(); len(files) != 2 {
			return fmt.Errorf("%d files", len(files))
		}
		text := make([]byte, 10)
		if n, err := w.Files()[0].Read(text); err != nil || string(text[:n]) != "handed" {
			return fmt.Errorf("first file: %q, %v", text[:n], err)
		}
		if _, err := w.Files()[1].WriteString("back"); err != nil {
			return err
		}
		for fd := range 64 {
			_, err := syscall.Read(fd, nil)
			if open := err != syscall.EBADF; open && fd > 12 {
				return fmt.Errorf("descriptor %d is open", fd)
			}
		}
		if len(os.Args) != 2 || !strings.HasSuffix(os.Args[0], ": script") {
			return fmt.Errorf("arguments %q", os.Args)
		}
		return nil
	},
	"powers": func(ctx context.Context, w *privsep.Worker) error {
		for _, call := range []struct {
			op   privsep.Op[powersRequest, wordReply]
			word string
		}{{plainOp, "before"}, {bindOp, "bind"}, {bindOp, "ENOENT"}, {plainOp, "after"}, {bindOp, "panic"}} {
			if _, err := call.op.Call(ctx, w, powersRequest{call.word}); err != nil && call.word != "ENOENT" {
				return err
			}
		}
		return nil
	},
	"lodger": lodgerScript,
	"hold":   holdScript,
	"obeys":  func(ctx context.Context, _ *privsep.Worker) error { <-ctx.Done(); return nil },
	"say": func(ctx context.Context, w *privsep.Worker) error {
		_, err := sayOp.Call(ctx, w, wordRequest{fmt.Sprint("I am ", os.Getpid())})
		return err
	},
}

// session serves one session of the house, whose worker runs script.
func session(t testing.TB, script string) error {
	t.Helper()
	p, ph := newHouse(func(*porch) privsep.Launch { return launch(script) })
	return privsep.Serve(t.Context(), newMonitor(t, p), ph, new(porch))
}

func TestSession(t *testing.T) {
	noLeaks(t)
	if err := session(t, "guest"); err != nil {
		t.Error(err)
	}
}

func TestViolationKills(t *testing.T) {
	for script, want := range map[string]privsep.ViolationError{
		"early":     {Phase: "porch", Op: "sit", Reason: "not permitted in this phase"},
		"violation": {Phase: "porch", Op: "say", Reason: "nobody says that"},
		"deaf":      {Phase: "", Op: "", Reason: "closed its channel and lives on"},
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			var v *privsep.ViolationError
			if err := session(t, script); !errors.As(err, &v) || v.Op != want.Op || v.Reason != want.Reason {
				t.Errorf("got %v, want %v", err, &want)
			}
		})
	}
}

func TestHandlerPanicEndsOneSession(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(s *porch) privsep.Launch { return launch(s.said[0]) })
	m := newMonitor(t, p)
	var sessions sync.WaitGroup
	for range 3 {
		sessions.Go(func() {
			if err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"guest"}}); err != nil {
				t.Error(err)
			}
		})
		sessions.Go(func() {
			var panicked *privsep.PanicError
			if err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"panicker"}}); !errors.As(err, &panicked) {
				t.Errorf("got %v, want a PanicError", err)
			}
		})
	}
	sessions.Wait()
}

func TestExitClasses(t *testing.T) {
	for _, tt := range []struct {
		script, output string
		class          privsep.ExitClass
	}{
		{"error", `"the role's error\n\x1b[31m\n"`, privsep.Failed},
		{"exit 1", "", privsep.Failed},
		{"panic", "panic: the role's panic", privsep.Crashed},
		{"long panic", "panic: xxxx", privsep.Crashed}, // longer than what holds it
		{"killed", "", privsep.Crashed},
		{"socket", "", privsep.Filtered},
		{"babble", `babble\nbabble`, privsep.Failed},
		{"no such script", "no script", privsep.Failed},
	} {
		t.Run(tt.script, func(t *testing.T) {
			noLeaks(t)
			var exit *privsep.ExitError
			err := session(t, tt.script)
			if !errors.As(err, &exit) || exit.Class != tt.class || exit.Role != "script" || exit.PID == 0 {
				t.Fatalf("got %v, want it %v", err, tt.class)
			}
			if !strings.Contains(exit.Output, tt.output) {
				t.Errorf("got %s, want %s in it", exit.Output, tt.output)
			}
			if strings.ContainsAny(exit.Error(), "\n\x1b") || len(exit.Output) > 4*(8<<10) {
				t.Errorf("%d bytes of output, not all quoted: %s", len(exit.Output), exit.Error())
			}
		})
	}
}

func TestPhaseDeadline(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("sleep")
		l.Timeout = 100 * time.Millisecond
		return l
	})
	m := newMonitor(t, p)
	start := time.Now()
	var exit *privsep.ExitError
	if err := privsep.Serve(t.Context(), m, ph, new(porch)); !errors.As(err, &exit) || exit.Class != privsep.TimedOut {
		t.Errorf("got %v, want it timed out", err)
	}
	if d := time.Since(start); d < 100*time.Millisecond || d > 5*time.Second {
		t.Errorf("ended after %v", d)
	}
}

func TestContextEndsSession(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(*porch) privsep.Launch { return launch("sleep") })
	m := newMonitor(t, p)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the daemon ends")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if err := privsep.Serve(ctx, m, ph, new(porch)); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

func TestWhatAWorkerIsHanded(t *testing.T) {
	noLeaks(t)
	t.Setenv("SECRET", "which no worker sees")
	careless, err := os.Open("/proc/self/status") // a descriptor that is nobody's to pass on
	if err != nil {
		t.Fatal(err)
	}
	defer careless.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, careless.Fd(), syscall.F_SETFD, 0); errno != 0 {
		t.Fatal(errno)
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(inW, "handed")
	inW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer outR.Close()
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("inventory")
		l.Files = []*os.File{inR, outW}
		return l
	})
	if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, new(porch)); err != nil {
		t.Error(err)
	}
	text := make([]byte, 10)
	if n, err := outR.Read(text); string(text[:n]) != "back" || err != nil {
		t.Errorf("got %q, %v", text[:n], err)
	}
	if err := inR.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("the monitor keeps a file that it handed over")
	}
}

// Files that a launch takes over are closed when it fails, too.
func TestFailedLaunchClosesItsFiles(t *testing.T) {
	for name, change := range map[string]func(*privsep.Launch){
		"a sandbox that no host has": func(l *privsep.Launch) { l.Sandbox.Root = "relative" },
		"a root that is not there":   func(l *privsep.Launch) { l.Sandbox.Root = "/dev/null/nothing" },
		"a role that Main lacks":     func(l *privsep.Launch) { l.Role = &privsep.Role{Name: "unknown"} },
		"a message without bounds":   func(l *privsep.Launch) { l.Message = &unbounded{"x"} },
		"a message that is none":     func(l *privsep.Launch) { l.Message = "x" },
		"too many files":             func(l *privsep.Launch) { l.Files = append(l.Files, slices.Repeat(l.Files, 16)...) },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			p, ph := newHouse(func(*porch) privsep.Launch {
				l := launch("sleep")
				f, err := os.Open(os.DevNull)
				if err != nil {
					t.Fatal(err)
				}
				l.Files = []*os.File{f}
				change(&l)
				return l
			})
			if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, new(porch)); err == nil {
				t.Error("got no error")
			} else {
				t.Log(err)
			}
		})
	}
}

// The phases of a session with more than one worker.
type (
	hall struct {
		script string
		ask    bool // the handler asks for its context's Done
		beside string
	}
	cellar struct{ *hall }
)

var (
	moveTo   = privsep.Op[wordRequest, wordReply]{Name: "move-to", Calls: 1}
	secondOp = privsep.Op[empty, empty]{Name: "second", Calls: 1}
)

func newHall(replace bool) (*privsep.Policy, *privsep.Phase[hall]) {
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "hall", func(h *hall) privsep.Launch { return launch("enter") })
	var replacement func(c *cellar) privsep.Launch
	if replace {
		replacement = func(c *cellar) privsep.Launch { return launch(c.script) }
	}
	b := privsep.NewPhase(p, "cellar", replacement)
	if !replace {
		privsep.Beside(b, func(c *cellar) privsep.Launch { return launch(c.beside) })
	}
	privsep.Advance(a, moveTo, b, func(h *hall, ctx context.Context, _ wordRequest) (wordReply, *cellar, error) {
		if h.ask {
			ctx.Done()
		}
		return wordReply{}, &cellar{h}, nil
	})
	privsep.Permit(b, secondOp, func(*cellar, context.Context, empty) (empty, error) { return empty{}, nil })
	return p, a
}

// The old worker is dead when the new one serves, which has the new phase's
// permits and no others.
func TestReplacedWorker(t *testing.T) {
	for _, ask := range []bool{false, true} {
		t.Run(fmt.Sprint(ask), func(t *testing.T) {
			noLeaks(t)
			p, ph := newHall(true)
			m := newMonitor(t, p)
			if err := privsep.Serve(t.Context(), m, ph, &hall{script: "second", ask: ask}); err != nil {
				t.Error(err)
			}
			var v *privsep.ViolationError
			err := privsep.Serve(t.Context(), m, ph, &hall{script: "second asks like the first", ask: ask})
			if !errors.As(err, &v) || v.Phase != "cellar" || v.Op != "move-to" {
				t.Errorf("got %v, want a violation in the new phase", err)
			}
			var exit *privsep.ExitError
			err = privsep.Serve(t.Context(), m, ph, &hall{script: "panic", ask: ask})
			if !errors.As(err, &exit) || exit.Class != privsep.Crashed {
				t.Errorf("got %v, want the new worker's crash", err)
			}
		})
	}
}

func TestWorkerBesideEndsTheSession(t *testing.T) {
	for script, class := range map[string]privsep.ExitClass{
		"panic": privsep.Crashed, "error": privsep.Failed, "socket": privsep.Filtered,
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			p, ph := newHall(false)
			var exit *privsep.ExitError
			if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, &hall{beside: script}); !errors.As(err, &exit) || exit.Class != class {
				t.Errorf("got %v, want it %v", err, class)
			}
		})
	}
}

// A worker beside may end well before the session does.
func TestWorkerBesideMayEndWell(t *testing.T) {
	noLeaks(t)
	p, ph := newHall(false)
	m := newMonitor(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := privsep.Serve(ctx, m, ph, &hall{beside: "nothing"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the session to go on", err)
	}
}

// A worker that can't be started ends the session: an errno in why is no
// refusal that the first worker could try again.
func TestWorkerBesideCannotBeStarted(t *testing.T) {
	noLeaks(t)
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "hall", func(h *hall) privsep.Launch { return launch("enter") })
	b := privsep.NewPhase[cellar](p, "cellar", nil)
	privsep.Beside(b, func(*cellar) privsep.Launch {
		l := launch("sleep")
		l.Files = []*os.File{os.NewFile(1<<20, "closed")} // EBADF when it is sent
		return l
	})
	privsep.Advance(a, moveTo, b, func(h *hall, _ context.Context, _ wordRequest) (wordReply, *cellar, error) {
		return wordReply{}, &cellar{h}, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err := privsep.Serve(ctx, newMonitor(t, p), a, new(hall))
	if !errors.Is(err, syscall.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

// The end of a session is the end of all of its workers.
func TestWorkersEndTogether(t *testing.T) {
	noLeaks(t)
	p, ph := newHall(false)
	m := newMonitor(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := privsep.Serve(ctx, m, ph, &hall{beside: "sleep"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
	if c := workers(); len(c) != 0 {
		t.Errorf("processes %v are left", c)
	}
}

// waitWorkers waits until this process's launchers have n workers and returns
// them.
func waitWorkers(t testing.TB, n int) (pids []int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if pids = workers(); len(pids) == n {
			return pids
		}
	}
	t.Fatalf("%d workers, want %d", len(pids), n)
	return nil
}

// hostNumber is the number in this namespace of the worker that has number own
// in its own.
func hostNumber(own string) string {
	for _, pid := range workers() {
		if number, err := ownNumber(pid); err == nil && number == own {
			return fmt.Sprint(pid)
		}
	}
	return "no worker " + own
}

// ownNumber is a process's number for itself, in its PID namespace.
func ownNumber(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, after, _ := strings.Cut(string(text), "NSpid:")
	line, _, _ := strings.Cut(after, "\n")
	numbers := strings.Fields(line)
	if len(numbers) == 0 {
		return "", errors.Join(err, syscall.ESRCH)
	}
	return numbers[len(numbers)-1], nil
}

func TestSpares(t *testing.T) {
	noLeaks(t)
	var umask uint32
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("say")
		l.Spares, l.Sandbox.Umask = 2, umask
		return l
	})
	m := newMonitor(t, p)
	serve := func() string {
		t.Helper()
		state := new(porch)
		if err := privsep.Serve(t.Context(), m, ph, state); err != nil {
			t.Fatal(err)
		}
		return state.said[0]
	}
	serve()
	ready := waitWorkers(t, 2) // made because one was asked for
	if first := serve(); !slices.ContainsFunc(ready, func(pid int) bool { return fmt.Sprint(pid) == first }) {
		t.Errorf("session served by process %s, want one of the spares %v", first, ready)
	}
	pid := waitWorkers(t, 2)[0]

	// One that died waiting is not handed over.
	dead := fmt.Sprint(pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // the monitor learns of its end before it is reaped
	}
	if got := serve(); got == dead {
		t.Errorf("a dead spare served")
	}
	waitWorkers(t, 2)

	// Each sandbox has its own, and of many sandboxes the latest four.
	for umask = 0o71; umask < 0o77; umask++ {
		serve()
		waitWorkers(t, min(2*int(umask-0o71+2), 8))
	}
}

// A monitor that is closed leaves nothing, also when sessions of others and
// spares are about.
func TestCloseLeavesNothing(t *testing.T) {
	noLeaks(t)
	before := runtime.NumGoroutine()
	for range 3 {
		p, ph := newHouse(func(*porch) privsep.Launch {
			l := launch("guest")
			l.Spares = 3
			return l
		})
		m, err := privsep.NewMonitor(p, privsep.Config{})
		if err != nil {
			t.Fatal(err)
		}
		var sessions sync.WaitGroup
		for range 4 {
			sessions.Go(func() {
				if err := privsep.Serve(t.Context(), m, ph, new(porch)); err != nil {
					t.Error(err)
				}
			})
		}
		sessions.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if c := children(t); len(c) > 0 {
			t.Errorf("processes %v are left", c)
		}
	}
	if after := runtime.NumGoroutine(); after > before+2 {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

func TestServeOfAnotherPolicyPanics(t *testing.T) {
	p, _ := newHouse(launchPorch)
	m := newMonitor(t, p)
	_, other := newHouse(launchPorch)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	privsep.Serve(t.Context(), m, other, new(porch))
}

// Calls of a real worker end with what is said to it, whatever it waits for.
func TestMonitorGoneIsErrClosed(t *testing.T) {
	c, _, end := visit(t)
	if _, err := sayOp.Call(t.Context(), c, wordRequest{"panic"}); !errors.Is(err, ipc.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	end()
}
