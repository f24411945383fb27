package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// A lodger is a session that does what the test orders, one word at a time.
type lodger struct {
	launch func() privsep.Launch
	asks   chan string // a word from the worker: its process's number
	orders chan string
	ended  chan error
	cancel context.CancelCauseFunc
}

var orderOp = privsep.Op[wordRequest, wordReply]{Name: "order", Calls: privsep.Unlimited, Timeout: time.Minute}

func (g *lodger) order(ctx context.Context, r wordRequest) (wordReply, error) {
	g.asks <- hostNumber(r.Word)
	select {
	case word := <-g.orders:
		return wordReply{word}, nil
	case <-ctx.Done():
		return wordReply{}, ctx.Err()
	}
}

// lodgerScript is the worker's side of a lodger.
func lodgerScript(ctx context.Context, w *privsep.Worker) error {
	for {
		order, err := orderOp.Call(ctx, w, wordRequest{fmt.Sprint(os.Getpid())})
		if err != nil {
			return err
		}
		word, rest, _ := strings.Cut(order.Phase, " ")
		switch word {
		case "leave":
			return nil
		case "fail":
			return errors.New("a lodger's error\n\x1b[31m")
		case "violate":
			_, err = roomOp.Call(ctx, w, wordRequest{})
		case "panic":
			panic("a lodger's panic")
		case "exit":
			os.Exit(0)
		case "socket":
			_, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		case "stay": // whatever ctx says
			go orderOp.Call(ctx, w, wordRequest{"it stays"})
			time.Sleep(time.Hour)
		case "close": // and stay
			w.Close()
			time.Sleep(time.Hour)
		case "wait":
			<-ctx.Done()
			return context.Cause(ctx)
		case "write": // on the process's own channel
			_, err = syscall.Write(3, []byte(rest))
		}
		if err != nil {
			return err
		}
	}
}

// An inn is a monitor of lodgers.
type inn struct {
	t       *testing.T
	monitor *privsep.Monitor
	phase   *privsep.Phase[lodger]
}

func newInn(t *testing.T, ids ...privsep.IDs) *inn {
	p, ph := innPolicy()
	return &inn{t, newMonitor(t, p, ids...), ph}
}

func innPolicy() (*privsep.Policy, *privsep.Phase[lodger]) {
	p := new(privsep.Policy)
	ph := privsep.NewPhase(p, "inn", func(g *lodger) privsep.Launch { return g.launch() })
	privsep.Permit(ph, orderOp, (*lodger).order)
	return p, ph
}

// serve begins a session.
func (i *inn) serve(launch func() privsep.Launch) *lodger {
	ctx, cancel := context.WithCancelCause(i.t.Context())
	g := &lodger{launch, make(chan string, 1), make(chan string), make(chan error, 1), cancel}
	go func() { g.ended <- privsep.Serve(ctx, i.monitor, i.phase, g) }()
	return g
}

// checkIn is serve for a lodger of a key, and returns who serves it.
func (i *inn) checkIn(key string, n int) (g *lodger, pid string) {
	i.t.Helper()
	g = i.serve(func() privsep.Launch { return shared(key, n) })
	return g, i.asks(g)
}

func shared(key string, n int) privsep.Launch {
	l := launch("lodger")
	l.Share = privsep.Share{Key: key, Sessions: n}
	return l
}

// asks waits until a lodger's worker asks what to do next.
func (i *inn) asks(g *lodger) string {
	i.t.Helper()
	select {
	case word := <-g.asks:
		return word
	case err := <-g.ended:
		i.t.Fatalf("the session ended: %v", err)
	case <-time.After(20 * time.Second):
		i.t.Fatal("the worker asks nothing")
	}
	return ""
}

// end waits for a session's.
func (i *inn) end(g *lodger) error {
	i.t.Helper()
	select {
	case err := <-g.ended:
		return err
	case <-time.After(20 * time.Second):
		i.t.Fatal("the session does not end")
	}
	return nil
}

