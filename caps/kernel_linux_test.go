package caps_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// What these tests do to a process cannot be undone, so each runs in a child:
// this binary again, with one of these names.
var children = map[string]func() error{
	"drop":            childDrop,
	"drop-raw":        childDropRaw,
	"drop-unread":     childDropUnread,
	"drop-nobody":     childDropNobody,
	"drop-launched":   childDropLaunched,
	"drop-bounding":   childDropBounding,
	"drop-permitted":  childDropPermitted,
	"drop-keep-caps":  childDropKeepCaps,
	"limit":           childLimit,
	"limit-bounding":  childLimitBounding,
	"limit-inherited": childLimitInherited,
	"with":            childWith,
	"with-churn":      childWithChurn,
	"with-churn-wide": childWithChurnWide,
	"with-unlowered":  childWithUnlowered,
	"with-unlimited":  childWithUnlimited,
	"ambient":         childAmbient,
	"launcher":        func() error { return launch("drop-launched", true) },
	"half-launcher":   func() error { return launch("drop-bounding", false) },
	"empty":           func() error { return everyThread(want("", "", "", "", "")) },
	"example-drop":    func() error { ExampleDrop(); return nil },
	"example-limit":   func() error { ExampleLimit(); return nil },
	"example-with":    func() error { ExampleWith(); return nil },
}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "child" {
		if err := children[os.Args[2]](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// command runs a child. /proc/self/exe, because another user may not be able
// to reach the directory that go test builds in.
func command(name string) *exec.Cmd { return exec.Command("/proc/self/exe", "child", name) }

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Args[2], err, out)
	}
	return string(out)
}

func TestAsRoot(t *testing.T) {
	testenv.NeedRoot(t)
	for _, name := range []string{
		"drop", "drop-raw", "drop-unread", "launcher", "half-launcher", "drop-permitted", "drop-keep-caps", "limit",
		"limit-bounding", "limit-inherited", "with", "with-churn", "with-churn-wide", "with-unlowered", "with-unlimited", "ambient",
	} {
		t.Run(name, func(t *testing.T) { run(t, command(name)) })
	}
}

func TestDropAsAnOrdinaryUser(t *testing.T) {
	cmd := command("drop-nobody")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	run(t, cmd)
}

func TestExamples(t *testing.T) {
	testenv.NeedRoot(t)
	for name, want := range map[string]string{
		"example-drop":  "= <nil>\n",
		"example-limit": "cap_setgid,cap_setuid=p <nil>\n",
		"example-with": "without: listen tcp 127.99.7.1:80: bind: permission denied\nwith: <nil>\n" +
			"caps: raise cap_sys_admin: caps: cap_sys_admin is not permitted\n",
	} {
		if got := run(t, command(name)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// fields is a thread's Cap lines as the kernel prints them, read here without
// the help of the package under test. One name's value "?" is any.
type fields map[string]string

func want(inh, prm, eff, bnd, amb string) fields {
	f := fields{"CapInh": inh, "CapPrm": prm, "CapEff": eff, "CapBnd": bnd, "CapAmb": amb}
	for name, value := range f {
		if value != "?" {
			f[name] = strings.Repeat("0", 16-len(value)) + value
		}
	}
	return f
}

func threads() map[int]fields {
	all := map[int]fields{}
	statuses, _ := filepath.Glob("/proc/self/task/*/status")
	for _, path := range statuses {
		status, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		f := fields{}
		for line := range strings.Lines(string(status)) {
			if name, value, _ := strings.Cut(line, ":"); strings.HasPrefix(name, "Cap") {
				f[name] = strings.TrimSpace(value)
			}
		}
		tid, _ := strconv.Atoi(strings.Split(path, "/")[4])
		all[tid] = f
	}
	return all
}

func everyThread(want fields) error {
	all := threads()
	if len(all) < 2 {
		return errors.New("one thread proves nothing of all threads")
	}
	for tid, got := range all {
		for name, value := range want {
			if value != "?" && got[name] != value {
				return fmt.Errorf("thread %d of %d: %s is %s, want %s", tid, len(all), name, got[name], value)
			}
		}
	}
	return nil
}

// churn keeps starting threads and ending them until it is stopped. It begins
// by having some at once.
func churn() (stop func()) {
	done, wg := make(chan struct{}), sync.WaitGroup{}
	var ready sync.WaitGroup
	ready.Add(6)
	for range 6 {
		wg.Go(func() {
			for first := true; ; first = false {
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					runtime.LockOSThread() // and never unlock: the thread ends too
					if first {
						ready.Done()
						ready.Wait()
					}
				}()
				<-ended
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond): // leave the machine to others
				}
			}
		})
	}
	ready.Wait()
	return func() { close(done); wg.Wait() }
}

