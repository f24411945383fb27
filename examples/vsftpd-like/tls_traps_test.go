//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// client is a configuration that trusts the site's certificate. It resumes what
// it can.
func (s *site) client(t testing.TB, version uint16) *tls.Config {
	return &tls.Config{
		RootCAs: s.pool(t), ServerName: "localhost", MinVersion: version, MaxVersion: version,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
}

// secure says AUTH TLS and goes on under it.
func (c *control) secure(config *tls.Config) error {
	if err := c.do("AUTH TLS", "234"); err != nil {
		return err
	}
	return c.shake(config)
}

func (c *control) shake(config *tls.Config) error {
	c.SetDeadline(time.Now().Add(patience))
	c.tls = tls.Client(c.TCPConn, config)
	c.in = bufio.NewReader(c.tls)
	return c.tls.Handshake()
}

// secureLogin is a login under TLS, with PROT P.
func secureLogin(t testing.TB, s *site, config *tls.Config) *control {
	t.Helper()
	c := connect(t, s.address[0], "")
	if err := errors.Join(c.secure(config), c.do("PBSZ 0", "200"), c.do("PROT P", "200"), c.login("alice")); err != nil {
		t.Fatal(err)
	}
	return c
}

// beginTLS starts a transfer and makes the client's handshake.
func (c *control) beginTLS(line string, config *tls.Config) (raw *net.TCPConn, data *tls.Conn, err error) {
	if raw, err = c.begin(line); err != nil {
		return nil, nil, err
	}
	data = tls.Client(raw, config)
	return raw, data, data.Handshake()
}

var tlsVersions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// TestPlaintextBehindAuth: what came in the clear behind AUTH TLS is not executed
// under TLS: somebody else may have put it there (CVE-2011-0411).
func TestPlaintextBehindAuth(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), map[string]string{"require_tls": "no", "require_tls_data": "no"})
	injected := "USER alice\r\nPASS " + password + "\r\n"
	c := connect(t, s.address[0], "")
	c.say(t, "AUTH TLS\r\n"+strings.TrimSuffix(injected, "\r\n"), "234")
	if err := c.shake(s.client(t, tls.VersionTLS13)); err != nil {
		t.Fatal(err)
	}
	c.say(t, "NOOP", "200") // no reply of another comes before
	c.say(t, "PWD", "530")
	c.say(t, "PASS "+password, "503")

	// What comes in a packet of its own is no handshake: the session ends.
	c = connect(t, s.address[0], "")
	c.say(t, "AUTH TLS", "234")
	if _, err := io.WriteString(c.TCPConn, injected); err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(c.in); bytes.Contains(b, []byte("331")) || bytes.Contains(b, []byte("230")) {
		t.Errorf("executed: %q", b)
	}

	// A name that was given in the clear is forgotten.
	c = connect(t, s.address[0], "")
	c.say(t, "USER alice", "331")
	if err := errors.Join(c.secure(s.client(t, tls.VersionTLS13)), c.do("PASS "+password, "503")); err != nil {
		t.Error(err)
	}

	// The control: behind another command it is executed.
	c = connect(t, s.address[0], "")
	c.say(t, "NOOP\r\n"+strings.TrimSuffix(injected, "\r\n"), "200")
	if err := errors.Join(c.expect("331"), c.expect("230")); err != nil {
		t.Errorf("control: %v", err)
	}
}

// TestRequireTLS: no name, no password and no data in the clear.
func TestRequireTLS(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), nil)
	c := connect(t, s.address[0], "")
	for _, line := range []string{"USER alice", "USER anonymous"} {
		c.say(t, line, "530")
		c.say(t, "PASS "+password, "503")
	}
	for _, line := range []string{"PBSZ 0", "PROT P", "PROT C"} {
		c.say(t, line, "503")
	}
	c.say(t, "AUTH SSL", "504")
	c.say(t, "AUTH", "504")
	c.say(t, strings.Repeat("AUTH TLS ", 1000), "500")
	if got := c.say(t, "FEAT", "211"); !strings.Contains(got, "AUTH TLS\r\n PBSZ\r\n PROT\r\n") {
		t.Errorf("FEAT: %q", got)
	}
	config := s.client(t, tls.VersionTLS13)
	if err := c.secure(config); err != nil {
		t.Fatal(err)
	}
	c.say(t, "AUTH TLS", "503")
	c.say(t, "PROT P", "503")
	c.say(t, "PBSZ x", "501")
	c.say(t, "PBSZ 0", "200")
	c.say(t, "PROT S", "536")
	c.say(t, "PROT E", "536")
	c.say(t, "PROT C", "534")
	c.say(t, "PROT X", "504")
	if err := c.login("alice"); err != nil {
		t.Fatal(err)
	}
	if to, err := c.passive(); err != nil || to == "" {
		t.Fatal(err)
	}
	c.say(t, "LIST", "522")
	c.say(t, "STOR f", "522")
	c.say(t, "AUTH TLS", "503")
	c.say(t, "PROT P", "200")
	_, data, err := c.beginTLS("NLST", config)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(data); len(b) != 0 || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}

	// Where it is not required, both go, and PROT C too.
	s, _ = startTLS(t, ecdsaKey(t), map[string]string{"require_tls": "no", "require_tls_data": "no"})
	write(t, s.alice+"/f", []byte("content"))
	for _, c := range []*control{login(t, s.address[0], "alice"), secureLogin(t, s, s.client(t, tls.VersionTLS12))} {
		if c.tls != nil {
			c.say(t, "PROT C", "200")
		}
		if b, err := c.get("RETR f"); string(b) != "content" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	}

	// Without a certificate there is none.
	c = connect(t, startSite(t, nil).address[0], "")
	c.say(t, "AUTH TLS", "502")
	if got := c.say(t, "FEAT", "211"); strings.Contains(got, "AUTH") {
		t.Errorf("FEAT: %q", got)
	}
}

