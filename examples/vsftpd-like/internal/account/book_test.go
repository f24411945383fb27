package account

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/sandbox"
)

// system is a set of account files in a directory of its own.
type system struct{ dir string }

func (s system) write(t testing.TB, name, text string, perm os.FileMode) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
	return path
}

const today = 20_000 // days since 1970

func at(day int64) func() time.Time {
	return func() time.Time { return time.Unix(day*86400+3600, 0) }
}

func newSystem(t testing.TB) (system, Settings) {
	t.Helper()
	s := system{t.TempDir()}
	h := hashBcrypt
	local := &Local{
		Passwd: s.write(t, "passwd", `root:x:0:0:root:/root:/bin/bash
daemon:x:1:1::/usr/sbin:/usr/sbin/nologin
nobody:x:65534:65534::/nonexistent:/bin/bash
alice:x:1000:1000:Alice,,,:/home/alice:/bin/bash
bob:x:1001:1001::/home/bob:/usr/sbin/nologin
noshell:x:1002:1002::/home/noshell:
locked:x:1003:1003::/home/locked:/bin/bash
nopass:x:1004:1004::/home/nopass:/bin/bash
star:x:1005:1005::/home/star:/bin/bash
openpass:`+h+`:1006:1006::/home/openpass:/bin/bash
emptypass::1007:1007::/home/emptypass:/bin/bash
noshadow:x:1008:1008::/home/noshadow:/bin/bash
expired:x:1009:1009::/home/expired:/bin/bash
old:x:1010:1010::/home/old:/bin/bash
change:x:1011:1011::/home/change:/bin/bash
wheel:x:1012:0::/home/wheel:/bin/bash
relhome:x:1013:1013::home/relhome:/bin/bash
roothome:x:1014:1014::/:/bin/bash
md5:x:1015:1015::/home/md5:/bin/bash
agedok:x:1016:1016::/home/agedok:/bin/bash
`, 0o644),
		Shadow: s.write(t, "shadow", strings.ReplaceAll(`root:HASH:19000:0:99999:7:::
daemon:*:19000:0:99999:7:::
nobody:HASH:19000:0:99999:7:::
alice:HASH:19000:0:99999:7:::
bob:HASH:19000:0:99999:7:::
noshell:HASH:19000:0:99999:7:::
locked:!HASH:19000:0:99999:7:::
nopass::19000:0:99999:7:::
star:*:19000:0:99999:7:::
openpass:!:19000:0:99999:7:::
emptypass:HASH:19000:0:99999:7:::
expired:HASH:19000:0:99999:7::20000:
old:HASH:19000:0:90:7:::
change:HASH:0:0:99999:7:::
wheel:HASH:19000:0:99999:7:::
relhome:HASH:19000:0:99999:7:::
roothome:HASH:19000:0:99999:7:::
md5:`+hashMD5+`:19000:0:99999:7:::
agedok:HASH:19990:0:10:7:5:20001:
`, "HASH", h), 0o640),
		Group: s.write(t, "group", `root:x:0:alice
users:x:100:bob,alice
alice:x:1000:alice
audio:x:29:alice
audio2:x:29:alice
`, 0o644),
		Shells: s.write(t, "shells", "# list\n/bin/sh\n/bin/bash\n", 0o644),
		Write:  true,
	}
	virtual := &Virtual{File: s.write(t, "virtual", `# comment

v.ro@example.org:`+hashSHA256+`:/srv/ro
vrw:`+hashYescryptFast+`:/srv/rw:rw
`, 0o600), UID: 2000, GID: 2001}
	return s, Settings{Local: local, Virtual: virtual, Anonymous: &Anonymous{Root: "/srv/ftp", UID: 65533, GID: 65533}}
}

// openFiles opens what s names, as a worker's start does.
func openFiles(t testing.TB, s Settings) (*Book, error) {
	t.Helper()
	profile := sandbox.Profile{Open: s.Paths()}
	files, err := profile.OpenFirst()
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return Open(s, files)
}

