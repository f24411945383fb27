package ftp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// client is a client that sends what it is told.
type client struct {
	t    testing.TB
	c    *net.TCPConn
	r    *bufio.Reader
	data net.Conn
	l    net.Listener
}

func (s *server) dial(t testing.TB) *client {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	k := &client{t: t, c: c.(*net.TCPConn), r: bufio.NewReader(c)}
	t.Cleanup(func() {
		c.Close()
		if k.data != nil {
			k.data.Close()
		}
		if k.l != nil {
			k.l.Close()
		}
	})
	return k
}

// login is dial up to the reply to PASS.
func (s *server) login(t testing.TB) *client {
	t.Helper()
	k := s.dial(t)
	k.expect("220")
	k.say("USER u", "331")
	k.say("PASS secret", "230")
	return k
}

func (k *client) send(raw string) {
	k.t.Helper()
	if _, err := io.WriteString(k.c, raw); err != nil {
		k.t.Fatal(err)
	}
}

// reply reads one reply, of however many lines.
func (k *client) reply() string {
	k.t.Helper()
	k.c.SetReadDeadline(time.Now().Add(10 * time.Second))
	all := ""
	for {
		l, err := k.r.ReadString('\n')
		all += l
		if err != nil {
			if all == "" && err == io.EOF {
				return "EOF"
			}
			k.t.Fatalf("after %q: %v", all, err)
		}
		if !strings.HasSuffix(l, "\r\n") || strings.ContainsAny(strings.TrimSuffix(l, "\r\n"), "\r\x00") {
			k.t.Errorf("%q is not one line", l)
		}
		if len(l) > 3 && l[3] == ' ' && (len(all) == len(l) || l[:3] == all[:3]) {
			return strings.TrimSuffix(all, "\r\n")
		}
	}
}

// expect reads a reply that must match the pattern from its start.
func (k *client) expect(pattern string) string {
	k.t.Helper()
	got := k.reply()
	if !regexp.MustCompile(`\A(?s:` + pattern + `)`).MatchString(got) {
		k.t.Errorf("got reply %q, want %q", got, pattern)
	}
	return got
}

func (k *client) say(command, pattern string) string {
	k.t.Helper()
	k.send(command + "\r\n")
	return k.expect(pattern)
}

var portOf = regexp.MustCompile(`\|\|\|(\d+)\|`)

// passive makes the data connection by EPSV.
func (k *client) passive() {
	k.t.Helper()
	m := portOf.FindStringSubmatch(k.say("EPSV", "229"))
	if m == nil {
		k.t.Fatal("no port")
	}
	host, _, _ := net.SplitHostPort(k.c.RemoteAddr().String())
	c, err := net.Dial("tcp", net.JoinHostPort(host, m[1]))
	if err != nil {
		k.t.Fatal(err)
	}
	k.data = c
}

// active listens and tells the server by PORT or EPRT.
func (k *client) active() {
	k.t.Helper()
	host, _, _ := net.SplitHostPort(k.c.LocalAddr().String())
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		k.t.Fatal(err)
	}
	k.l = l
	port := l.Addr().(*net.TCPAddr).Port
	if strings.Contains(host, ":") {
		k.say(fmt.Sprintf("EPRT |2|%s|%d|", host, port), "200")
		return
	}
	k.say(fmt.Sprintf("PORT %s,%d,%d", strings.ReplaceAll(host, ".", ","), port>>8, port&255), "200")
}

// take accepts what the server connects to.
func (k *client) take() {
	k.t.Helper()
	k.l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	c, err := k.l.Accept()
	if err != nil {
		k.t.Fatal(err)
	}
	k.data = c
}

func (k *client) get() string {
	k.t.Helper()
	k.data.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(k.data)
	if err != nil {
		k.t.Errorf("after %d bytes: %v", len(b), err)
	}
	k.data.Close()
	return string(b)
}

func (k *client) put(s string) {
	k.t.Helper()
	if _, err := io.WriteString(k.data, s); err != nil {
		k.t.Error(err)
	}
	k.data.Close()
}

// run plays a script. Each line is a word and its argument; an argument in
// quotes is Go's string.
//
//	file NAME CONTENT     make a file in the server's root
//	dir NAME
//	has NAME CONTENT      what the server's file must hold
//	< PATTERN             the next reply, a pattern from its start
//	> COMMAND             sent with CRLF
//	raw BYTES             sent as they are
//	login                 the greeting, USER and PASS
//	passive, active, take a data connection
//	get BYTES, match PATTERN, put BYTES, shut
//	eof                   the server has closed
func run(t *testing.T, s *server, script string) {
	var k *client
	defer func() {
		if k != nil {
			k.c.Close()
		}
	}()
	for i, l := range strings.Split(script, "\n") {
		word, arg, _ := strings.Cut(strings.TrimSpace(l), " ")
		if word == "" || word[0] == '#' {
			continue
		}
		name := ""
		switch word {
		case "file", "has", "dir":
			if q, err := strconv.QuotedPrefix(arg); err == nil {
				name, _ = strconv.Unquote(q)
				arg = strings.TrimPrefix(arg[len(q):], " ")
			} else {
				name, arg, _ = strings.Cut(arg, " ")
			}
		case "login":
			k = s.login(t)
			continue
		}
		if strings.HasPrefix(arg, `"`) {
			q, err := strconv.Unquote(arg)
			if err != nil {
				t.Fatalf("line %d: %v", i+1, err)
			}
			arg = q
		}
		if k == nil && name == "" {
			k = s.dial(t)
		}
		failed := t.Failed()
		switch word {
		case "file":
			s.write(t, name, arg)
		case "dir":
			if err := os.MkdirAll(filepath.Join(s.root, name), 0o755); err != nil {
				t.Fatal(err)
			}
		case "has":
			if got := s.read(t, name); got != arg {
				t.Errorf("%s holds %q, want %q", name, got, arg)
			}
		case "<":
			k.expect(arg)
		case ">":
			k.send(arg + "\r\n")
		case "raw":
			k.send(arg)
		case "passive":
			k.passive()
		case "active":
			k.active()
		case "take":
			k.take()
		case "get":
			if got := k.get(); got != arg {
				t.Errorf("got data %q, want %q", got, arg)
			}
		case "match":
			if got := k.get(); !regexp.MustCompile(`\A(?s:` + arg + `)\z`).MatchString(got) {
				t.Errorf("got data %q, want %q", got, arg)
			}
		case "put":
			k.put(arg)
		case "shut":
			k.data.Close()
		case "eof":
			k.expect("EOF")
		default:
			t.Fatalf("line %d: no such word %q", i+1, word)
		}
		if t.Failed() && !failed {
			t.Fatalf("at line %d: %s", i+1, l)
		}
	}
}

// TestScripts plays each script over IPv4; those named for it over IPv6.
func TestScripts(t *testing.T) {
	names, err := filepath.Glob("testdata/script/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			t.Parallel()
			script, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			host := "127.0.0.1"
			if bytes.HasPrefix(script, []byte("# IPv6")) {
				host = "::1"
			}
			run(t, new(server).start(t, host), string(script))
		})
	}
}