// TestDataMustBeTLS: after PROT P not a byte crosses a data connection in the
// clear.
func TestDataMustBeTLS(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), nil)
	write(t, s.alice+"/f", []byte("content"))
	c := secureLogin(t, s, s.client(t, tls.VersionTLS13))
	data, err := c.begin("RETR f")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(data, "in the clear\r\n")
	if b, _ := io.ReadAll(data); bytes.Contains(b, []byte("content")) {
		t.Errorf("got %q", b)
	}
	if err := c.expect("425"); err != nil {
		t.Error(err)
	}
	if data, err = c.begin("STOR g"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(data, "in the clear\r\n")
	data.CloseWrite()
	if err := c.expect("425"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(s.alice + "/g"); len(b) > 0 || err != nil {
		t.Errorf("stored %q, %v", b, err)
	}
}

// TestCutUpload: an upload that ends without close_notify may have been cut by
// anybody, so it is not complete; what came stays, as without TLS.
func TestCutUpload(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), nil)
	for _, version := range tlsVersions {
		config := s.client(t, version)
		c := secureLogin(t, s, config)
		for i, end := range []struct {
			name, want string
			end        func(*net.TCPConn, *tls.Conn) error
		}{
			{"FIN", "426", func(raw *net.TCPConn, _ *tls.Conn) error { return raw.CloseWrite() }},
			{"close", "426", func(raw *net.TCPConn, _ *tls.Conn) error { return raw.Close() }},
			{"reset", "426", func(raw *net.TCPConn, _ *tls.Conn) error { raw.SetLinger(0); return raw.Close() }},
			{"close_notify", "226", func(_ *net.TCPConn, data *tls.Conn) error { return data.CloseWrite() }},
			{"close_notify and close", "226", func(_ *net.TCPConn, data *tls.Conn) error { return data.Close() }},
		} {
			name, content := fmt.Sprintf("f%d", i), randomBytes(300_000)
			raw, data, err := c.beginTLS("STOR "+name, config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := data.Write(content); err != nil {
				t.Fatal(err)
			}
			for sizeOf(s.alice+"/"+name) < 200_000 {
				time.Sleep(time.Millisecond)
			}
			if err := errors.Join(end.end(raw, data), c.expect(end.want)); err != nil {
				t.Errorf("TLS %x, %s: %v", version, end.name, err)
			}
			got, err := os.ReadFile(s.alice + "/" + name)
			if err != nil || !bytes.HasPrefix(content, got) || end.name != "reset" && len(got) != len(content) {
				t.Errorf("TLS %x, %s: stored %d bytes, %v", version, end.name, len(got), err)
			}
			raw.Close()
		}
	}
}