func wantRemains(err error, field caps.Field, left caps.Set) error {
	var remains *caps.RemainsError
	if !errors.As(err, &remains) || remains.Field != field || remains.Left != left || remains.Thread == 0 {
		return fmt.Errorf("got %v; want a RemainsError of the %s with %v", err, field, left)
	}
	return nil
}

func childDrop() error {
	// Something in each of the five sets.
	chown := caps.Of(caps.Chown)
	state, err := caps.Current()
	if err != nil || state.Effective.Empty() {
		return fmt.Errorf("begins with %v, %v", state, err)
	}
	runtime.LockOSThread()
	if err := sys.CapsetAll(state.Effective.Bits(), state.Permitted.Bits(), chown.Bits()); err != nil {
		return err
	}
	if err := sys.AmbientRaise(caps.Chown.Number()); err != nil {
		return err
	}
	stop := churn()
	defer stop()
	if err := caps.Drop(); err != nil {
		return err
	}
	for range 20 {
		if err := everyThread(want("", "", "", "", "")); err != nil {
			return err
		}
	}
	if bits, err := sys.SecurebitsAll(); bits != 0xef || err != nil {
		return fmt.Errorf("securebits %#x, %v", bits, err)
	}
	if err := caps.Drop(); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	// Uid 0 gains nothing by executing a file.
	return passOn(command("empty"))
}

