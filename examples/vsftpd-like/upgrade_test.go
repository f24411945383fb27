//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const failed = `msg="upgrade failed, this process goes on"`

// TestUpgrade: the new server takes over, and the sessions of the old one go
// on in it to their end; then it is gone. The service manager knows.
func TestUpgrade(t *testing.T) {
	s := startUpgradeSite(t, map[string]string{"banner": "before", "metrics_socket": "SITE/metrics"})
	scrape(t, s.dir+"/metrics")
	old := login(t, s.address[0], "alice")
	data := slowly(t, s.site, old)
	s.edit(t, map[string]string{"banner": "after"})
	s.install(t)
	s.upgrade(t)
	s.told(t, "MAINPID=")
	s.awaitServers(t, 2)
	scrape(t, s.dir+"/metrics")
	for _, address := range s.address {
		if got := greeting(t, address); got != "220 after" {
			t.Errorf("greeting at %s: %q", address, got)
		}
	}
	if n, err := io.Copy(io.Discard, data); n != big || err != nil {
		t.Errorf("the transfer: %d bytes, %v", n, err)
	}
	if err := old.expect("226"); err != nil {
		t.Error(err)
	}
	if err := old.put("STOR x", []byte("x")); err != nil {
		t.Error(err)
	}
	old.say(t, "QUIT", "221")
	s.awaitServers(t, 1)
	scrape(t, s.dir+"/metrics")
	fresh := login(t, s.address[1], "alice")
	// And the new one can what the old one could.
	s.edit(t, map[string]string{"banner": "later"})
	s.hangUp(t, reloaded)
	s.told(t, "RELOADING=1\nMONOTONIC_USEC=")
	s.told(t, "READY=1")
	s.told(t, "WATCHDOG=1")
	s.upgrade(t)
	if got := greeting(t, s.address[0]); got != "220 later" {
		t.Errorf("greeting: %q", got)
	}
	fresh.say(t, "QUIT", "221")
	s.awaitServers(t, 1)
	s.stop(t)
	s.told(t, "STOPPING=1")
}

// TestFailedUpgrade: whatever a new binary does, short of serving, the old one
// goes on and says why. Nothing of the other is left.
func TestFailedUpgrade(t *testing.T) {
	s := startUpgradeSite(t, map[string]string{"banner": "before", "upgrade_timeout": "2s"})
	old := login(t, s.address[0], "alice")
	data := slowly(t, s.site, old)
	script := func(text string) func() {
		return func() { s.installScript(t, "#!/bin/sh\n"+text+"\n", 0o755) }
	}
	for _, c := range []struct {
		name  string
		spoil func()
		want  string
	}{
		{"is gone", func() { os.Remove(s.program) }, "no such file"},
		{"may not be executed", func() { s.installScript(t, "#!/bin/sh\n", 0o644) }, "permission denied"},
		{"is no program", func() { s.installScript(t, "garbage", 0o755) }, "exec format error"},
		{"ends", script("exit 0"), "did not come to serve"},
		{"fails", script("exit 3"), "failed with status 3"},
		{"crashes", script("kill -SEGV $$"), "crashed by signal 11"},
		{"hangs", script("exec sleep 1000"), "deadline exceeded"},
		{"hangs and can't be asked to end", script("trap '' TERM INT HUP; while :; do :; done"), "deadline exceeded"},
		{"sends what it may not", script("exec cat /etc/passwd >&3"), "did not come to serve"},
		{"likes no configuration", func() {
			s.install(t)
			s.edit(t, map[string]string{"bannner": "x"})
		}, "failed with status 1"},
		{"is killed", func() {
			s.edit(t, map[string]string{"bannner": ""})
			s.installScript(t, "#!/bin/sh\nkill -KILL $$\n", 0o755)
		}, "crashed by signal 9"},
	} {
		c.spoil()
		n := s.logged(failed)
		s.signal(t, syscall.SIGUSR2)
		s.awaitLog(t, n+1, failed)
		if s.logged(failed, c.want) == 0 {
			t.Errorf("a binary that %s: the log doesn't say %q", c.name, c.want)
		}
		if got := greeting(t, s.address[0]); got != "220 before" {
			t.Errorf("a binary that %s: greeting: %q", c.name, got)
		}
		s.awaitServers(t, 1)
	}
	// The control: what was wrong was the binary.
	s.edit(t, map[string]string{"banner": "after", "bannner": ""})
	s.install(t)
	s.upgrade(t)
	if got := greeting(t, s.address[0]); got != "220 after" {
		t.Errorf("greeting: %q", got)
	}
	if n, err := io.Copy(io.Discard, data); n != big || err != nil {
		t.Errorf("the transfer: %d bytes, %v", n, err)
	}
	if err := old.expect("226"); err != nil {
		t.Error(err)
	}
}

