//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
)

// holds reports whether a process has what anywhere in its memory that can be
// written.
func holds(t testing.TB, pid int, what []byte) bool {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	read := 0
	const piece = 1 << 20
	b := make([]byte, piece+len(what))
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil || !strings.HasPrefix(mode, "rw") {
			continue
		}
		// In pieces that overlap: what is reserved only can't be read.
		for at := from; at < to; at += piece {
			n, _ := mem.ReadAt(b[:min(int64(len(b)), to-at)], at)
			read += n
			if bytes.Contains(b[:n], what) {
				return true
			}
		}
	}
	if read < 1<<20 {
		t.Fatalf("only %d bytes of process %d could be read", read, pid)
	}
	return false
}

// The hashes of the password file are in the memory of the one process that
// verifies passwords, also after a login, and in no other.
func TestOnlyTheKeeperHasHashes(t *testing.T) {
	s := startSite(t, nil)
	login(t, s.address[0], "alice")
	canary := []byte(secretHash[strings.LastIndex(secretHash, "$")+1:][:30])
	if !holds(t, s.keeper(t, "accounts"), canary) {
		t.Error("control: the keeper does not hold the hash; this test proves nothing")
	}
	if holds(t, s.Pid, canary) {
		t.Error("the monitor has the password file's content")
	}
	for _, w := range s.workers() {
		if holds(t, w.pid, canary) {
			t.Errorf("a %s worker has the password file's content", w.role)
		}
	}
}

// A file that is replaced, as passwd(1) and vipw(8) do, is another from the next
// login on, also behind a directory that was replaced.
func TestAccountFilesReplaced(t *testing.T) {
	t.Parallel()
	s := startSite(t, map[string]string{
		"virtual_users": "SITE/users/file", "virtual_user": fmt.Sprintf("%d:%[1]d", virtualID),
		"local_users": "", "local_write": "",
	}, func(dir string) error {
		return errors.Join(os.Mkdir(dir+"/users", 0o755), os.WriteFile(dir+"/users/file", usersFile(dir, "vera"), 0o600))
	})
	try := func(name, want string) {
		t.Helper()
		c := connect(t, s.address[0], "")
		c.say(t, "USER "+name, "331")
		c.say(t, "PASS "+password, want)
	}
	try("vera", "230")
	path := filepath.Join(s.dir, "users", "file")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(path+"+", usersFile(s.dir, "vic"), 0o600))
	must(os.Rename(path+"+", path))
	try("vera", "530")
	try("vic", "230")
	must(os.WriteFile(path, usersFile(s.dir, "zoe"), 0o600))
	try("vic", "530")
	try("zoe", "230")
	must(os.Mkdir(s.dir+"/next", 0o755))
	must(os.WriteFile(s.dir+"/next/file", usersFile(s.dir, "dora"), 0o600))
	must(os.Rename(s.dir+"/users", s.dir+"/before"))
	must(os.Rename(s.dir+"/next", s.dir+"/users"))
	try("zoe", "530")
	try("dora", "230")
	// A broken file lets nobody in, and says why in the log.
	must(os.WriteFile(path, []byte("dora:nonsense\n"), 0o600))
	try("dora", "530")
	if s.logged("users/file:1: 2 fields") == 0 {
		t.Error("the log does not name the mistake")
	}
	must(os.WriteFile(path, usersFile(s.dir, "dora"), 0o600))
	try("dora", "230")
	// The keeper's death is nobody's but a login's that is under way.
	must(syscall.Kill(s.keeper(t, "accounts"), syscall.SIGKILL))
	try("dora", "230")
}

func usersFile(dir, name string) []byte {
	return fmt.Appendf(nil, "%s:%s:%s/virtual:rw\n", name, secretHash, dir)
}

// What a keeper says that was taken over: it may call a client any user that
// there could be, but nobody that an account can't be.
func TestHostileAccountsKeeper(t *testing.T) {
	c := config.Default()
	c.Anonymous, c.AnonymousRoot, c.LocalUsers, c.LocalWrite = true, "/srv/ftp", true, false
	c.VirtualUsers, c.VirtualUser = "/etc/ftp-users", config.Identity{UID: 2000, GID: 2001}
	settings := account.Settings{
		Anonymous: &account.Anonymous{Root: "/srv/ftp", UID: 65533, GID: 65533},
		Virtual:   &account.Virtual{UID: 2000, GID: 2001},
	}
	s := &server{instance: &instance{log: slog.New(slog.DiscardHandler)}, config: c, settings: settings}
	local := VerifyReply{Kind: localAccount, UID: 1000, GID: 1000, Groups: []uint32{5}, Home: "/home/alice", Writable: true}
	with := func(change func(*VerifyReply)) VerifyReply {
		r := local
		change(&r)
		return r
	}
	for name, r := range map[string]VerifyReply{
		"nobody":           {},
		"a refusal":        {Refused: "wrong password"},
		"no kind":          with(func(r *VerifyReply) { r.Kind = 0 }),
		"an unknown kind":  with(func(r *VerifyReply) { r.Kind = 4 }),
		"root":             with(func(r *VerifyReply) { r.UID = 0 }),
		"a system user":    with(func(r *VerifyReply) { r.UID = 999 }),
		"a worker":         with(func(r *VerifyReply) { r.UID = c.WorkerIDs.Last }),
		"uid -1":           with(func(r *VerifyReply) { r.UID = 1<<32 - 1 }),
		"group root":       with(func(r *VerifyReply) { r.GID = 0 }),
		"also group root":  with(func(r *VerifyReply) { r.Groups = []uint32{5, 0} }),
		"home is /":        with(func(r *VerifyReply) { r.Home = "/" }),
		"no home":          with(func(r *VerifyReply) { r.Home = "" }),
		"relative home":    with(func(r *VerifyReply) { r.Home = "home" }),
		"home that climbs": with(func(r *VerifyReply) { r.Home = "/home/../etc" }),
		"home with a NUL":  with(func(r *VerifyReply) { r.Home = "/home\x00" }),
	} {
		if who, err := s.identify("alice", &r); who != nil || err == nil {
			t.Errorf("%s: is %+v", name, who)
		}
	}
	who, err := s.identify("alice", &local)
	if err != nil || who.uid != 1000 || who.writable || who.anonymous || who.name != "alice" {
		t.Errorf("local: %+v, %v", who, err)
	}
	r := with(func(r *VerifyReply) { r.Kind, r.UID, r.GID = virtualAccount, 0, 0 })
	if who, err = s.identify("vera", &r); err != nil || who.uid != 2000 || who.gid != 2001 || len(who.groups) != 0 || !who.writable {
		t.Errorf("virtual: %+v, %v", who, err)
	}
	r = with(func(r *VerifyReply) { r.Kind = anonymousAccount })
	if who, err = s.identify("ftp", &r); err != nil || who.uid != 65533 || who.home != "/srv/ftp" || who.writable || !who.anonymous {
		t.Errorf("anonymous: %+v, %v", who, err)
	}
	s.config.Anonymous, s.config.LocalUsers, s.settings.Virtual = false, false, nil
	for kind := range AccountKind(5) {
		r.Kind = kind
		if who, err := s.identify("alice", &r); who != nil || err == nil {
			t.Errorf("kind %d is %+v, though nobody of it may log in", kind, who)
		}
	}
}