func passOn(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// The control: the raw call leaves other threads as they were, both the test's
// check and the package's own see it, and so would they if Drop were to use it.
func childDropRaw() error {
	stop := churn()
	defer stop()
	runtime.LockOSThread()
	if err := sys.Capset(0, 0, 0); err != nil {
		return err
	}
	if err := everyThread(want("", "", "", "?", "")); err == nil {
		return errors.New("the raw call reached every thread, or the check sees nothing")
	}
	var remains *caps.RemainsError
	if err := caps.ReadBack(caps.Set{}); !errors.As(err, &remains) || remains.Field != caps.Permitted || remains.Left.Empty() {
		return fmt.Errorf("read back: %v", err)
	}
	return nil
}

// Without /proc nothing could be read back, and libpsx would kill the process.
func childDropUnread() error {
	if err := syscall.Chroot("testdata"); err != nil {
		return err
	}
	before, _ := caps.Current()
	err := caps.Drop()
	if after, _ := caps.Current(); !errors.Is(err, os.ErrNotExist) || after != before {
		return fmt.Errorf("got %v, and %v where %v was", err, after, before)
	}
	return nil
}

// An ordinary user can't lock the securebits, which counts for more than the
// bounding set; the control for a second verdict is childDropBounding.
func childDropNobody() error {
	if err := wantRemains(caps.Drop(), caps.Securebits, caps.Set{}); err != nil {
		return err
	}
	var missing *caps.MissingError
	if err := caps.Limit(caps.Of(caps.Chown)); !errors.As(err, &missing) || missing.Missing != caps.Of(caps.Chown) {
		return fmt.Errorf("Limit: got %v", err)
	}
	err := caps.With(caps.Of(caps.Chown, caps.Kill), func() error { panic("f ran") })
	if !errors.As(err, &missing) || missing.Missing != caps.Of(caps.Chown, caps.Kill) {
		return fmt.Errorf("With: got %v", err)
	}
	passed := errors.New("f's")
	if err := caps.With(caps.Set{}, func() error { return passed }); err != passed {
		return fmt.Errorf("With nothing: got %v", err)
	}
	return everyThread(want("", "", "", "?", ""))
}

// launch does to one thread what a launcher does, then executes a child from
// it, which inherits that.
func launch(name string, bounding bool) error {
	runtime.LockOSThread()
	for n := 0; bounding; n++ {
		if _, err := sys.BoundingHas(n); err != nil {
			break // beyond the last
		}
		if err := sys.BoundingDrop(n); err != nil {
			return err
		}
	}
	if err := sys.SetSecurebits(sys.SecurebitsLocked); err != nil {
		return err
	}
	if err := sys.Capset(0, 0, 0); err != nil {
		return err
	}
	return passOn(command(name))
}

func childDropLaunched() error {
	stop := churn()
	defer stop()
	if err := everyThread(want("", "", "", "", "")); err != nil {
		return fmt.Errorf("not launched as it should: %w", err)
	}
	return caps.Drop()
}

func childDropBounding() error {
	before, err := caps.ParseHex(threads()[os.Getpid()]["CapBnd"])
	if err != nil || before.Empty() {
		return fmt.Errorf("begins with bounding set %v, %v", before, err)
	}
	return wantRemains(caps.Drop(), caps.Bounding, before)
}

// CAP_SETPCAP that is permitted and not effective is enough.
func childDropPermitted() error {
	if err := caps.Limit(caps.Of(caps.SetPCap, caps.Chown)); err != nil {
		return err
	}
	if err := everyThread(want("", "101", "", "101", "")); err != nil {
		return err
	}
	if err := caps.Drop(); err != nil {
		return err
	}
	return everyThread(want("", "", "", "", ""))
}

func childDropKeepCaps() error {
	if err := sys.SetSecurebitsAll(sys.SecurebitsKeepCaps); err != nil {
		return err
	}
	if err := caps.Drop(); err != nil {
		return err
	}
	if bits, err := sys.SecurebitsAll(); bits != 0xef || err != nil {
		return fmt.Errorf("securebits %#x, %v", bits, err)
	}
	return nil
}

func childLimit() error {
	stop := churn()
	defer stop()
	if err := caps.Limit(caps.Of(caps.Chown, caps.SetUID)); err != nil {
		return err
	}
	if err := everyThread(want("", "81", "", "81", "")); err != nil {
		return err
	}
	state, err := caps.Current()
	if got, want := state.String(), "cap_chown,cap_setuid=p"; got != want || err != nil {
		return fmt.Errorf("got %s, %v; want %s", got, err, want)
	}
	var missing *caps.MissingError
	if err := caps.Limit(caps.Of(caps.Chown, caps.Kill)); !errors.As(err, &missing) || missing.Missing != caps.Of(caps.Kill) {
		return fmt.Errorf("a limit of more: got %v", err)
	}
	if err := caps.Limit(caps.Of(caps.Chown, caps.SetUID)); err != nil {
		return fmt.Errorf("again: %w", err) // without CAP_SETPCAP, and nothing to use it for
	}
	return wantRemains(caps.Drop(), caps.Securebits, caps.Set{})
}

// Without CAP_SETPCAP the permitted set shrinks, and what the bounding set
// keeps is reported.
func childLimitBounding() error {
	if err := caps.Limit(caps.Of(caps.Chown, caps.SetUID)); err != nil {
		return err
	}
	if err := wantRemains(caps.Limit(caps.Of(caps.Chown)), caps.Bounding, caps.Of(caps.SetUID)); err != nil {
		return err
	}
	return everyThread(want("", "1", "", "81", ""))
}

// A process that a service manager gave ambient capabilities, and of which one
// thread was set aside with less, as a monitor's is that starts workers.
func childLimitInherited() error {
	bind := caps.Of(caps.NetBindService)
	state, err := caps.Current()
	if err != nil {
		return err
	}
	if err := sys.CapsetAll(state.Effective.Bits(), state.Permitted.Bits(), bind.Bits()); err != nil {
		return err
	}
	aside, done := make(chan error), make(chan struct{})
	defer close(done)
	go func() {
		runtime.LockOSThread()
		err := sys.Capset(state.Effective.Bits(), state.Permitted.Bits(), 0)
		if err == nil {
			err = sys.BoundingDrop(caps.NetBindService.Number())
		}
		aside <- err
		<-done
	}()
	if err := <-aside; err != nil {
		return err
	}
	if err := caps.Limit(caps.Of(caps.Chown)); err != nil {
		return err
	}
	return everyThread(want("", "1", "", "1", ""))
}

func childWith() error {
	if err := caps.Limit(caps.Of(caps.Chown, caps.SetUID)); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "caps")
	if err != nil {
		return err
	}
	defer file.Close()
	defer os.Remove(file.Name())
	chown := func() error { return file.Chown(12345, -1) }
	closed := func(when string) error {
		if err := everyThread(want("", "81", "", "81", "")); err != nil {
			return fmt.Errorf("%s: %w", when, err)
		}
		return nil
	}

	if err := chown(); !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("without: got %v", err)
	}
	if err := caps.With(caps.Of(caps.SetUID), chown); !errors.Is(err, syscall.EPERM) {
		return fmt.Errorf("with another's: got %v", err)
	}
	if err := caps.With(caps.Of(caps.Chown), chown); err != nil {
		return fmt.Errorf("with: %w", err)
	}
	if err := closed("after f"); err != nil {
		return err
	}
	passed := errors.New("f's")
	if err := caps.With(caps.Of(caps.Chown), func() error { return passed }); err != passed {
		return fmt.Errorf("f's result became %v", err)
	}
	var missing *caps.MissingError
	err = caps.With(caps.Of(caps.Chown, caps.Kill), func() error { panic("f ran") })
	if !errors.As(err, &missing) || missing.Missing != caps.Of(caps.Kill) {
		return fmt.Errorf("not permitted: got %v", err)
	}

	err = caps.With(caps.Of(caps.Chown), func() error {
		err := caps.With(caps.Of(caps.SetUID), func() error { panic("f ran") })
		if err := wantRemains(err, caps.Effective, caps.Of(caps.Chown)); err != nil {
			return fmt.Errorf("nested: %w", err)
		}
		return chown() // the outer one's is still there
	})
	if err == nil {
		err = closed("after a nested one")
	}
	if err != nil {
		return err
	}

	func() {
		defer func() {
			if recover() != "f's" {
				err = errors.New("the panic did not come through")
			}
		}()
		_ = caps.With(caps.Of(caps.Chown), func() error { panic("f's") })
	}()
	if err == nil {
		err = closed("after a panic")
	}
	if err != nil {
		return err
	}

	var wg sync.WaitGroup
	wg.Go(func() {
		_ = caps.With(caps.Of(caps.Chown), func() error { runtime.Goexit(); return nil })
	})
	wg.Wait()
	return closed("after Goexit")
}

