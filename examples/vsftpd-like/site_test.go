//go:build linux

package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// Users of every site. The password of all that have one is password.
const (
	password   = "correct horse"
	secretHash = "$y$j9T$sallyporttestsalt01$L51TNz7qWhc5jtrn/PlokK6rQ2MnL8OtU56l5k0W1NA" // yescrypt, as Debian's
	aliceID    = 59001
	bobID      = 59002
	sharedGID  = 59010 // both are in it
	virtualID  = 59020
	anyoneID   = 59031
)

// A site is a running server with users and files of its own.
type site struct {
	*daemon
	dir     string
	alice   string // home of alice, a local user; bob has another
	anon    string // what anonymous sees
	address []string
}

// startSite starts the server as root, with the defaults of this test, then
// settings: keys of the configuration. An empty value leaves a key out, SITE in
// one is the site's directory.
func startSite(t *testing.T, settings map[string]string, prepare ...func(dir string) error) *site {
	t.Helper()
	s := layOut(t, settings)
	for _, p := range prepare {
		if err := p(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{stageName, s.dir, binary(t), "-v", "-config", s.dir + "/conf"}
	n := strings.Count(settings["listen"], ",") + 1
	if settings["listen"] == "" {
		n, args = 2, append(args, "-listen", "127.0.0.1:0", "-listen", "[::1]:0")
	}
	s.daemon = startDaemon(t, s.dir, nil, args...)
	s.address = s.listening(t, n)
	return s
}

// layOut makes the users and files of a site, and no server.
func layOut(t *testing.T, settings map[string]string) *site {
	t.Helper()
	testenv.NeedRoot(t)
	dir := siteDir(t)
	s := &site{dir: dir, alice: filepath.Join(dir, "alice"), anon: filepath.Join(dir, "anon")}
	low := 20000 + 100*rand.IntN(100) // below the ports that clients get
	all := map[string]string{
		"anonymous":      "yes",
		"anonymous_root": s.anon,
		"local_users":    "yes",
		"local_write":    "yes",
		"passive_ports":  fmt.Sprintf("%d-%d", low, low+1999),
		"spares":         "2",
		"penalties":      "no", // else one test's attacker keeps the next one's client out
		"umask":          "022",
		"anonymous_user": fmt.Sprintf("%d:%[1]d", anyoneID),
	}
	maps.Copy(all, settings)
	var config strings.Builder
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if all[key] != "" {
			fmt.Fprintf(&config, "%s = %s\n", key, strings.ReplaceAll(all[key], "SITE", dir))
		}
	}
	write := func(name, text string, mode os.FileMode) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode))
	}
	home := func(name string, id int) error {
		path := filepath.Join(dir, name)
		return errors.Join(os.Mkdir(path, 0o755), os.Chown(path, id, id))
	}
	passwd, shadow := "root:x:0:0:root:/root:/bin/sh\n", "root:*:20000:0:99999:7:::\n"
	for _, u := range []struct {
		name, ids, home, shell, hash string
	}{
		{"alice", fmt.Sprintf("%d:%[1]d", aliceID), s.alice, "/bin/sh", secretHash},
		{"bob", fmt.Sprintf("%d:%[1]d", bobID), dir + "/bob", "/bin/sh", secretHash},
		{"locked", "59003:59003", s.alice, "/bin/sh", "!" + secretHash},
		{"nopassword", "59004:59004", s.alice, "/bin/sh", ""},
		{"noshell", "59005:59005", s.alice, "/usr/sbin/nologin", secretHash},
		{"toor", "0:59006", s.alice, "/bin/sh", secretHash},
		{"wheel", "59007:0", s.alice, "/bin/sh", secretHash},
		{"daemonic", "500:500", s.alice, "/bin/sh", secretHash},
		{"nobodys", "65534:59008", s.alice, "/bin/sh", secretHash},
		{"rooted", "59009:59009", "/", "/bin/sh", secretHash},
	} {
		passwd += fmt.Sprintf("%s:x:%s::%s:%s\n", u.name, u.ids, u.home, u.shell)
		shadow += fmt.Sprintf("%s:%s:20000:0:99999:7:::\n", u.name, u.hash)
	}
	if err := errors.Join(
		home("alice", aliceID), home("bob", bobID), home("anon", 0), home("virtual", virtualID),
		write("passwd", passwd, 0o644),
		write("shadow", shadow, 0o600),
		write("group", fmt.Sprintf("root:x:0:alice\nshared:x:%d:alice,bob\n", sharedGID), 0o644),
		write("shells", "/bin/sh\n", 0o644),
		write("virtual_users", fmt.Sprintf("vera:%s:%[2]s/virtual:rw\nvic:%[1]s:%[2]s/virtual\n", secretHash, dir), 0o600),
		write("conf", config.String(), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return s
}

// siteDir is a directory on tmpfs, if there is room, that other users can
// enter, as those of testing can't be.
func siteDir(t testing.TB) string {
	t.Helper()
	parent := "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(parent, &fs); err != nil || int64(fs.Bavail)*fs.Bsize < 4<<30 {
		parent = ""
	}
	dir, err := os.MkdirTemp(parent, "vsftpd-like-site-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A daemon is a server's process: the monitor.
type daemon struct {
	*os.Process
	log  string        // a file: all that it wrote
	done chan struct{} // closed when it has been waited for; then:
	end  *os.ProcessState
}

// startDaemon starts the binary, as another user if there is one, or the stage
// that becomes it. It is ended with the test, and with the test's process,
// whatever that dies of: the kernel ties the death signal to a thread
// (prctl(2)), so this one lives as long as the daemon.
func startDaemon(t *testing.T, dir string, as *syscall.Credential, args ...string) *daemon {
	t.Helper()
	path, unshare := args[0], uintptr(0)
	switch path {
	case stageName:
		path, unshare = "/proc/self/exe", syscall.CLONE_NEWNS
	case initName:
		path, unshare = "/proc/self/exe", syscall.CLONE_NEWNS|syscall.CLONE_NEWPID
	}
	d := &daemon{log: filepath.Join(t.TempDir(), "log"), done: make(chan struct{})}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		p, err := os.StartProcess(path, args, &os.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/usr/bin:/bin", "TMPDIR=" + dir},
			Files: []*os.File{null, log, log},
			Sys:   &syscall.SysProcAttr{Cloneflags: unshare, Credential: as, Pdeathsig: syscall.SIGKILL},
		})
		d.Process = p
		started <- err
		if err == nil {
			d.end, _ = p.Wait()
			close(d.done)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.stop(t)
		if t.Failed() {
			t.Logf("the server's output:\n%s", d.output())
		}
	})
	return d
}

