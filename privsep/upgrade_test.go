package privsep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// successorArgument makes the test binary a successor; what kind of one follows.
const successorArgument = "privsep-test-successor"

// state is more than one part of it, and not the same all over.
var state = bytes.Repeat([]byte("penalties\x00"), 20_000)

// What a hostile or a broken successor may ask, in what order it likes.
var (
	listenerOp = privsep.Op[struct{}, listenerAnswer]{Name: "inherit-listener", Calls: 1}
	haltOp     = privsep.Op[struct{}, struct{}]{Name: "halt", Calls: 1}
	stateOp    = privsep.Op[struct{}, stateAnswer]{Name: "inherit-state", Calls: 1, Size: 64 << 10}
	serveOp    = privsep.Op[struct{}, struct{}]{Name: "serve", Calls: 1}
)

type listenerAnswer struct {
	Name string   `privsep:"max=256"`
	File *os.File `privsep:"kind=listener"`
}

type stateAnswer struct {
	Part []byte `privsep:"max=49152"`
	Last bool
}

// succeed is a successor's life. It exits with 0 if all was as it should be.
func succeed(kind string) error {
	ctx := context.Background()
	if kind == "honest" || kind == "obedient" {
		orders := make(chan os.Signal, 1)
		signal.Notify(orders, syscall.SIGHUP)
		p, err := privsep.Inherit(ctx)
		if err != nil || p == nil {
			return fmt.Errorf("%v, %v", p, err)
		}
		if again, err := privsep.Inherit(ctx); again != nil || err != nil {
			return fmt.Errorf("a second time: %v, %v", again, err)
		}
		if len(p.Listeners) != 2 || p.Listeners[0].Name != "one" || p.Listeners[1].Name != "two" {
			return fmt.Errorf("listeners %v", p.Listeners)
		}
		got, err := p.Halt(ctx)
		if err != nil || !bytes.Equal(got, state) {
			return fmt.Errorf("state of %d bytes, %v", len(got), err)
		}
		if err := p.Serve(ctx); err != nil {
			return err
		}
		if kind == "obedient" {
			<-orders
		}
		l, err := net.FileListener(p.Listeners[1].File)
		if err != nil {
			return err
		}
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte("served by the successor"))
		return errors.Join(err, conn.Close())
	}
	if kind == "neighbour" || kind == "careless neighbour" {
		return beNeighbour(ctx, kind == "careless neighbour")
	}
	if kind == "claimer" || kind == "careless claimer" {
		return beClaimer(ctx, kind == "careless claimer")
	}
	conn, err := privsep.NewConn(os.NewFile(3, "predecessor"))
	if err != nil {
		return err
	}
	switch kind {
	case "serves at once":
		_, err = serveOp.Call(ctx, conn, struct{}{})
	case "takes state early":
		_, err = stateOp.Call(ctx, conn, struct{}{})
	case "halts twice":
		haltOp.Call(ctx, conn, struct{}{})
		_, err = haltOp.Call(ctx, conn, struct{}{})
	case "takes listeners without end":
		for err == nil || errors.Is(err, syscall.ENOENT) {
			_, err = listenerOp.Call(ctx, conn, struct{}{})
		}
	case "halts and ends":
		haltOp.Call(ctx, conn, struct{}{})
		return errors.New("changed its mind")
	case "halts and hangs":
		haltOp.Call(ctx, conn, struct{}{})
		time.Sleep(time.Hour)
	}
	return err
}