// raisedDuringChurn counts threads whose effective set isn't empty while many
// are started, by goroutines of f's too.
func raisedDuringChurn(raise func(f func() error) error) (most int, err error) {
	if err := caps.Limit(caps.Of(caps.Chown)); err != nil {
		return 0, err
	}
	stop := churn()
	defer stop()
	err = raise(func() error {
		before := slices.Collect(maps.Keys(threads()))
		var started, wg sync.WaitGroup
		release := make(chan struct{})
		started.Add(40)
		for range 40 {
			wg.Go(func() {
				runtime.LockOSThread() // forty threads at once
				started.Done()
				<-release
			})
		}
		defer wg.Wait()
		defer close(release)
		started.Wait()
		if now := threads(); len(now) < 40 || len(now) <= len(before) {
			return fmt.Errorf("%d threads, then %d", len(before), len(now))
		}
		for range 20 {
			raised := 0
			for tid, f := range threads() {
				if f["CapEff"] != "0000000000000000" {
					raised++
					if raised == 1 && tid != sys.Gettid() {
						most = max(most, 2) // another's alone is as bad
					}
				}
			}
			most = max(most, raised)
		}
		return nil
	})
	return most, err
}

func childWithChurn() error {
	most, err := raisedDuringChurn(func(f func() error) error { return caps.With(caps.Of(caps.Chown), f) })
	if err != nil || most != 1 {
		return fmt.Errorf("capabilities on %d threads, %v", most, err)
	}
	return everyThread(want("", "1", "", "1", ""))
}

