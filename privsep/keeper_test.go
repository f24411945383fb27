package privsep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

var (
	askOp  = privsep.Op[wordRequest, answerReply]{Name: "ask", Calls: privsep.Unlimited, Timeout: time.Second, Parallel: true}
	askPID = privsep.Op[empty, pidReply]{Name: "ask-pid", Calls: privsep.Unlimited}
)

type pidReply struct{ PID uint32 }

type answerReply struct {
	Word string `privsep:"max=100"`
}

// A vault is what the keeper of these tests keeps.
type vault struct{ secret string }

func (v *vault) ask(ctx context.Context, r wordRequest) (answerReply, error) {
	switch r.Word {
	case "secret":
		return answerReply{v.secret}, nil
	case "ENOENT":
		return answerReply{}, syscall.ENOENT
	case "wait":
		<-ctx.Done()
		return answerReply{}, ctx.Err()
	case "sleep":
		time.Sleep(time.Hour)
	case "crash":
		os.Exit(3)
	case "another":
		_, err := os.Open("/etc/hostname")
		return answerReply{fmt.Sprint(err)}, nil
	case "uid":
		return answerReply{fmt.Sprint(os.Getuid())}, nil
	}
	return answerReply{r.Word}, nil
}

func (v *vault) pid(context.Context, empty) (pidReply, error) {
	return pidReply{uint32(os.Getpid())}, nil
}

var keeperRole = privsep.Role{Name: "keeper", Main: func(ctx context.Context, w *privsep.Worker) error {
	var m scriptMessage
	if err := w.Message(&m); err != nil {
		return err
	}
	v := new(vault)
	if len(w.Opened()) > 0 {
		text := make([]byte, 100)
		n, _ := w.Opened()[0].Read(text)
		v.secret = string(text[:n])
	}
	if hostile := hostileKeepers[m.Name]; hostile != nil {
		conn, err := ipc.NewConn(w.Files()[0], ipc.NewBuffers(4096))
		if err != nil {
			return err
		}
		return hostile(conn)
	}
	policy := new(privsep.Policy)
	serving := privsep.NewPhase(policy, "serving", func(*vault) privsep.Launch { return privsep.Launch{} })
	privsep.Permit(serving, askOp, (*vault).ask)
	privsep.Permit(serving, askPID, (*vault).pid)
	return privsep.ServeConn(ctx, serving, v, w.Files()[0])
}}

// hostileKeepers are keepers that were taken over.
var hostileKeepers = map[string]func(*ipc.Conn) error{
	"junk": answering(func(c *ipc.Conn, p *ipc.Packet) {
		reply(c, ipc.Packet{Type: ipc.Reply, Call: p.Call, Body: []byte("\xdd\xff\xff\xff\xff")})
	}),
	"giant": answering(func(c *ipc.Conn, p *ipc.Packet) {
		// A map with one text that claims 4 GiB.
		reply(c, ipc.Packet{Type: ipc.Reply, Call: p.Call, Body: []byte("\x91\xdb\xff\xff\xff\xff")})
	}),
	"another call": answering(func(c *ipc.Conn, p *ipc.Packet) {
		reply(c, ipc.Packet{Type: ipc.Reply, Call: p.Call + 7})
	}),
	"a request": answering(func(c *ipc.Conn, p *ipc.Packet) {
		reply(c, ipc.Packet{Type: ipc.Request, Call: p.Call, Op: p.Op, Body: p.Body})
	}),
	"errno 0": answering(func(c *ipc.Conn, p *ipc.Packet) {
		reply(c, ipc.Packet{Type: ipc.Refusal, Call: p.Call})
	}),
	"descriptors": answering(func(c *ipc.Conn, p *ipc.Packet) {
		reply(c, ipc.Packet{Type: ipc.Reply, Call: p.Call, Body: []byte("\x91\xa0"), Files: []*os.File{os.Stdin, os.Stdout}})
	}),
	"flood": answering(func(c *ipc.Conn, _ *ipc.Packet) {
		for reply(c, ipc.Packet{Type: ipc.Reply, Call: 99, Body: make([]byte, 4000)}) == nil {
		}
	}),
	"closes": func(c *ipc.Conn) error { c.Close(); time.Sleep(time.Hour); return nil },
	"silent": func(*ipc.Conn) error { time.Sleep(time.Hour); return nil },
}