// well ends a session that is still good for anything.
func (i *inn) well(g *lodger) {
	i.t.Helper()
	for _, word := range []string{"go on", "leave"} {
		select {
		case g.orders <- word:
		case err := <-g.ended:
			i.t.Fatalf("the session ended: %v", err)
		}
		if word != "leave" {
			i.asks(g)
		}
	}
	if err := i.end(g); err != nil {
		i.t.Error(err)
	}
}

func TestSharedByKeyAndNumber(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	a, first := i.checkIn("a", 2)
	b, second := i.checkIn("a", 2)
	c, third := i.checkIn("a", 2)
	d, other := i.checkIn("b", 2)
	e, alone := i.checkIn("a", 1)
	if first != second || first == third || other == first || other == third || alone == first || alone == third {
		t.Errorf("served by %s, %s, %s; another key by %s; unshared by %s", first, second, third, other, alone)
	}
	i.well(a)
	f, again := i.checkIn("a", 2)
	if again != first && again != third {
		t.Errorf("a seat that is free is not used: %s", again)
	}
	for _, g := range []*lodger{b, c, d, e, f} {
		i.well(g)
	}
	g, last := i.checkIn("b", 2)
	if last != other {
		t.Errorf("the process that waits is not used")
	}
	i.well(g)
}

// Sessions that come at once don't get a process each.
func TestSharedByThoseAtOnce(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	var guests []*lodger
	for range 40 {
		guests = append(guests, i.serve(func() privsep.Launch { return shared("", 20) }))
	}
	served := make(map[string]int)
	for _, g := range guests {
		served[i.asks(g)]++
	}
	if len(served) != 2 {
		t.Errorf("processes and their sessions: %v, want 2 of 20", served)
	}
	var all sync.WaitGroup
	for _, g := range guests {
		all.Go(func() { i.well(g) })
	}
	all.Wait()
}

// Each session has its own phase and budgets: what one has used up, or may not
// call, is nothing to the other. See TestSharedEnd for what they have in common.
func TestSharedEnd(t *testing.T) {
	for _, tt := range []struct {
		order    string
		blamed   bool // the session that did it is known
		class    privsep.ExitClass
		survives bool // the process
	}{
		{"violate", true, 0, false},
		{"panic", false, privsep.Crashed, false},
		{"socket", false, privsep.Filtered, false},
		{"exit", false, 0, false},
		{"fail", true, privsep.Failed, true},
		{"leave", true, 0, true},
		{"close", true, 0, false},
		{"write garbage", false, 0, false},
		{"write " + header(8, 100, 0), false, 0, false},
		{"write " + header(2, 1, 0), false, 0, false},
		{"write " + header(10, 100, 0), false, 0, false}, // the end of a session that is not its
	} {
		t.Run(tt.order, func(t *testing.T) {
			noLeaks(t)
			i := newInn(t)
			bad, _ := i.checkIn("a", 2)
			good, pid := i.checkIn("a", 2)
			other, _ := i.checkIn("b", 2)
			bad.orders <- tt.order
			err := i.end(bad)
			var violation *privsep.ViolationError
			var exit *privsep.ExitError
			var shared *privsep.SharedError
			switch {
			case tt.order == "leave":
				if err != nil {
					t.Error(err)
				}
			case tt.class == privsep.Failed:
				if !errors.As(err, &exit) || exit.Class != tt.class || fmt.Sprint(exit.PID) != pid || exit.Output != `"a lodger's error\n\x1b[31m"` {
					t.Errorf("got %v", err)
				}
			case tt.blamed:
				if !errors.As(err, &violation) || errors.As(err, &shared) {
					t.Errorf("the session that did it: got %v, want a violation", err)
				}
			case !errors.As(err, &shared):
				t.Errorf("got %v, want a SharedError", err)
			}
			if tt.survives {
				i.well(good)
				i.well(other)
				return
			}
			err = i.end(good)
			if !errors.As(err, &shared) || errors.As(err, &violation) || errors.As(err, &exit) || fmt.Sprint(shared.PID) != pid {
				t.Fatalf("the session beside: got %v, want a SharedError and nothing that it could be blamed for", err)
			}
			if tt.class != 0 && (!errors.As(shared.Cause, &exit) || exit.Class != tt.class) {
				t.Errorf("the cause is %v, want a worker that %v", shared.Cause, tt.class)
			}
			if tt.blamed && !errors.As(shared.Cause, &violation) {
				t.Errorf("the cause is %v, want a violation", shared.Cause)
			}
			i.well(other)
			g, next := i.checkIn("a", 2)
			if next == pid {
				t.Error("served by a process that is dead")
			}
			i.well(g)
		})
	}
}