// The control: were they raised on all threads the count would show it.
func childWithChurnWide() error {
	most, err := raisedDuringChurn(func(f func() error) error {
		if err := sys.CapsetAll(1, 1, 0); err != nil {
			return err
		}
		return f()
	})
	if err != nil || most < 2 {
		return fmt.Errorf("raised on all threads, seen on %d, %v", most, err)
	}
	return nil
}

// A thread that can't be lowered again serves no other goroutine: it ends.
func childWithUnlowered() error {
	if err := caps.Limit(caps.Of(caps.Chown)); err != nil {
		return err
	}
	refused := errors.New("refused")
	type result struct {
		tid int
		err error
	}
	results := make(chan result)
	var attempt func()
	attempt = func() {
		runtime.LockOSThread()
		if sys.Gettid() == os.Getpid() { // the main thread is never destroyed: leave it occupied
			go attempt()
			select {}
		}
		runtime.UnlockOSThread()
		var r result
		defer func() { results <- r }()
		calls := 0
		r.err = caps.WithCapset(caps.Of(caps.Chown), func() error { r.tid = sys.Gettid(); return os.ErrClosed },
			func(e, p, i uint64) error {
				if calls++; calls > 1 {
					return refused
				}
				return sys.Capset(e, p, i)
			})
	}
	go attempt()
	r := <-results
	if err := wantRemains(r.err, caps.Effective, caps.Of(caps.Chown)); err != nil {
		return err
	}
	if !errors.Is(r.err, refused) || !errors.Is(r.err, os.ErrClosed) {
		return fmt.Errorf("got %v, without f's or the kernel's error", r.err)
	}
	for range 500 {
		if _, still := threads()[r.tid]; !still {
			return everyThread(want("", "1", "", "1", ""))
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("thread %d lives on: %v", r.tid, threads()[r.tid])
}

func childWithUnlimited() error {
	state, _ := caps.Current()
	return wantRemains(caps.With(caps.Of(caps.Chown), func() error { panic("f ran") }), caps.Effective, state.Effective)
}

// The ambient calls, for launchers.
func childAmbient() error {
	runtime.LockOSThread()
	_, p, _, err := sys.Capget()
	if err != nil {
		return err
	}
	if err := sys.Capset(p, p, 0x21); err != nil {
		return err
	}
	for _, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return sys.AmbientRaise(0) }, "0000000000000001"},
		{func() error { return sys.AmbientRaise(5) }, "0000000000000021"},
		{func() error { return sys.AmbientLower(0) }, "0000000000000020"},
		{sys.AmbientClear, "0000000000000000"},
		{func() error { return sys.AmbientRaise(0) }, "0000000000000001"},
		{func() error { return sys.Capset(p, p, 0) }, "0000000000000000"}, // which Drop relies on
	} {
		if err := step.do(); err != nil {
			return err
		}
		has, err := sys.AmbientHas(5)
		if got := threads()[sys.Gettid()]["CapAmb"]; got != step.want || err != nil || has != strings.Contains(step.want, "2") {
			return fmt.Errorf("got %s, %v, %v; want %s", got, has, err, step.want)
		}
	}
	return nil
}
