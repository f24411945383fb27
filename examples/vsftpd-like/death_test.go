//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestMonitorKilled: with the monitor all of its workers go, at once, whatever
// they were doing.
func TestMonitorKilled(t *testing.T) {
	s := startSite(t, nil)
	down, up := login(t, s.address[0], "alice"), login(t, s.address[1], "bob")
	slowly(t, s, down)
	data, err := up.begin("STOR f")
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	connect(t, s.address[0], "") // and one that has not logged in
	s.settled(t, map[string]int{"session": 5, "files": 2})
	workers := append(s.workers(), s.launcher())
	began := time.Now()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	left := waitGone(workers, 5*time.Second)
	took := time.Since(began)
	<-s.done
	t.Logf("%d workers were gone after %v", len(workers), took)
	if len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	for _, c := range []*control{down, up} {
		if _, err := c.reply(); err == nil {
			t.Error("the client was told something")
		}
	}
}

// TestLauncherKilled: without its launcher a server has no worker and can start
// none. It says so and ends, so that a service manager starts it again.
func TestLauncherKilled(t *testing.T) {
	s := startSite(t, map[string]string{"spares": "0"})
	c := login(t, s.address[0], "alice")
	slowly(t, s, c)
	workers := s.workers()
	if err := killWorker(s.launcher()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		t.Fatal("the server goes on")
	}
	if left := waitGone(workers, 5*time.Second); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if want := "vsftpd-like: the launcher ended unasked"; s.end.ExitCode() != 1 || s.logged(want, "signal 9") != 1 {
		t.Errorf("the server ended with %v, want 1 and %q", s.end, want)
	}
}

// newWorkers runs f and returns the workers that there are after it, and were
// not before, by role.
func newWorkers(t *testing.T, s *site, f func(), want map[string]int) map[string]worker {
	t.Helper()
	before := s.workers()
	f()
	s.settled(t, want)
	roles := make(map[string]worker)
	for _, w := range s.workers() {
		if !slices.Contains(before, w) {
			roles[w.role] = w
		}
	}
	return roles
}

// killWorker is not for the zero worker: its number means this process's group.
func killWorker(w worker) error {
	if w.pid == 0 {
		return syscall.ESRCH
	}
	return syscall.Kill(w.pid, syscall.SIGKILL)
}

// TestWorkerKilled: a worker's death ends its session, with all of its workers,
// and no other.
func TestWorkerKilled(t *testing.T) {
	s := startSite(t, map[string]string{"spares": "0"})
	var other *control
	newWorkers(t, s, func() { other = login(t, s.address[0], "alice") }, map[string]int{"session": 1, "files": 1})
	data := slowly(t, s, other)
	for _, role := range []string{"session", "files"} {
		var victim *control
		workers := newWorkers(t, s, func() { victim = login(t, s.address[0], "bob") }, map[string]int{"session": 2, "files": 2})
		if err := killWorker(workers[role]); err != nil {
			t.Fatal(err)
		}
		if left := waitGone([]worker{workers["session"], workers["files"]}, 2*time.Second); len(left) > 0 {
			t.Errorf("%s killed: left are %v", role, left)
		}
		if got, err := victim.reply(); err == nil {
			t.Errorf("%s killed: the client got %q", role, got)
		}
		if s.logged("session ended", fmt.Sprintf("peer=%v", victim.LocalAddr())) != 1 {
			t.Errorf("%s killed: the log doesn't tell", role)
		}
	}
	if n, err := io.Copy(io.Discard, data); n != big || err != nil {
		t.Errorf("the other session's transfer: %d bytes, %v", n, err)
	}
	if err := other.expect("226"); err != nil {
		t.Error(err)
	}
	s.settled(t, map[string]int{"session": 1, "files": 1})
}

// TestLoginTimeout: who has not logged in in time is gone, even if its worker
// doesn't run any more; who has may stay.
func TestLoginTimeout(t *testing.T) {
	s := startSite(t, map[string]string{"login_timeout": "2s", "spares": "0"})
	in := connect(t, s.address[0], "")
	if err := in.login("ftp"); err != nil {
		t.Fatal(err)
	}
	s.settled(t, map[string]int{"session": 1, "files": 1})
	began := time.Now()
	stopped := newWorkers(t, s, func() { connect(t, s.address[0], "") }, map[string]int{"session": 2, "files": 1})
	silent := connect(t, s.address[0], "")
	if stopped["session"].pid == 0 {
		t.Fatal("no new session worker")
	}
	if err := syscall.Kill(stopped["session"].pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if got, err := silent.reply(); err == nil {
		t.Logf("the silent client got %q", got)
	}
	if took := time.Since(began); took < time.Second || took > 10*time.Second {
		t.Errorf("after %v", took)
	}
	s.settled(t, map[string]int{"session": 1, "files": 1})
	in.say(t, "NOOP", "200")
}

// TestShutdown: SIGTERM tells the clients and leaves nothing (see stop).
func TestShutdown(t *testing.T) {
	s := startSite(t, nil)
	c := login(t, s.address[0], "alice")
	data := slowly(t, s, c)
	s.stop(t)
	if n, _ := io.Copy(io.Discard, data); n == big {
		t.Error("the transfer was complete")
	}
	if got, err := c.reply(); err == nil {
		t.Logf("the client got %q", got)
	}
}