func answering(how func(*ipc.Conn, *ipc.Packet)) func(*ipc.Conn) error {
	return func(c *ipc.Conn) error {
		for {
			var p ipc.Packet
			if err := c.Receive(&p); err != nil {
				return err
			}
			how(c, &p)
			p.Release()
		}
	}
}

func reply(c *ipc.Conn, p ipc.Packet) error {
	return c.Send(context.Background(), 5*time.Second, &p)
}

func keeperLaunch(script string, open ...string) func() (privsep.Launch, error) {
	return func() (privsep.Launch, error) {
		return privsep.Launch{
			Role: &keeperRole, Sandbox: privsep.Sandbox{Without: without(), Open: open}, Message: &scriptMessage{script},
		}, nil
	}
}

// keep starts a keeper whose log can be read.
func keep(t *testing.T, launch func() (privsep.Launch, error)) (*privsep.Keeper, *logBuffer) {
	t.Helper()
	log := new(logBuffer)
	policy, _ := newHouse(func(*porch) privsep.Launch { return privsep.Launch{} })
	m, err := privsep.NewMonitor(policy, privsep.Config{Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	k, err := m.Keep(launch)
	if err != nil {
		t.Fatal(err)
	}
	return k, log
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func askKeeper(t *testing.T, k *privsep.Keeper, word string) string {
	t.Helper()
	r, err := askOp.Call(t.Context(), k, wordRequest{word})
	if err != nil {
		t.Fatalf("%s: %v", word, err)
	}
	return r.Word
}

func keeperPID(t *testing.T, k *privsep.Keeper) int {
	t.Helper()
	r, err := askPID.Call(t.Context(), k, empty{})
	if err != nil {
		t.Fatal(err)
	}
	return int(r.PID)
}

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o400); err != nil {
		t.Fatal(err)
	}
	return path
}

// A keeper has the file that its monitor named, which its own user may not
// open, and no other.
func TestKeeperHasItsFileAlone(t *testing.T) {
	noLeaks(t)
	k, _ := keep(t, keeperLaunch("", secretFile(t, "the secret")))
	if got := askKeeper(t, k, "secret"); got != "the secret" {
		t.Errorf("the keeper has %q", got)
	}
	if got := askKeeper(t, k, "another"); !strings.Contains(got, "permission denied") {
		t.Errorf("another file: %s", got)
	}
	if uid := askKeeper(t, k, "uid"); os.Geteuid() == 0 && uid != "65534" {
		t.Errorf("uid %s", uid)
	}
	_, err := askOp.Call(t.Context(), k, wordRequest{"ENOENT"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refusal is %v", err)
	}
}

func TestKeepWithoutItsFile(t *testing.T) {
	noLeaks(t)
	m := newMonitor(t, func() *privsep.Policy { p, _ := newHouse(func(*porch) privsep.Launch { return launch("") }); return p }())
	for _, path := range []string{"/nonexistent/file", t.TempDir()} {
		if _, err := m.Keep(keeperLaunch("", path)); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	trouble := errors.New("no launch")
	if _, err := m.Keep(func() (privsep.Launch, error) { return privsep.Launch{}, trouble }); !errors.Is(err, trouble) {
		t.Errorf("got %v", err)
	}
}

// Whatever way a keeper goes, what waits for it fails with a KeeperError, and
// the next call meets another.
func TestKeeperReturns(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, k *privsep.Keeper){
		"killed": func(t *testing.T, k *privsep.Keeper) {
			pid := keeperPID(t, k)
			time.AfterFunc(50*time.Millisecond, func() { syscall.Kill(pid, syscall.SIGKILL) })
		},
		"crashed": func(t *testing.T, k *privsep.Keeper) {
			time.AfterFunc(50*time.Millisecond, func() { askOp.Call(context.Background(), k, wordRequest{"crash"}) })
		},
		"restarted": func(t *testing.T, k *privsep.Keeper) { time.AfterFunc(50*time.Millisecond, k.Restart) },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			k, log := keep(t, keeperLaunch(""))
			before := keeperPID(t, k)
			end(t, k)
			var callers sync.WaitGroup
			for range 10 {
				callers.Go(func() {
					_, err := askOp.Call(t.Context(), k, wordRequest{"sleep"})
					var failed *privsep.KeeperError
					if !errors.As(err, &failed) || failed.Role != "keeper" {
						t.Errorf("an outstanding call: %v", err)
					}
				})
			}
			callers.Wait()
			if after := keeperPID(t, k); after == before {
				t.Error("the same process answers")
			}
			if n := k.Started(); n != 2 {
				t.Errorf("started %d times", n)
			}
			if told := strings.Contains(log.String(), "keeper ended"); told == (name == "restarted") {
				t.Errorf("log: %q", log)
			}
		})
	}
}