func open(t testing.TB, s Settings) *Book {
	t.Helper()
	b, err := openFiles(t, s)
	if err != nil {
		t.Fatal(err)
	}
	b.now = at(today)
	return b
}

func TestAuthenticate(t *testing.T) {
	_, settings := newSystem(t)
	b := open(t, settings)
	in := inGoodStanding
	for _, c := range []struct {
		name, password string
		want           Reason
	}{
		{"alice", password, in},
		{"alice", "wrong", WrongPassword},
		{"alice", "", WrongPassword},
		{"alice", password + " ", WrongPassword},
		{"Alice", password, Unknown},
		{"noshell", password, in},
		{"agedok", password, in},
		{"vrw", password, in},
		{"v.ro@example.org", password, in},
		{"v.ro@example.org", "wrong", WrongPassword},
		{"anonymous", "guest@", in},
		{"ANONYMOUS", "", in},
		{"ftp", "", in},
		{"root", password, SystemAccount},
		{"daemon", password, SystemAccount},
		{"nobody", password, SystemAccount},
		{"bob", password, BadShell},
		{"locked", password, Locked},
		{"locked", "", Locked},
		{"nopass", "", Locked},
		{"star", "*", Locked},
		{"openpass", password, Locked},
		{"emptypass", "", Locked},
		{"emptypass", password, Locked},
		{"noshadow", password, Locked},
		{"noshadow", "x", Locked},
		{"expired", password, AccountExpired},
		{"expired", "wrong", WrongPassword},
		{"old", password, PasswordExpired},
		{"change", password, PasswordChangeDue},
		{"wheel", password, RootGroup},
		{"relhome", password, BadHome},
		{"roothome", password, BadHome},
		{"md5", password, UnsupportedHash},
		{"nosuch", password, Unknown},
		{"", password, Malformed},
		{"-x", password, Malformed},
		{"../alice", password, Malformed},
		{"alice\n", password, Malformed},
		{"alice\x00", password, Malformed},
		{strings.Repeat("a", MaxName+1), password, Malformed},
		{"alice", password + "\x00", Malformed},
		{"alice", strings.Repeat("a", MaxPassword+1), Malformed},
	} {
		a, err := b.Authenticate(t.Context(), c.name, c.password)
		if (a == nil) == (err == nil) {
			t.Errorf("%q %q: got %v and %v, want exactly one", c.name, c.password, a, err)
		}
		got := in
		if r := (*Refusal)(nil); errors.As(err, &r) {
			got = r.Reason
			if !errors.Is(err, syscall.EACCES) {
				t.Errorf("%q: refusal is not EACCES", c.name)
			}
		}
		if got != c.want {
			t.Errorf("%q %q: got %v, want %v", c.name, c.password, got, c.want)
		}
	}
}

func TestAccount(t *testing.T) {
	_, settings := newSystem(t)
	b := open(t, settings)
	type facts struct {
		Name             string
		UID, GID         uint32
		Groups           string
		Home             string
		Write, Anonymous bool
	}
	for _, want := range []facts{
		{"alice", 1000, 1000, "[29 100]", "/home/alice", true, false},
		{"vrw", 2000, 2001, "[]", "/srv/rw", true, false},
		{"v.ro@example.org", 2000, 2001, "[]", "/srv/ro", false, false},
		{"anonymous", 65533, 65533, "[]", "/srv/ftp", false, true},
	} {
		a, err := b.Authenticate(t.Context(), want.Name, password)
		if err != nil {
			t.Fatal(err)
		}
		got := facts{a.Name(), a.UID(), a.GID(), fmt.Sprint(a.Groups()), a.Home(), a.Writable(), a.Anonymous()}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if slices.Contains(a.Groups(), 0) {
			t.Errorf("%s is in root's group", want.Name)
		}
	}
}

// An account nobody proved must not pass for uid 0.
func TestZeroAccountPanics(t *testing.T) {
	for _, a := range []*Account{nil, {}} {
		func() {
			defer func() { _ = recover() }()
			t.Errorf("an unproved account has uid %d, want a panic", a.UID())
		}()
	}
}

