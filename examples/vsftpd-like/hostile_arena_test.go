//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
	"github.com/go-privsep/sallyport/sandbox"
)

// An arena is one server with an honest client, and sessions whose workers
// are the attacker's, all under one monitor.
type arena struct {
	*server
	base  string // directory: outside, and a tree for each session
	trees atomic.Int64

	connecting sync.Mutex
	listener   *net.TCPListener // where attackers' clients connect
	address    string           // where honest clients do
	siblings   map[string]int   // role to an honest worker's process

	logged  atomic.Int64 // by the monitor, lines
	rounds  atomic.Int64 // of the honest client
	slowest atomic.Int64 // nanoseconds that one took
}

// A logCounter counts what a log would have to hold.
type logCounter struct {
	slog.Handler
	lines *atomic.Int64
}

func (*logCounter) Enabled(context.Context, slog.Level) bool { return true }
func (c *logCounter) WithAttrs([]slog.Attr) slog.Handler     { return c }

func (c *logCounter) Handle(context.Context, slog.Record) error {
	c.lines.Add(1)
	return nil
}

func hostWithout() sandbox.Mechanisms {
	if os.Geteuid() == 0 {
		return 0
	}
	return sandbox.Identity | sandbox.Proof
}

func newArena(t *testing.T) *arena {
	t.Helper()
	return newArenaWithout(t, hostWithout())
}

func newArenaWithout(t *testing.T, without sandbox.Mechanisms) *arena {
	t.Helper()
	base, err := os.MkdirTemp("", "hostile-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	a := &arena{base: base, siblings: make(map[string]int)}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(base, "outside", "secret"), "of another user", 0o600)
	mustWrite(t, filepath.Join(base, "outside", "public"), "of the host", 0o644)
	mustWrite(t, filepath.Join(base, "honest", "hello.txt"), helloText, 0o644)

	c := config.Default()
	c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	c.Anonymous, c.AnonymousRoot, c.Spares = true, filepath.Join(base, "honest"), 0
	if a.server, err = newServer(c, newPolicy, new(pool), without, slog.New(&logCounter{slog.DiscardHandler, &a.logged}), nil, nil); err != nil {
		if os.Geteuid() != 0 { // a host without user namespaces, or a test built with cgo
			t.Log(err)
			testenv.NeedRoot(t)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { a.monitor.Close() })
	if os.Geteuid() != 0 {
		l := privsep.Launch{Role: &sessionRole, Sandbox: a.sessionSandbox()}
		if _, _, err := a.monitor.Posture(t.Context(), l); err != nil {
			t.Log(err) // a host without user namespaces, or a test built with cgo
			testenv.NeedRoot(t)
		}
	}
	if a.listener, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.listener.Close() })
	doors, err := a.bind()
	if err != nil {
		t.Fatal(err)
	}
	a.address = doors[c.Listen[0]].Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.serve(ctx, doors, func() { <-ctx.Done() })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return a
}

func mustWrite(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

const helloText = "hello from an honest session\n"

// goOn runs an honest client until stop: it is what attacks must not disturb.
func (a *arena) goOn(t *testing.T) (stop func()) {
	t.Helper()
	c := login(t, a.address, "anonymous")
	for pid, role := range childRoles() {
		a.siblings[role] = ownNumber(pid)
	}
	if len(a.siblings) != 3 {
		t.Fatalf("honest workers: %v", a.siblings)
	}
	var ended sync.WaitGroup
	quit := make(chan struct{})
	ended.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-time.After(20 * time.Millisecond):
			}
			start := time.Now()
			if got, err := c.get("RETR hello.txt"); err != nil || string(got) != helloText {
				t.Errorf("honest session, round %d: RETR: got %q, %v", a.rounds.Load(), got, err)
				return
			}
			if got, err := c.get("LIST"); err != nil || !strings.Contains(string(got), "hello.txt") {
				t.Errorf("honest session, round %d: LIST: got %q, %v", a.rounds.Load(), got, err)
				return
			}
			a.rounds.Add(1)
			a.slowest.Store(max(a.slowest.Load(), int64(time.Since(start))))
		}
	})
	return func() {
		close(quit)
		ended.Wait()
		if err := c.do("QUIT", "221"); err != nil {
			t.Error("honest session:", err)
		}
		c.Close()
		t.Logf("honest session: %d rounds beside the attacks, the slowest took %v", a.rounds.Load(),
			time.Duration(a.slowest.Load()).Round(time.Millisecond))
	}
}

