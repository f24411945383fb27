//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What the log says once of each reload.
const (
	reloaded = `msg="configuration reloaded"`
	refused  = `msg="configuration refused, the old one stays"`
)

// edit changes keys of the site's configuration: an empty value takes one out.
func (s *site) edit(t testing.TB, change map[string]string) {
	t.Helper()
	path := s.dir + "/conf"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " = ")
		set[key] = value
	}
	maps.Copy(set, change)
	var b strings.Builder
	for key, value := range set {
		if value != "" {
			fmt.Fprintf(&b, "%s = %s\n", key, value)
		}
	}
	// As an editor does it: there is never half of a file.
	if err := errors.Join(os.WriteFile(path+".new", []byte(b.String()), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// hangUp sends SIGHUP and waits until the log has one more line with words.
func (s *site) hangUp(t testing.TB, words ...string) {
	t.Helper()
	before := s.logged(words...)
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.awaitLog(t, before+1, words...)
}

func (s *site) awaitLog(t testing.TB, n int, words ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); s.logged(words...) < n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not have %q %d times", words, n)
		}
	}
}

// A configuration that only root may read: the server says at once that it will
// not be read again, and serves.
func TestReloadOfPrivateFile(t *testing.T) {
	s := layOut(t, map[string]string{"listen": freePorts(t, 1)[0]})
	conf := s.dir + "/conf"
	if err := os.Chmod(conf, 0o600); err != nil {
		t.Fatal(err)
	}
	s.daemon = startDaemon(t, s.dir, nil, stageName, s.dir, binary(t), "-v", "-config", conf)
	s.address = s.listening(t, 1)
	if s.logged("no reload will be possible", "permission denied") != 1 {
		t.Error("it doesn't say that the file can't be read again")
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); s.logged("configuration refused", "may read") == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the reload was not refused")
		}
	}
	login(t, s.address[0], "alice").say(t, "NOOP", "200")
}

// freePorts are n loopback addresses with ports that nobody has, on any address.
// They are below those that the kernel (ip_local_port_range) and layOut's servers
// draw from, or the next connection of a test beside could get one.
func freePorts(t testing.TB, n int) (all []string) {
	t.Helper()
	for len(all) < n {
		const first, last = 12500, 19999
		port := first + int(nextPort.Add(1))%(last-first+1)
		l, err := net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		all = append(all, fmt.Sprintf("127.0.0.1:%d", port))
	}
	return all
}

var nextPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32N(1 << 16)) // another run may be under way
	return n
}()

// greeting connects and returns the first line.
func greeting(t testing.TB, address string) string {
	t.Helper()
	c := &control{}
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c.TCPConn = conn.(*net.TCPConn)
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 200)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b[:n]))
}