// TestUpgradeTwice: signals that come while one is obeyed. Two to upgrade are
// one, or two, upgrades; one to reload is not lost.
func TestUpgradeTwice(t *testing.T) {
	s := startUpgradeSite(t, map[string]string{"banner": "before"})
	held := login(t, s.address[0], "alice")
	first := s.servers()[0]
	for range 5 {
		syscall.Kill(first, syscall.SIGUSR2)
	}
	s.edit(t, map[string]string{"banner": "after"})
	for range 3 {
		syscall.Kill(first, syscall.SIGHUP)
	}
	s.awaitLog(t, 1, `msg="replaced;`)
	// Whichever order they were obeyed in, the last configuration holds.
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got := greeting(t, s.address[0])
		if got == "220 after" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("greeting: %q", got)
		}
	}
	// To the one that was replaced, signals say nothing any more.
	for _, sig := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGHUP} {
		syscall.Kill(first, sig)
	}
	time.Sleep(100 * time.Millisecond)
	held.say(t, "NOOP", "200")
	s.awaitServers(t, 2)
	held.say(t, "QUIT", "221")
	s.awaitServers(t, 1)
	if n := s.logged(`msg="replaced;`); n != 1 {
		t.Errorf("%d upgrades", n)
	}
}

// TestSocketActivation: the manager's socket is what clients come in by, also
// after a reload and an upgrade.
func TestSocketActivation(t *testing.T) {
	address := freePorts(t, 1)[0]
	s := startUpgradeSite(t, map[string]string{"banner": "before", "listen": "127.0.0.1:1"}, "TEST_LISTEN="+address)
	if s.address[0] != address {
		t.Fatalf("it listens on %v", s.address)
	}
	if got := greeting(t, address); got != "220 before" {
		t.Errorf("greeting: %q", got)
	}
	s.edit(t, map[string]string{"banner": "between"})
	s.hangUp(t, reloaded)
	if got := greeting(t, address); got != "220 between" {
		t.Errorf("greeting: %q", got)
	}
	for _, banner := range []string{"after", "later"} {
		s.edit(t, map[string]string{"banner": banner})
		s.upgrade(t)
		if got := greeting(t, address); got != "220 "+banner {
			t.Errorf("greeting: %q", got)
		}
		s.awaitServers(t, 1)
	}
	// None of what it was told is in its environment, or in a worker's.
	all := s.servers()
	for _, pid := range all {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"LISTEN_", "WATCHDOG_PID"} {
			if strings.Contains(string(env), name) {
				t.Errorf("environment of the successor: %q", env)
			}
		}
	}
}

// TestUpgradeKeepsPenalties: who has to pay in one process has to in the next.
func TestUpgradeKeepsPenalties(t *testing.T) {
	s := startUpgradeSite(t, map[string]string{"penalties": "", "spares": "0"})
	guess(t, s.address[0], "127.0.0.31", "a b c", "d e")
	s.turnedAway(t, s.address[0], "127.0.0.31")
	for range 2 {
		s.upgrade(t)
		s.awaitServers(t, 1)
		s.turnedAway(t, s.address[0], "127.0.0.31")
		connect(t, s.address[0], "127.0.0.32").say(t, "QUIT", "221")
	}
}