// A trial is one session in which workers are the attacker's.
type trial struct {
	session string // attack by the session worker; "" for an honest one
	files   string // attack by the files worker; "" for an honest one
	arg     int
	write   bool          // the account may write
	victim  int           // process to attack, as the host numbers it; 0: the honest worker of the same role
	user    uint32        // whom the files worker is; 0: the anonymous user
	timeout time.Duration // of the phase before login; 0: a minute
	client  func(*net.TCPConn)
}

// try serves one session and reports how it ended. Whatever the attacker did,
// the tree that it was in must be as it was, and all that is beside it.
func (a *arena) try(t *testing.T, r trial) end {
	t.Helper()
	root := a.newTree(t, r)
	before := a.snapshot(t, root)
	c := a.config
	c.AnonymousRoot, c.AnonymousWrite = root, r.write
	if c.LoginTimeout = r.timeout; c.LoginTimeout == 0 {
		c.LoginTimeout = time.Minute
	}
	if r.session != "" {
		c.Banner = a.order(r.session, r, "session").String()
	}
	if r.user != 0 {
		c.AnonymousUser = config.Identity{UID: r.user, GID: r.user}
	}
	settings, err := c.Accounts()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{instance: a.instance, config: c, settings: settings, accounts: a.accounts}
	err = a.run(t, s, r.client)
	if after := a.snapshot(t, root); after != before {
		t.Errorf("files before:\n%s\nafter:\n%s", before, after)
	}
	os.RemoveAll(root)
	return endOf(err)
}

// order tells a worker of a role whom to attack.
func (a *arena) order(name string, r trial, role string) order {
	if r.victim == 0 {
		return order{name: name, arg: r.arg, sibling: a.siblings[role]}
	}
	return order{name, r.arg, ownNumber(r.victim), r.victim}
}

// run is server.session, but for its loss of the error.
func (a *arena) run(t *testing.T, s *server, talk func(*net.TCPConn)) error {
	t.Helper()
	dialed, conn := a.pair(t)
	defer dialed.Close()
	defer conn.Close()
	if talk != nil {
		go talk(dialed)
	}
	c := &client{
		server: s, log: s.log, control: conn,
		local:  unmap(conn.LocalAddr().(*net.TCPAddr).AddrPort()),
		remote: unmap(conn.RemoteAddr().(*net.TCPAddr).AddrPort()),
	}
	slot, err := admission.NewGate(admission.Limits{}, admission.Penalties{}).Admit(c.remote.Addr())
	if err != nil {
		t.Fatal(err)
	}
	c.slot = slot
	defer c.closePassive()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	err = privsep.Serve(ctx, s.monitor, s.preauth, c)
	var exit *privsep.ExitError
	offence := slot.Close(err)
	if filtered := errors.As(err, &exit) && exit.Class == privsep.Filtered; filtered != (offence == admission.Suspect) {
		t.Errorf("%v is booked as %v", err, offence)
	}
	return err
}

// pair is a control connection, as its client has it and as the server does.
func (a *arena) pair(t *testing.T) (dialed, accepted *net.TCPConn) {
	t.Helper()
	a.connecting.Lock()
	defer a.connecting.Unlock()
	dialed, err := net.DialTCP("tcp", nil, a.listener.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	if accepted, err = a.listener.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	return dialed, accepted
}

// newTree is a session's root, with something to steal next to it.
func (a *arena) newTree(t *testing.T, r trial) string {
	t.Helper()
	root := filepath.Join(a.base, "tree-"+strconv.FormatInt(a.trees.Add(1), 10))
	mustWrite(t, filepath.Join(root, "readme.txt"), "harmless", 0o644)
	for _, err := range []error{
		os.Mkdir(filepath.Join(root, "dir"), 0o755),
		os.Symlink("/etc/passwd", filepath.Join(root, "absolute")),
		os.Symlink("../outside/public", filepath.Join(root, "upwards")),
		os.Link(filepath.Join(a.base, "outside", "secret"), filepath.Join(root, "hardlink")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if r.files != "" {
		mustWrite(t, filepath.Join(root, orderFile), a.order(r.files, r, "files").String(), 0o644)
	}
	if who := a.config.AnonymousUser; r.write && os.Geteuid() == 0 {
		for _, name := range []string{"", "dir", "readme.txt"} {
			if err := os.Chown(filepath.Join(root, name), int(who.UID), int(who.GID)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

// snapshot is all that an attack on files could change.
func (a *arena) snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{root, filepath.Join(a.base, "outside")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			if err == nil {
				st := info.Sys().(*syscall.Stat_t)
				fmt.Fprintln(&b, path, info.Mode(), info.Size(), st.Uid, st.Gid, info.ModTime().UnixNano())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