// header is a packet's of a type, about a session, with files announced.
func header(kind, session, files byte) string {
	return string([]byte{kind, files, 0, 0, session, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
}

// A worker that says that a session has ended is not served there any longer:
// else one process could have any number of sessions beside its lawful ones.
func TestSharedEndCounts(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	beside, _ := i.checkIn("a", 2)
	liar, _ := i.checkIn("a", 2) // the second, so session 2
	liar.orders <- "write " + header(byte(ipc.Ended), 2, 0)
	select {
	case <-liar.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on after the end that it told")
	}
	_ = i.end(beside) // the process says it again when it has noticed, and that is a violation
}

// A process that reads nothing makes those who are sent to it wait for so long,
// and is ended then. Whom it had not got by then may have another one.
func TestSharedWorkerThatDoesNotRead(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	first, number := i.checkIn("a", 64)
	stop(t, number)
	all := []*lodger{first}
	for range 20 { // more than may have a descriptor under way
		all = append(all, i.serve(func() privsep.Launch { return shared("a", 64) }))
	}
	for n, g := range all {
		var shared *privsep.SharedError
		select {
		case other := <-g.asks:
			if n == 0 || other == number {
				t.Errorf("session %d is served by a process that is stopped", n+1)
			}
			i.well(g)
		case err := <-g.ended:
			if !errors.As(err, &shared) || !strings.Contains(shared.Cause.Error(), "takes no session") {
				t.Errorf("session %d: got %v, want the end of the process", n+1, err)
			}
		case <-time.After(40 * time.Second):
			t.Fatalf("session %d does not end", n+1)
		}
	}
	next, _ := i.checkIn("a", 64)
	i.well(next)
}

// stop stops a process. The signal is sent at once, but each thread runs on until
// it sees it.
func stop(t *testing.T, number string) {
	t.Helper()
	pid, err := strconv.Atoi(number)
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGSTOP)
	}
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob("/proc/" + number + "/task/*/status")
		if err != nil || len(threads) == 0 {
			t.Fatal("no such process:", number, err)
		}
		if !slices.ContainsFunc(threads, func(status string) bool {
			text, err := os.ReadFile(status)
			return err == nil && !strings.Contains(string(text), "\nState:\tT")
		}) {
			return
		}
	}
	t.Fatalf("process %s runs on", number)
}

// The first session of a process knows whom to blame for its end.
func TestSharedWithNobody(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	g, _ := i.checkIn("a", 2)
	g.orders <- "panic"
	var exit *privsep.ExitError
	if err := i.end(g); !errors.As(err, &exit) || exit.Class != privsep.Crashed {
		t.Errorf("got %v, want its crash", err)
	}
}

// A deadline, and the end of a session's context, are for that session alone,
// if it obeys.
func TestSharedSessionIsEnded(t *testing.T) {
	for _, order := range []string{"wait", "stay", "nothing"} {
		for _, by := range []string{"deadline", "context"} {
			t.Run(order+" "+by, func(t *testing.T) {
				noLeaks(t)
				i := newInn(t)
				late := i.serve(func() privsep.Launch {
					l := shared("a", 2)
					if by == "deadline" {
						l.Timeout = 500 * time.Millisecond
					}
					return l
				})
				pid := i.asks(late)
				beside, _ := i.checkIn("a", 2)
				if order != "nothing" { // else its call of the monitor is under way
					late.orders <- order
				}
				why := errors.New("the daemon wants it so")
				if order == "stay" {
					i.asks(late) // else the end could come before the order
				}
				if by == "context" {
					late.cancel(why)
				}
				var exit *privsep.ExitError
				err := i.end(late)
				if by == "deadline" && (!errors.As(err, &exit) || exit.Class != privsep.TimedOut || fmt.Sprint(exit.PID) != pid) ||
					by == "context" && !errors.Is(err, why) {
					t.Errorf("got %v", err)
				}
				if order != "stay" {
					i.well(beside)
					return
				}
				var shared *privsep.SharedError
				if err := i.end(beside); !errors.As(err, &shared) || !strings.Contains(shared.Cause.Error(), "goes on after its end") {
					t.Errorf("beside: got %v, want the end of the process", err)
				}
			})
		}
	}
}

