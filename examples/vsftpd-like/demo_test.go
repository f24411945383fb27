//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ordinary is a user who is not root: this one, or for root nobody.
func ordinary(t *testing.T) (dir string, as *syscall.Credential) {
	dir = siteDir(t)
	if os.Geteuid() == 0 {
		as = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	return dir, as
}

// demonstrate uses the demonstration as its output tells to, and returns that
// output.
func demonstrate(t *testing.T, dir string, as *syscall.Credential) string {
	d := startDaemon(t, dir, as, binary(t), "-listen", "127.0.0.1:0")
	address := d.listening(t, 1)[0]
	if !strings.Contains(d.output(), "try: curl ftp://"+address+"/\n") {
		t.Error("it doesn't say how to reach it")
	}
	curl := func(args ...string) *exec.Cmd { return program(t, dir, "curl", append([]string{"-sS"}, args...)...) }
	if got := mustRun(t, curl("ftp://"+address+"/")); !strings.Contains(got, "WELCOME.txt") || !strings.Contains(got, "pub") {
		t.Errorf("listing: %q", got)
	}
	if got := mustRun(t, curl("ftp://"+address+"/WELCOME.txt")); !strings.Contains(got, "This file came through") {
		t.Errorf("got %q", got)
	}
	if got := mustRun(t, curl("ftp://"+address+"/pub/one-mebibyte.bin")); len(got) != 1<<20 {
		t.Errorf("got %d bytes", len(got))
	}
	if out, err := curl("-T", "/etc/hostname", "ftp://"+address+"/new").CombinedOutput(); err == nil {
		t.Errorf("an upload was taken: %s", out)
	}
	// Whoever runs it, this much is in force for each thread.
	c := connect(t, address, "")
	if err := c.login("anonymous"); err != nil {
		t.Fatal(err)
	}
	d.settled(t, map[string]int{"session": 5, "files": 5}) // four of each are spares
	var open []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if open = unconfined(d); open == nil {
			break // until then the last spare may be closing its sandbox
		}
	}
	for _, what := range open {
		t.Error(what)
	}
	output := d.output()
	d.stop(t)
	if left, _ := filepath.Glob(dir + "/*demo*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, role := range []string{"monitor", "session", "files"} {
		if !strings.Contains(output, "\n"+role+": ") && !strings.HasPrefix(output, role+": ") {
			t.Errorf("the output doesn't tell what is in force for role %s", role)
		}
	}
	return output
}

// unconfined are the threads of workers that hold something.
func unconfined(d *daemon) (all []string) {
	for _, w := range d.workers() {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", w.pid))
		for _, task := range tasks {
			status, got := statusOf(task), ""
			for _, key := range []string{"CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp"} {
				got += status[key] + " "
			}
			if got != strings.Repeat("0000000000000000 ", 4)+"1 2 " {
				all = append(all, fmt.Sprintf("%v: %s: %s", w, task, got))
			}
		}
	}
	return all
}

func TestDemoAsOrdinaryUser(t *testing.T) {
	dir, as := ordinary(t)
	output := demonstrate(t, dir, as)
	for _, role := range []string{"session", "files", "accounts"} {
		if !strings.Contains(output, role+": MISSING on this host: identity") {
			t.Errorf("it doesn't name what role %s is missing", role)
		}
	}
	if n := strings.Count(output, "Seccomp 2"); n != 5 {
		t.Errorf("%d roles and processes with a filter, want 5", n)
	}
	if t.Failed() {
		t.Log(output)
	}
}

func TestDemoAsRoot(t *testing.T) {
	s := startSite(t, nil)                                       // the test needs what that needs
	if err := os.Chmod(s.dir, 0o777|os.ModeSticky); err != nil { // as /tmp, from which the monitor removes what it made
		t.Fatal(err)
	}
	if output := demonstrate(t, s.dir, nil); strings.Contains(output, "MISSING") {
		t.Errorf("something is missing:\n%s", output)
	}
}

// TestFailsClosed: an operator's server doesn't run without a layer.
func TestFailsClosed(t *testing.T) {
	dir, as := ordinary(t)
	config := filepath.Join(dir, "conf")
	if err := os.WriteFile(config, []byte("anonymous = yes\nanonymous_root = "+dir+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, dir, as, binary(t), "-config", config, "-listen", "127.0.0.1:0")
	<-d.done
	if got := d.output(); d.end.ExitCode() != 1 || !strings.Contains(got, "identity not supported here") || strings.Contains(got, "listening") {
		t.Errorf("%v: %s", d.end, got)
	}
}

// TestBadConfig: each mistake is named with its place, and nothing is served.
func TestBadConfig(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "conf")
	if err := os.WriteFile(config, []byte("# the site\nanonymous = yes\nanonymous_root = /srv\nanonymous_enable = yes\numask = 99\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, dir, nil, binary(t), "-config", config, "-listen", "127.0.0.1:0")
	<-d.done
	if got := d.output(); d.end.ExitCode() != 1 || !strings.Contains(got, config+":4:") || !strings.Contains(got, config+":5:") || strings.Contains(got, "listening") {
		t.Errorf("%v: %s", d.end, got)
	}
	for _, args := range [][]string{{"-config", dir + "/none"}, {"conf"}, {"-listen", "nowhere"}} {
		d := startDaemon(t, dir, nil, append([]string{binary(t)}, args...)...)
		<-d.done
		if got := d.output(); d.end.Success() || strings.Contains(got, "listening") || !strings.Contains(got, args[len(args)-1]) {
			t.Errorf("%v: %v: %s", args, d.end, got)
		}
	}
}