// After Restart returns, no call meets the process that was there before.
func TestRestartIsAtOnce(t *testing.T) {
	noLeaks(t)
	k, _ := keep(t, keeperLaunch(""))
	for range 20 {
		before := keeperPID(t, k)
		k.Restart()
		if keeperPID(t, k) == before {
			t.Fatal("the old process answered")
		}
	}
}

// What a keeper says is hostile: it is killed for it, the caller hears of a
// KeeperError, which a handler can't take for its session's violation.
func TestHostileKeeper(t *testing.T) {
	for name := range hostileKeepers {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			k, log := keep(t, keeperLaunch(name))
			began := time.Now()
			_, err := askOp.Call(t.Context(), k, wordRequest{"word"})
			var failed *privsep.KeeperError
			var violation *privsep.ViolationError
			if !errors.As(err, &failed) || errors.As(err, &violation) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			for deadline := time.Now().Add(20 * time.Second); k.Started() < 2; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not started again: %v", log)
				}
			}
			if !strings.Contains(log.String(), "keeper ended") {
				t.Errorf("log: %q", log)
			}
		})
	}
}

// A keeper that always dies is started less and less often, and calls meanwhile
// fail at once.
func TestKeeperBackOff(t *testing.T) {
	noLeaks(t)
	k, log := keep(t, keeperLaunch(""))
	calls := 0
	for began := time.Now(); time.Since(began) < 2*time.Second; calls++ {
		askOp.Call(t.Context(), k, wordRequest{"crash"})
		time.Sleep(time.Millisecond)
	}
	// After 0, 0.1, 0.2, 0.4, 0.8 s.
	if n := k.Started(); n < 3 || n > 6 || calls < 50 {
		t.Errorf("started %d times for %d calls; log:\n%v", n, calls, log)
	}
}

// A call that its caller gives up is not the keeper's fault.
func TestKeeperIsNotBlamed(t *testing.T) {
	noLeaks(t)
	k, _ := keep(t, keeperLaunch(""))
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		_, err := askOp.Call(ctx, k, wordRequest{"wait"})
		cancel()
		var failed *privsep.KeeperError
		if err == nil || errors.As(err, &failed) {
			t.Errorf("got %v", err)
		}
	}
	if k.Started() != 1 {
		t.Error("killed for its callers' haste")
	}
}

// One that is closed before its goroutine has run, as on one processor, leaves no
// process when Close returns.
func TestKeeperClosedAtOnce(t *testing.T) {
	noLeaks(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 10 {
		k, _ := keep(t, keeperLaunch(""))
		k.Close()
		for _, pid := range workers() {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if _, state, ok := strings.Cut(string(stat), ") "); ok && !strings.HasPrefix(state, "Z") { // its launcher buries it
				t.Errorf("process %d is there: %s", pid, stat)
			}
		}
	}
}

func TestClosedKeeper(t *testing.T) {
	noLeaks(t)
	k, _ := keep(t, keeperLaunch(""))
	go func() {
		time.Sleep(20 * time.Millisecond)
		k.Close()
	}()
	for _, word := range []string{"sleep", "after"} {
		if _, err := askOp.Call(t.Context(), k, wordRequest{word}); err == nil {
			t.Errorf("%s: answered", word)
		}
	}
	k.Close()
}