func TestUserList(t *testing.T) {
	s, settings := newSystem(t)
	settings.UserList = s.write(t, "list", "alice\nftp # no\n", 0o644)
	if _, err := openFiles(t, settings); err == nil {
		t.Error("a list with a bad line is taken")
	}
	settings.UserList = s.write(t, "list", "alice\nftp\n", 0o644)
	for _, allow := range []bool{false, true} {
		settings.UserListAllow = allow
		b := open(t, settings)
		for name, listed := range map[string]bool{"alice": true, "vrw": false, "ftp": true, "anonymous": false} {
			_, err := b.Authenticate(t.Context(), name, password)
			if got := err == nil; got != (listed == allow) {
				t.Errorf("%s, allow %v: let in %v, want %v", name, allow, got, listed == allow)
			}
		}
	}
}

func TestOpenNamesTheMistake(t *testing.T) {
	type change func(t *testing.T, s system, set *Settings)
	file := func(name, text string, perm os.FileMode) change {
		return func(t *testing.T, s system, set *Settings) { s.write(t, name, text, perm) }
	}
	good := "a:" + hashBcrypt + ":/srv/a\n"
	for _, c := range []struct {
		name string
		do   change
		want string // in the error
	}{
		{"nobody at all", func(t *testing.T, s system, set *Settings) { *set = Settings{} }, "nobody may log in"},
		{"fields", file("virtual", good+"b:c\n", 0o600), "virtual:2: 2 fields: write name:hash:home"},
		{"rights", file("virtual", "a:"+hashBcrypt+":/srv/a:rwx\n", 0o600), "virtual:1"},
		{"hash", file("virtual", good+"\nb:secret:/srv/b\n", 0o600), "virtual:3: not a yescrypt"},
		{"cost", file("virtual", "b:$2b$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e:/srv/b\n", 0o600), "virtual:1: bcrypt cost"},
		{"relative home", file("virtual", "b:"+hashBcrypt+":srv/b\n", 0o600), "virtual:1: home"},
		{"dotted home", file("virtual", "b:"+hashBcrypt+":/srv/../etc\n", 0o600), "virtual:1: home"},
		{"root home", file("virtual", "b:"+hashBcrypt+":/\n", 0o600), "virtual:1: home"},
		{"bad name", file("virtual", "../b:"+hashBcrypt+":/srv/b\n", 0o600), "virtual:1"},
		{"twice", file("virtual", good+good, 0o600), "virtual:2: name occurs twice"},
		{"system user's name", file("virtual", "alice:"+hashBcrypt+":/srv/a\n", 0o600), "virtual:1: name occurs twice"},
		{"anonymous' name", file("virtual", "Anonymous:"+hashBcrypt+":/srv/a\n", 0o600), "virtual:1: the name means anonymous"},
		{"carriage return", file("virtual", "a:"+hashBcrypt+":/srv/a\r\n", 0o600), "virtual:1: NUL or carriage return"},
		{"long line", file("virtual", "a:"+strings.Repeat("a", maxLine)+":/srv/a\n", 0o600), "virtual:1: line is too long"},
		{"all may read", file("virtual", good, 0o604), "virtual: everybody may read"},
		{"group may write", file("virtual", good, 0o660), "virtual: others may write"},
		{"all may write passwd", file("passwd", "", 0o666), "passwd: others may write"},
		{"runs as root", func(t *testing.T, s system, set *Settings) { set.Virtual.UID = 0 }, "would run as 0:2001"},
		{"anonymous root", func(t *testing.T, s system, set *Settings) { set.Anonymous.UID = 0 }, "would run as 0:65533"},
		{"anonymous home", func(t *testing.T, s system, set *Settings) { set.Anonymous.Root = "/" }, "anonymous root"},
		{"uid text", file("passwd", "a:x:1000:1000::/h:/bin/sh\nb:x:root:1::/h:/bin/sh\n", 0o644), "passwd:2: uid"},
		{"uid sign", file("passwd", "b:x:-1:1::/h:/bin/sh\n", 0o644), "passwd:1: uid"},
		{"uid over 32 bits", file("passwd", "b:x:4294967296:1::/h:/bin/sh\n", 0o644), "passwd:1: uid"},
		{"uid missing", file("passwd", "b:x::1::/h:/bin/sh\n", 0o644), "passwd:1: uid"},
		{"passwd fields", file("passwd", "b:x:1000\n", 0o644), "passwd:1: not a passwd line"},
		{"nis", file("passwd", "+::::::\n", 0o644), "passwd:1: NIS"},
		{"passwd twice", file("passwd", "b:x:1000:1::/h:/bin/sh\nb:x:0:1::/h:/bin/sh\n", 0o644), "passwd:2: name occurs twice"},
		{"shadow fields", file("shadow", "alice:*\n", 0o600), "shadow:1: not a shadow line"},
		{"shadow days", file("shadow", "alice:*:x:0:99999:7:::\n", 0o600), "shadow:1: field 3"},
		{"shadow twice", file("shadow", "alice:*:1::::::\nalice:*:1::::::\n", 0o600), "shadow:2: name occurs twice"},
		{"shadow for all", file("shadow", "", 0o644), "shadow: everybody may read"},
		{"group fields", file("group", "users\n", 0o644), "group:1: not a group line"},
		{"group gid", file("group", "users:x:a:\n", 0o644), "group:1: gid"},
		{"missing", func(t *testing.T, s system, set *Settings) { os.Remove(set.Local.Shells) }, "shells: no such file"},
		{"directory", func(t *testing.T, s system, set *Settings) { set.Virtual.File = s.dir }, "not a regular file"},
		{"fifo", func(t *testing.T, s system, set *Settings) {
			os.Remove(set.Virtual.File)
			if err := syscall.Mkfifo(set.Virtual.File, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		{"huge", func(t *testing.T, s system, set *Settings) {
			if err := os.Truncate(set.Virtual.File, maxFile+1); err != nil {
				t.Fatal(err)
			}
		}, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, settings := newSystem(t)
			c.do(t, s, &settings)
			b, err := openFiles(t, settings)
			if err == nil || b != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v and %v, want no book and an error with %q", b, err, c.want)
			}
		})
	}
}

// Somebody who was removed, or whose password was changed, must not get in on
// what the files said before. This is how files are changed: written in place,
// by passwd(1), by vipw(8), which keeps the old one under another name, moved
// away, and removed.
func TestChangesAreSeen(t *testing.T) {
	entry := "new:" + hashBcrypt + ":/srv/new\n"
	for name, change := range map[string]func(s system) error{
		"in place": func(s system) error { s.write(t, "virtual", entry, 0o600); return nil },
		"same size": func(s system) error {
			return os.WriteFile(filepath.Join(s.dir, "virtual"), []byte("old"+entry[3:]), 0o600)
		},
		"renamed": func(s system) error {
			return os.Rename(s.write(t, "virtual+", entry, 0o600), filepath.Join(s.dir, "virtual"))
		},
		"linked": func(s system) error {
			at := filepath.Join(s.dir, "virtual")
			return errors.Join(os.Link(at, at+"-"), os.Rename(s.write(t, "virtual+", entry, 0o600), at))
		},
		"moved":   func(s system) error { return os.Rename(filepath.Join(s.dir, "virtual"), filepath.Join(s.dir, "away")) },
		"removed": func(s system) error { return os.Remove(filepath.Join(s.dir, "virtual")) },
		"mode":    func(s system) error { return os.Chmod(filepath.Join(s.dir, "virtual"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			s, settings := newSystem(t)
			s.write(t, "virtual", entry, 0o600)
			profile := sandbox.Profile{Open: settings.Paths()}
			files, err := profile.OpenFirst()
			if err != nil {
				t.Fatal(err)
			}
			seen, err := LookAt(files)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Open(settings, files); err != nil || seen.Changed() {
				t.Errorf("unchanged files look changed, or %v", err)
			}
			if err := change(s); err != nil {
				t.Fatal(err)
			}
			if !seen.Changed() {
				t.Error("the change is not seen")
			}
		})
	}
}

// All mistakes of all files are told at once.
func TestAllMistakes(t *testing.T) {
	s, settings := newSystem(t)
	s.write(t, "passwd", "b:x:-1:1::/h:/bin/sh\nc\n", 0o644)
	s.write(t, "shadow", "alice:*\n", 0o600)
	s.write(t, "virtual", strings.Repeat("a\n", 20), 0o600)
	_, err := openFiles(t, settings)
	if err == nil {
		t.Fatal("no mistake")
	}
	for _, want := range []string{"passwd:1: uid", "passwd:2: not a passwd line", "shadow:1: not a shadow", "virtual:1: 1 fields", "virtual:5:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
	if lines := strings.Count(err.Error(), "\n"); lines > 10 {
		t.Errorf("%d lines", lines)
	}
}

// cheapest is the processor time of the cheapest of three refused tries. What
// else runs on the machine adds to it, little, and not what it takes in all.
func cheapest(t *testing.T, b *Book, name string) time.Duration {
	used := func() time.Duration {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	best := time.Hour
	for range 3 {
		start := used()
		if _, err := b.Authenticate(t.Context(), name, "wrong"); err == nil {
			t.Fatal("let in")
		}
		best = min(best, used()-start)
	}
	return best
}

func TestUnknownNamesCostAsMuch(t *testing.T) {
	s := system{t.TempDir()}
	b := open(t, Settings{Virtual: &Virtual{File: s.write(t, "virtual", "known:"+hashYescrypt+":/srv/k\n", 0o600), UID: 2000, GID: 2000}})
	known, unknown := cheapest(t, b, "known"), cheapest(t, b, "unknown")
	if unknown < known/2 {
		t.Errorf("refusing an unknown name takes %v of processor time, a known one %v", unknown, known)
	}
	b.roll.secrets = nil // control: without the defence the difference shows
	if bare := cheapest(t, b, "unknown"); bare > known/2 {
		t.Errorf("control: an unknown name took %v of a known one's %v without a decoy; this test proves nothing", bare, known)
	}
}

func TestFewAtOnceAndInTurn(t *testing.T) {
	s := system{t.TempDir()}
	b := open(t, Settings{Concurrent: 1, Virtual: &Virtual{File: s.write(t, "virtual", "known:"+hashYescryptFast+":/srv/k\n", 0o600), UID: 2000, GID: 2000}})
	b.turns <- struct{}{} // somebody's check is running
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	for _, name := range []string{"known", "unknown"} {
		if _, err := b.Authenticate(ctx, name, password); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want the context's error", name, err)
		}
	}
	<-b.turns
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := b.Authenticate(t.Context(), "known", password); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(b.turns) != 0 {
		t.Errorf("%d turns are still taken", len(b.turns))
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if a, err := b.Authenticate(ctx, "known", password); a != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v after the end of the context", a, err)
	}
}

// The real thing must load where the test may read it.
func TestThisSystem(t *testing.T) {
	if _, err := os.ReadFile("/etc/shadow"); err != nil {
		return // an ordinary user's run: the files above stand for it
	}
	b := open(t, Settings{Local: &Local{}})
	if _, err := b.Authenticate(t.Context(), "root", ""); err == nil {
		t.Error("root is let in")
	}
}

func ExampleBook_Authenticate() {
	dir, _ := os.MkdirTemp("", "accounts")
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "users")
	os.WriteFile(file, []byte("alice:"+hashYescryptFast+":/srv/alice:rw\n"), 0o600)

	settings := Settings{Virtual: &Virtual{File: file, UID: 2000, GID: 2000}}
	f, err := os.Open(settings.Paths()[0]) // in the server, a worker's before it has its sandbox
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	book, err := Open(settings, []*os.File{f})
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := book.Authenticate(context.Background(), "alice", "correct horse")
	fmt.Println(a.Name(), a.UID(), a.Home(), a.Writable(), err)
	_, err = book.Authenticate(context.Background(), "bob", "correct horse")
	fmt.Println(err)
	// Output:
	// alice 2000 /srv/alice true <nil>
	// login refused: no such user
}