// listening waits until the daemon says that it listens, n times.
func (d *daemon) listening(t testing.TB, n int) (addresses []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		addresses = addresses[:0]
		for line := range strings.Lines(d.output()) {
			if a, ok := strings.CutPrefix(line, "listening on "); ok && strings.HasSuffix(a, "\n") {
				addresses = append(addresses, strings.TrimSpace(a))
			}
		}
		if len(addresses) == n {
			return addresses
		}
		select {
		case <-d.done:
			t.Fatalf("the server ended: %v\n%s", d.end, d.output())
		default:
		}
	}
	t.Fatalf("the server doesn't listen:\n%s", d.output())
	return nil
}

func (d *daemon) output() string {
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// logged counts the lines of the log that have all of words in them.
func (d *daemon) logged(words ...string) (n int) {
	for line := range strings.Lines(d.output()) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	return n
}

// stop ends the daemon as an operator does. It must leave no process.
func (d *daemon) stop(t testing.TB) {
	select {
	case <-d.done:
		return
	default:
	}
	workers := append(d.workers(), childrenOf(d.Pid)...)
	d.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		if !d.end.Success() {
			t.Errorf("the server ended with %v", d.end)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server doesn't end on SIGTERM")
		d.Kill()
		<-d.done
	}
	if left := waitGone(workers, time.Second); len(left) > 0 {
		t.Errorf("the server left processes behind: %v", left)
		for _, w := range left {
			syscall.Kill(w.pid, syscall.SIGKILL)
		}
	}
}

// A worker is a process below a daemon, as it was when it was seen.
type worker struct {
	pid   int
	role  string
	start string // when it started: with the pid unique
}

func (w worker) String() string { return fmt.Sprintf("%d (%s)", w.pid, w.role) }

// workers are the live children of the daemon's launcher, but for keepers.
func (d *daemon) workers() []worker {
	return slices.DeleteFunc(d.children(), func(w worker) bool { return w.role == "accounts" || w.role == "keys" })
}

// keeper is the process of a role that there is once.
func (d *daemon) keeper(t testing.TB, role string) int {
	t.Helper()
	for _, w := range d.children() {
		if w.role == role {
			return w.pid
		}
	}
	t.Fatalf("no process has the role %s", role)
	return 0
}

func (d *daemon) children() []worker { return childrenOf(d.launcher().pid) }

// launcher is the daemon's child that has its workers; it has no pid once it is
// gone.
func (d *daemon) launcher() worker {
	for _, child := range childrenOf(d.Pid) {
		if child.role == "launcher" {
			return child
		}
	}
	return worker{}
}

func childrenOf(parent int) (all []worker) {
	if parent == 0 {
		return nil // those of a launcher that is gone
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat := statOf(pid)
		if len(stat) < 20 || stat[0] == "Z" || stat[1] != strconv.Itoa(parent) {
			continue
		}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		_, role, _ := strings.Cut(name, ": ")
		if role == "upgrader" {
			continue // no worker: it serves nobody
		}
		all = append(all, worker{pid, role, stat[19]})
	}
	return all
}

// statOf are the fields of /proc/PID/stat behind the name: state, parent, ...
func statOf(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
}

// gone reports whether the process has ended. One that nobody has waited for
// yet has.
func (w worker) gone() bool {
	stat := statOf(w.pid)
	return len(stat) < 20 || stat[0] == "Z" || stat[0] == "X" || stat[19] != w.start
}

// waitGone waits until workers have ended and returns those that have not.
func waitGone(workers []worker, limit time.Duration) []worker {
	left := slices.Clone(workers)
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		left = slices.DeleteFunc(left, worker.gone)
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
	}
}

// settled waits until as many workers of each role are left as want says, which
// are the spares, all of them confined, and then returns.
func (d *daemon) settled(t testing.TB, want map[string]int) {
	t.Helper()
	var got map[string]int
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		got = make(map[string]int)
		for _, w := range d.workers() {
			got[w.role]++
			if statusOf(fmt.Sprint("/proc/", w.pid))["Seccomp"] != "2" {
				got["on the way"]++
			}
		}
		if maps.Equal(got, want) {
			return
		}
	}
	t.Errorf("workers: got %v, want %v", got, want)
}

// files is how many descriptors the monitor has.
func (d *daemon) files(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
