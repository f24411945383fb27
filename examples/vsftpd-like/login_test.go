//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestWrongPassword: three tries, whether the client waits for the answers or
// not, and whatever it sends behind them.
func TestWrongPassword(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	t.Run("one by one", func(t *testing.T) {
		c := connect(t, s.address[0], "")
		for range 3 {
			c.say(t, "USER alice", "331")
			c.say(t, "PASS wrong", "530")
		}
		if err := c.expect("421"); err != nil {
			t.Error(err)
		}
		c.send("USER alice\r\nPASS " + password)
		if err := c.ended(); err != nil {
			t.Error(err)
		}
		if got := s.logged("login failed", "user=alice", c.LocalAddr().String()); got != 3 {
			t.Errorf("the monitor was asked %d times, want 3", got)
		}
	})
	t.Run("at once", func(t *testing.T) {
		c := connect(t, s.address[0], "")
		c.send(strings.Repeat("USER alice\r\nPASS wrong\r\n", 5) + "USER alice\r\nPASS " + password)
		for _, want := range []string{"331", "530", "331", "530", "331", "530", "421"} {
			if err := c.expect(want); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.ended(); err != nil {
			t.Error(err)
		}
		if got := s.logged("login failed", "user=alice", c.LocalAddr().String()); got != 3 {
			t.Errorf("the monitor was asked %d times, want 3", got)
		}
	})
	t.Run("right at last", func(t *testing.T) {
		c := connect(t, s.address[0], "")
		for range 2 {
			c.say(t, "USER alice", "331")
			c.say(t, "PASS wrong", "530")
		}
		if err := c.login("alice"); err != nil {
			t.Error(err)
		}
	})
	if n := s.logged("msg=login ", "user=alice"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// TestRefusedAccounts: their password is right, and the client can't tell why
// it is not enough.
func TestRefusedAccounts(t *testing.T) {
	t.Parallel()
	s := startSite(t, map[string]string{"anonymous": "no", "anonymous_root": "", "anonymous_user": ""})
	refused := map[string]string{
		"locked":     "locked",
		"nopassword": "locked",
		"noshell":    "shell",
		"toor":       "uid",
		"wheel":      "group",
		"daemonic":   "uid",
		"nobodys":    "uid",
		"rooted":     "home",
		"root":       "uid",
		"mallory":    "no such user",
		"anonymous":  "no such user",
		"ALICE":      "no such user",
	}
	sessions := make(map[string]*control)
	for user := range refused { // all at once: each refusal takes a second
		sessions[user] = connect(t, s.address[0], "")
		sessions[user].send("USER " + user + "\r\nPASS " + password + "\r\nLIST")
	}
	for user, c := range sessions {
		for _, want := range []string{"331 ", "530 Login incorrect.", "530 "} {
			if err := c.expect(want); err != nil {
				t.Errorf("%s: %v", user, err)
			}
		}
		if s.logged("login failed", "user="+user+" ", refused[user]) != 1 {
			t.Errorf("%s: the log has not the reason, %q", user, refused[user])
		}
	}
	c := connect(t, s.address[0], "")
	c.say(t, "USER alice", "331")
	c.say(t, "PASS "+password, "230") // the control
}

// TestNoLogin: nothing but logging in before the login.
func TestNoLogin(t *testing.T) {
	s := startSite(t, nil)
	c := connect(t, s.address[0], "")
	for _, line := range []string{"PASV", "EPSV", "PORT 127,0,0,1,200,200", "LIST", "RETR f", "STOR f", "CWD /", "PWD", "MKD d", "SIZE f", "REST 1"} {
		c.say(t, line, "530")
	}
	c.say(t, "PASS x", "503")
	c.say(t, "USER ../../etc", "331")
	c.say(t, "PASS x", "530")
}

func TestAnonymousReadsOnly(t *testing.T) {
	s := startSite(t, nil)
	// Files could be changed by anybody, were it not for the server.
	for name, mode := range map[string]os.FileMode{"f": 0o666, "d": 0o777} {
		path := s.anon + "/" + name
		if mode == 0o777 {
			os.Mkdir(path, mode)
		} else if err := os.WriteFile(path, []byte("content"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(s.anon, 0o777)
	for _, user := range []string{"anonymous", "ftp", "FTP"} {
		c := login(t, s.address[0], user)
		if got, err := c.get("RETR f"); string(got) != "content" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		for _, line := range []string{"DELE f", "MKD new", "RMD d", "RNTO x"} {
			if line == "RNTO x" {
				c.say(t, "RNFR f", "") // it may say so here or there
				c.say(t, line, "5")
				continue
			}
			c.say(t, line, "550")
		}
		for _, line := range []string{"STOR f", "STOR d/new", "APPE f", "STOU"} {
			if _, err := c.passive(); err != nil {
				t.Fatal(err)
			}
			c.say(t, line, "55")
		}
		for line := range strings.Lines(mustGet(t, c, "MLSD")) {
			if strings.Contains(line, "perm=") && strings.ContainsAny(strings.Split(strings.SplitAfter(line, "perm=")[1], ";")[0], "acdfmpw") {
				t.Errorf("the listing promises what isn't allowed: %s", line)
			}
		}
	}
	if b, err := os.ReadFile(s.anon + "/f"); string(b) != "content" || err != nil {
		t.Errorf("f: %q, %v", b, err)
	}
	entries, _ := os.ReadDir(s.anon)
	if len(entries) != 2 {
		t.Errorf("left: %v", entries)
	}
}

func mustGet(t testing.TB, c *control, line string) string {
	t.Helper()
	b, err := c.get(line)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return string(b)
}

// TestLocalWrite: what a user makes is the user's, with the umask.
func TestLocalWrite(t *testing.T) {
	s := startSite(t, map[string]string{"umask": "027"})
	c := login(t, s.address[0], "alice")
	if err := c.put("STOR f", []byte("content")); err != nil {
		t.Fatal(err)
	}
	c.say(t, "MKD d", "257")
	for name, want := range map[string]os.FileMode{"f": 0o640, "d": os.ModeDir | 0o750} {
		info, err := os.Stat(s.alice + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		if got := info.Mode(); got != want || stat.Uid != aliceID || stat.Gid != aliceID {
			t.Errorf("%s: got %v of %d:%d, want %v of %d", name, got, stat.Uid, stat.Gid, want, aliceID)
		}
	}
	c.say(t, "RNFR f", "350")
	c.say(t, "RNTO d/g", "250")
	c.say(t, "DELE d/g", "250")
	c.say(t, "RMD d", "250")
	// Nothing of others, whatever the path.
	for _, path := range []string{"/../bob", "../bob", s.dir + "/bob", "/etc/passwd", "/proc/self/status"} {
		c.say(t, "CWD "+path, "550")
		c.say(t, "MLST "+path, "550")
	}
}

// TestGroups: a local user has the groups of the system, but never root's.
func TestGroups(t *testing.T) {
	s := startSite(t, nil)
	for name, gid := range map[string]int{"shared": sharedGID, "roots": 0} {
		path := s.alice + "/" + name
		if err := os.WriteFile(path, []byte("content"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 0, gid); err != nil {
			t.Fatal(err)
		}
	}
	c := login(t, s.address[0], "alice")
	if got := mustGet(t, c, "RETR shared"); got != "content" {
		t.Errorf("got %q", got)
	}
	if _, err := c.passive(); err != nil {
		t.Fatal(err)
	}
	c.say(t, "RETR roots", "550")
}

// TestVirtualUsers: they are all one system user, each in a home, and may write
// if their line says so.
func TestVirtualUsers(t *testing.T) {
	t.Parallel()
	s := startSite(t, map[string]string{
		"virtual_users": "SITE/virtual_users",
		"virtual_user":  fmt.Sprintf("%d:%[1]d", virtualID),
		"local_users":   "",
		"local_write":   "",
	})
	vera := login(t, s.address[0], "vera")
	if err := vera.put("STOR f", []byte("content")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(s.dir + "/virtual/f")
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != virtualID {
		t.Errorf("uid %d, want %d", uid, virtualID)
	}
	vic := login(t, s.address[0], "vic")
	if got := mustGet(t, vic, "RETR f"); got != "content" {
		t.Errorf("got %q", got)
	}
	vic.say(t, "DELE f", "550")
	for _, user := range []string{"vera", "alice"} {
		c := connect(t, s.address[0], "")
		c.say(t, "USER "+user, "331")
		c.say(t, "PASS "+map[string]string{"vera": "wrong", "alice": password}[user], "530")
	}
}