// What a session was handed is closed with it, though its process stays.
func TestSharedFilesAreClosed(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	g := i.serve(func() privsep.Launch {
		l := shared("", 2)
		l.Files = []*os.File{w}
		return l
	})
	pid := i.asks(g)
	i.well(g)
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("got %d, %v, want the other end closed", n, err)
	}
	before := processFiles(t, pid)
	for range 20 {
		g, again := i.checkIn("", 2)
		if again != pid {
			t.Fatalf("served by %s, want %s", again, pid)
		}
		i.well(g)
	}
	if after := processFiles(t, pid); after > before {
		t.Errorf("%d descriptors after 20 sessions, %d before", after, before)
	}
}

func processFiles(t *testing.T, pid string) int {
	t.Helper()
	if os.Geteuid() != 0 {
		return 0 // not shown
	}
	files, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// OpenFiles is for each session.
func TestSharedOpenFiles(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	for _, tt := range []struct{ set, want uint32 }{{0, 3 * 64}, {100, 300}} {
		g := i.serve(func() privsep.Launch {
			l := shared("", 3)
			l.Sandbox.OpenFiles = tt.set
			return l
		})
		text, err := os.ReadFile("/proc/" + i.asks(g) + "/limits")
		if want := fmt.Sprintf("Max open files            %d ", tt.want); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("want %q in\n%s%v", want, text, err)
		}
		i.well(g)
	}
}

// Those that nobody uses are few, whatever keys there were.
func TestSharedIdleAreFew(t *testing.T) {
	noLeaks(t)
	i := newInn(t)
	var first, last string
	for n := range 12 {
		g, pid := i.checkIn(fmt.Sprint(n), 2)
		i.well(g)
		if n == 0 {
			first = pid
		}
		last = pid
	}
	for _, pid := range waitWorkers(t, 8) {
		if fmt.Sprint(pid) == first {
			t.Error("the one that waited longest is left")
		}
	}
	g, pid := i.checkIn("11", 2)
	if pid != last {
		t.Errorf("served by %s, want the one that waits: %s", pid, last)
	}
	i.well(g)
}

// Workers beside are shared like others.
func TestSharedBeside(t *testing.T) {
	testenv.NeedRoot(t)
	noLeaks(t)
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "hall", func(*hall) privsep.Launch { return launch("enter") })
	b := privsep.NewPhase[cellar](p, "cellar", nil)
	privsep.Beside(b, func(c *cellar) privsep.Launch {
		l := launch(c.beside)
		l.Share.Sessions = 3
		return l
	})
	privsep.Advance(a, moveTo, b, func(h *hall, _ context.Context, _ wordRequest) (wordReply, *cellar, error) {
		return wordReply{}, &cellar{h}, nil
	})
	m := newMonitor(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 3)
	for range 3 {
		go func() { ended <- privsep.Serve(ctx, m, a, &hall{beside: "obeys"}) }()
	}
	waitWorkers(t, 4)
	cancel()
	for range 3 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	waitWorkers(t, 1) // which waits for the next
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var exit *privsep.ExitError
	if err := privsep.Serve(ctx, m, a, &hall{beside: "error"}); !errors.As(err, &exit) || exit.Class != privsep.Failed {
		t.Errorf("got %v, want the error of the worker beside", err)
	}
}