// succeedBy inherits, and makes a monitor with config that knows its predecessor,
// unless it is careless.
func succeedBy(ctx context.Context, config privsep.Config, careless bool) (*privsep.Predecessor, *privsep.Monitor, error) {
	p, err := privsep.Inherit(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !careless {
		config.Predecessor = p
	}
	m, err := privsep.NewMonitor(freshPolicy(), config)
	return p, m, err
}

// listen returns a listener, and what a successor gets of it.
func listen(t *testing.T, name string) (net.Listener, privsep.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return l, privsep.Listener{Name: name, File: f}
}

func upgradable(t *testing.T, u privsep.Upgrade) *privsep.Monitor {
	t.Helper()
	m, err := privsep.NewMonitor(freshPolicy(), privsep.Config{Upgrade: &u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestUpgrade(t *testing.T) {
	noLeaks(t)
	m := upgradable(t, privsep.Upgrade{Path: "/proc/self/exe", Args: []string{"privsep-test", successorArgument, "obedient"}})
	if err := m.HangUpSuccessor(t.Context()); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("an order to nobody: %v", err)
	}
	_, one := listen(t, "one")
	l, two := listen(t, "two")
	halts := 0
	pid, err := m.Upgrade(t.Context(), privsep.Handover{Listeners: []privsep.Listener{one, two}, Halt: func() ([]byte, error) {
		halts++
		return state, nil
	}})
	if err != nil || pid <= 0 || halts != 1 {
		t.Fatalf("process %d, %v; halted %d times", pid, err, halts)
	}
	if err := m.HangUpSuccessor(t.Context()); err != nil { // for which it waits
		t.Error(err)
	}
	address := l.Addr().String()
	l.Close() // here: the other has it
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	b := make([]byte, 100)
	if n, err := conn.Read(b); err != nil || string(b[:n]) != "served by the successor" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	// It ends by itself, and is reaped by who started it. That would kill
	// it with this monitor, had it not been told to keep it.
	for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// TestUpgradeFails: whatever is started and does not come to serve is gone
// when Upgrade returns, and the next upgrade is as good as the first.
func TestUpgradeFails(t *testing.T) {
	noLeaks(t)
	exited := func(class privsep.ExitClass, status string) func(error) bool {
		return func(err error) bool {
			var e *privsep.ExitError
			return errors.As(err, &e) && e.Class == class && strings.Contains(err.Error(), status)
		}
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	violation := func(err error) bool {
		var v *privsep.ViolationError
		return errors.As(err, &v)
	}
	shell := func(script string) privsep.Upgrade {
		return privsep.Upgrade{Path: "/bin/sh", Args: []string{"sh", "-c", script}}
	}
	hostile := func(kind string) privsep.Upgrade {
		return privsep.Upgrade{Path: "/proc/self/exe", Args: []string{"privsep-test", successorArgument, kind}}
	}
	for _, c := range []struct {
		name  string
		what  privsep.Upgrade
		limit time.Duration
		want  func(error) bool
	}{
		{"no file", privsep.Upgrade{Path: "/nowhere/at/all"}, 0, is(syscall.ENOENT)},
		{"a directory", privsep.Upgrade{Path: "/etc"}, 0, is(syscall.EACCES)},
		{"no executable", privsep.Upgrade{Path: "/etc/passwd"}, 0, is(syscall.EACCES)},
		{"ends well", shell("exit 0"), 0, exited(privsep.Failed, "status 0")},
		{"fails", shell("exit 3"), 0, exited(privsep.Failed, "status 3")},
		{"crashes", shell("kill -SEGV $$"), 0, exited(privsep.Crashed, "signal 11")},
		{"hangs", shell("trap '' TERM; exec sleep 1000"), time.Second, is(context.DeadlineExceeded)},
		{"closes the channel and lives on", shell("exec 3>&-; exec sleep 1000"), 0, exited(privsep.Crashed, "signal 9")},
		{"writes garbage", shell("exec cat /etc/passwd >&3"), 0, violation},
		{"has no time", hostile("honest"), time.Nanosecond, is(context.DeadlineExceeded)},
		{"serves at once", hostile("serves at once"), 0, violation},
		{"takes state early", hostile("takes state early"), 0, violation},
		{"halts twice", hostile("halts twice"), 0, violation},
		{"takes listeners without end", hostile("takes listeners without end"), 0, violation},
		{"halts and ends", hostile("halts and ends"), 0, exited(privsep.Failed, "status 1")},
		{"halts and hangs", hostile("halts and hangs"), time.Second, is(context.DeadlineExceeded)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := upgradable(t, c.what)
			for range 2 {
				_, one := listen(t, "one")
				_, two := listen(t, "two")
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if c.limit > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), c.limit)
				}
				defer cancel()
				pid, err := m.Upgrade(ctx, privsep.Handover{
					Listeners: []privsep.Listener{one, two},
					Halt:      func() ([]byte, error) { return state, nil },
				})
				if pid != 0 || err == nil || !c.want(err) {
					t.Errorf("process %d, %v", pid, err)
				}
			}
		})
	}
}

// TestNoUpgrade: who has not asked for it can't, and has no process for it.
func TestNoUpgrade(t *testing.T) {
	m := newMonitor(t, freshPolicy())
	if _, err := m.Upgrade(t.Context(), privsep.Handover{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}

func freshPolicy() *privsep.Policy {
	policy := new(privsep.Policy)
	phase := privsep.NewPhase(policy, "phase", func(*struct{}) privsep.Launch { return launch("nothing") })
	privsep.Permit(phase, privsep.Op[struct{}, struct{}]{Name: "nothing", Calls: 1},
		func(*struct{}, context.Context, struct{}) (struct{}, error) { return struct{}{}, nil })
	return policy
}

// TestInherit: a variable in the environment makes nobody a successor.
func TestInherit(t *testing.T) {
	if p, err := privsep.Inherit(t.Context()); p != nil || err != nil {
		t.Errorf("without it: %v, %v", p, err)
	}
	for _, value := range []string{"", "4", "-1", "x"} {
		t.Setenv("PRIVSEP_HANDOVER", value)
		if p, err := privsep.Inherit(t.Context()); p != nil || err == nil || !strings.Contains(err.Error(), "PRIVSEP_HANDOVER") {
			t.Errorf("%q: %v, %v", value, p, err)
		}
	}
}