// TestTicketsAreNotLeftUnread: a client that uploads may read nothing. If a
// session ticket waits unread when it closes, its kernel resets the connection,
// and with it goes what had not yet been sent: how uploads get lost under TLS 1.3.
func TestTicketsAreNotLeftUnread(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), nil)
	for _, version := range tlsVersions {
		config := s.client(t, version)
		c := secureLogin(t, s, config)
		for i := range 10 {
			if i == 5 {
				config = s.client(t, version) // that resumes nothing
			}
			content := randomBytes(3<<20 + int64(i))
			raw, err := c.begin("STOR f")
			if err != nil {
				t.Fatal(err)
			}
			seen := &recorder{Conn: raw}
			data := tls.Client(seen, config)
			if err := data.Handshake(); err != nil {
				t.Fatal(err)
			}
			// Under TLS 1.2 a ticket comes within the handshake.
			resumed := data.ConnectionState().DidResume
			if want := i < 5 || i > 5 && version == tls.VersionTLS12; resumed != want {
				t.Errorf("TLS %x, upload %d: resumed: %t", version, i, resumed)
			}
			if _, err := data.Write(content); err != nil {
				t.Fatal(err)
			}
			for sizeOf(s.alice+"/f") < int64(len(content)) {
				time.Sleep(time.Millisecond)
			}
			if n := unread(t, raw); n > 0 {
				t.Errorf("TLS %x: %d bytes are unread", version, n)
			}
			// Encrypted extensions, certificate, its proof, and what finishes.
			if n, want := seen.encrypted(), map[bool]int{true: 2, false: 4}[resumed]; version == tls.VersionTLS13 && n != want {
				t.Errorf("upload %d: %d encrypted records, want %d", i, n, want)
			}
			if err := errors.Join(data.CloseWrite(), raw.Close(), c.expect("226")); err != nil {
				t.Errorf("TLS %x: %v", version, err)
			}
			if got, err := os.ReadFile(s.alice + "/f"); err != nil || !bytes.Equal(got, content) {
				t.Errorf("TLS %x: stored %d of %d bytes, %v", version, len(got), len(content), err)
			}
		}
	}
	// The control: the control connection gets a ticket.
	c := connect(t, s.address[0], "")
	c.say(t, "AUTH TLS", "234")
	seen := &recorder{Conn: c.TCPConn}
	c.tls = tls.Client(seen, s.client(t, tls.VersionTLS13))
	if err := c.tls.Handshake(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); seen.encrypted() < 5 && unread(t, c.TCPConn) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("control: no ticket comes at all")
		}
	}
}

// unread is how many bytes a client's kernel has for it.
func unread(t testing.TB, conn *net.TCPConn) (n int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		err = errors.Join(err, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A recorder keeps what a client has read.
type recorder struct {
	net.Conn
	b []byte
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.b = append(r.b, p[:n]...)
	return n, err
}

// encrypted counts the whole records of type application_data (RFC 8446, 5.2).
func (r *recorder) encrypted() (n int) {
	for b := r.b; len(b) >= 5; {
		size := 5 + int(b[3])<<8 + int(b[4])
		if len(b) < size {
			break
		}
		if b[0] == 23 {
			n++
		}
		b = b[size:]
	}
	return n
}

// TestResumption: require_tls_reuse wants data connections to be of the control
// connection's session, and of no other.
func TestResumption(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), map[string]string{"require_tls_reuse": "yes"})
	write(t, s.alice+"/f", []byte("content"))
	for _, version := range tlsVersions {
		config := s.client(t, version)
		c := secureLogin(t, s, config)
		for range 3 {
			_, data, err := c.beginTLS("RETR f", config)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(data); string(b) != "content" || err != nil {
				t.Errorf("TLS %x: got %q, %v", version, b, err)
			}
			if err := c.expect("226"); err != nil {
				t.Errorf("TLS %x: %v", version, err)
			}
		}
		other := s.client(t, version)
		secureLogin(t, s, other)
		for name, config := range map[string]*tls.Config{"no session": s.client(t, version), "another's": other} {
			_, data, err := c.beginTLS("RETR f", config)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(data); len(b) > 0 {
				t.Errorf("TLS %x, %s: got %q", version, name, b)
			}
			if err := c.expect("522"); err != nil {
				t.Errorf("TLS %x, %s: %v", version, name, err)
			}
		}
	}
}

// TestStalledHandshake: who stalls within it has not logged in, so the limits of
// such sessions hold.
func TestStalledHandshake(t *testing.T) {
	s, _ := startTLS(t, ecdsaKey(t), map[string]string{"login_timeout": "2s", "max_startups": "2:100:2"})
	for _, hello := range []string{"", "\x16\x03\x01\x02\x00\x01"} { // no byte of it, and a few
		began := time.Now()
		var stalled []*control
		for len(stalled) < 2 {
			c, err := dial(s.address[0], "")
			if err != nil { // those of before are still on their way out
				if time.Since(began) > patience {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Millisecond)
				continue
			}
			defer c.Close()
			c.say(t, "AUTH TLS", "234")
			io.WriteString(c.TCPConn, hello)
			stalled = append(stalled, c)
		}
		if got := greeting(t, s.address[0]); !strings.HasPrefix(got, "421") {
			t.Errorf("a third gets %q", got)
		}
		for _, c := range stalled {
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c.TCPConn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the handshake has no deadline")
			}
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("took %v", took)
		}
		for deadline := time.Now().Add(patience); !strings.HasPrefix(greeting(t, s.address[0]), "220"); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("nobody is let in any more")
			}
		}
	}
}