// TestReload: who comes after it gets the new configuration, who was there
// keeps the old one, with the transfer that is under way.
func TestReload(t *testing.T) {
	s := startSite(t, map[string]string{"banner": "before"})
	old := login(t, s.address[0], "alice")
	data := slowly(t, s, old)
	s.edit(t, map[string]string{"banner": "after", "umask": "077", "userlist_file": s.dir + "/list"})
	if err := os.WriteFile(s.dir+"/list", []byte("bob\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.hangUp(t, reloaded)
	if got := greeting(t, s.address[0]); got != "220 after" {
		t.Errorf("a new session's greeting: %q", got)
	}
	if n, err := io.Copy(io.Discard, data); n != big || err != nil {
		t.Errorf("the transfer: %d bytes, %v", n, err)
	}
	if err := old.expect("226"); err != nil {
		t.Error(err)
	}
	if err := old.put("STOR old", []byte("x")); err != nil {
		t.Error(err)
	}
	fresh := login(t, s.address[1], "alice")
	if err := fresh.put("STOR new", []byte("x")); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]os.FileMode{"old": 0o644, "new": 0o600} {
		if info, err := os.Stat(filepath.Join(s.alice, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %v", name, info, err, want)
		}
	}
	denied := connect(t, s.address[0], "")
	if err := errors.Join(denied.do("USER bob", "331"), denied.do("PASS "+password, "530")); err != nil {
		t.Errorf("who is on the list now: %v", err)
	}
}

// TestBadReload: whatever is wrong with a configuration, the old one stays,
// whole, and the log names the file, the line and what would be right.
func TestBadReload(t *testing.T) {
	ports := freePorts(t, 3)
	s := startSite(t, map[string]string{"listen": ports[0], "banner": "before"})
	taken, err := net.Listen("tcp", ports[1])
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	conf, backup := s.dir+"/conf", s.dir+"/good"
	if err := os.Link(conf, backup); err != nil {
		t.Fatal(err)
	}
	greeting(t, ports[0])
	files := quiet(t, s)
	_, port, _ := net.SplitHostPort(ports[0])
	cases := []struct {
		name   string
		change map[string]string
		spoil  func() error
		want   string // a pattern, of one line of the log
	}{
		{"unknown key", map[string]string{"bannner": "x"}, nil, `file=.*/conf line=\d+ err=.*is banner meant`},
		{"value out of range", map[string]string{"umask": "9"}, nil, `file=.*/conf line=\d+ err=.*write an octal number`},
		{"keys that do not fit", map[string]string{"spares": "100", "max_sessions": "50"}, nil, `file=.*/conf line=\d+ err=.*lower it`},
		{"a port that is taken", map[string]string{"listen": ports[0] + ", " + ports[1] + ", " + ports[2]}, nil, `line=\d+ err=.*` + ports[1] + `.*in use.*free it`},
		{"the same twice", map[string]string{"listen": ports[0] + ", " + ports[0]}, nil, `line=\d+ err=.*occurs twice: remove one`},
		{"one that includes another", map[string]string{"listen": ports[0] + ", 0.0.0.0:" + port}, nil, `line=\d+ err=.*includes it`},
		{"an address of another host", map[string]string{"listen": "192.0.2.1:2121"}, nil, `line=\d+ err=.*give this host the address`},
		{"a port that privilege is needed for", map[string]string{"listen": ports[0] + ", 127.0.0.1:907"}, nil, `line=\d+ err=.*CAP_NET_BIND_SERVICE: restart`},
		{"a capability that is gone", map[string]string{"connect_from_port": "20"}, nil, `line=\d+ err=.*CAP_NET_BIND_SERVICE.*restart`},
		{"accounts that are not there", map[string]string{"userlist_file": s.dir + "/none"}, nil, s.dir + `/none: no such file`},
		{"a root that is not there", map[string]string{"anonymous_root": s.dir + "/none"}, nil, s.dir + `/none`},
		{"no file", nil, func() error { return os.Remove(conf) }, `conf: no such file.*name a file that uid 94999 may read`},
		{"a directory", nil, func() error { return errors.Join(os.Remove(conf), os.Mkdir(conf, 0o755)) }, `not a regular file: name a text file`},
		{"a pipe", nil, func() error { return errors.Join(os.Remove(conf), syscall.Mkfifo(conf, 0o644)) }, `not a regular file: name a text file`},
		{"a file that all may write", nil, func() error { return os.Chmod(conf, 0o646) }, `everybody may write it: chmod o-w`},
		{"an endless file", nil, func() error { return os.Truncate(conf, 1<<40) }, `larger than 1 MiB: remove something`},
	}
	for _, c := range cases {
		c.change = maps.Clone(c.change)
		if c.change == nil {
			c.change = map[string]string{}
		}
		c.change["banner"] = "after"
		s.edit(t, c.change)
		if c.spoil != nil {
			if err := c.spoil(); err != nil {
				t.Fatal(err)
			}
		}
		before := len(s.output())
		s.hangUp(t, refused)
		if got := s.output()[before:]; !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%s: the log says %q, want %q", c.name, got, c.want)
		}
		if got := greeting(t, ports[0]); got != "220 before" {
			t.Errorf("%s: then a greeting is %q", c.name, got)
		}
		if conn, err := net.Dial("tcp", ports[2]); err == nil {
			conn.Close()
			t.Errorf("%s: a port of it is open", c.name)
		}
		if err := errors.Join(os.RemoveAll(conf), os.Link(backup, conf)); err != nil {
			t.Fatal(err)
		}
	}
	s.settled(t, map[string]int{"session": 2})
	s.awaitFiles(t, files)
	// The control: nothing was wrong with the test's way to ask.
	s.edit(t, map[string]string{"banner": "after"})
	s.hangUp(t, reloaded)
	if got := greeting(t, ports[0]); got != "220 after" {
		t.Errorf("in the end a greeting is %q", got)
	}
}

// TestReloadPorts: a port that stays refuses nobody, one that comes is open at
// once, and who has connected to one that goes is served, but in its last moment.
func TestReloadPorts(t *testing.T) {
	ports := freePorts(t, 3)
	s := startSite(t, map[string]string{"listen": ports[0] + ", " + ports[1], "spares": "4"})
	var stop atomic.Bool
	var clients sync.WaitGroup
	var served, late atomic.Int64
	for i := range 4 {
		clients.Go(func() {
			for !stop.Load() {
				conn, err := net.DialTimeout("tcp", ports[i%2], patience)
				if i%2 == 1 && errors.Is(err, syscall.ECONNREFUSED) {
					late.Add(1)
					return // it is gone
				}
				if err != nil {
					t.Errorf("port %d: %v", i%2, err)
					return
				}
				c := &control{TCPConn: conn.(*net.TCPConn)}
				b := make([]byte, 3)
				c.SetReadDeadline(time.Now().Add(patience))
				_, err = io.ReadFull(c, b)
				if i%2 == 1 && errors.Is(err, syscall.ECONNRESET) {
					c.Close()
					late.Add(1)
					return // it came in the port's last moment
				}
				if err != nil || string(b) != "220" {
					t.Errorf("port %d: connected, and then %q, %v", i%2, b, err)
				}
				served.Add(1)
				c.Close()
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	s.edit(t, map[string]string{"listen": ports[0] + ", " + ports[2]})
	s.hangUp(t, reloaded)
	greeting(t, ports[2])
	for deadline := time.Now().Add(patience); late.Load() < 2 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop.Store(true)
	clients.Wait()
	if served.Load() == 0 || late.Load() != 2 {
		t.Errorf("%d served, %d refused at the end", served.Load(), late.Load())
	}
	// And back again, at once.
	s.edit(t, map[string]string{"listen": ports[1]})
	s.hangUp(t, reloaded)
	greeting(t, ports[1])
}

// TestReloadStorm: signals that come while one is obeyed are one, and clients
// don't notice.
func TestReloadStorm(t *testing.T) {
	s := startSite(t, map[string]string{"banner": "before"})
	c := login(t, s.address[0], "alice")
	s.settled(t, besideAlice)
	files := still(t, s)
	s.edit(t, map[string]string{"banner": "after"})
	for range 1000 {
		if err := s.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	c.say(t, "NOOP", "200")
	for n := -1; n != s.logged(reloaded); time.Sleep(500 * time.Millisecond) {
		n = s.logged(reloaded)
	}
	if got := greeting(t, s.address[1]); got != "220 after" {
		t.Errorf("greeting: %q", got)
	}
	// With its last session goes all that a configuration had.
	c.say(t, "QUIT", "221")
	login(t, s.address[0], "alice")
	s.settled(t, besideAlice)
	s.awaitFiles(t, files)
}

// besideAlice are the workers when nobody but alice is there, of a site with
// two spares.
var besideAlice = map[string]int{"session": 3, "files": 1}

// awaitFiles waits until the monitor has as many descriptors as it had.
func (s *site) awaitFiles(t testing.TB, want int) {
	t.Helper()
	n := 0
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if n = s.files(t); n == want {
			return
		}
	}
	t.Errorf("the monitor had %d files, and has %d", want, n)
}
