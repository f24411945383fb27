//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestStranger: a connection to the passive port from another address gets no
// byte and takes no place, whether it comes before the client's or after.
func TestStranger(t *testing.T) {
	s := startSite(t, nil)
	write(t, s.alice+"/f", []byte("content"))
	c := login(t, s.address[0], "alice")
	to, err := c.passive()
	if err != nil {
		t.Fatal(err)
	}
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: patience}
	first, err := stranger.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := c.send("RETR f"); err != nil {
		t.Fatal(err)
	}
	if err := c.expect("150"); err != nil {
		t.Fatal(err)
	}
	first.SetDeadline(time.Now().Add(patience))
	if b, err := io.ReadAll(first); len(b) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stranger got %q, %v", b, err)
	}
	data, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if b, err := io.ReadAll(data); string(b) != "content" || err != nil {
		t.Errorf("the client got %q, %v", b, err)
	}
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}
	if after, err := stranger.Dial("tcp", to); err == nil {
		after.Close()
		t.Error("the port is open when the transfer is over")
	}
	if s.logged("from a stranger", "from=127.0.0.2") != 1 {
		t.Error("the log doesn't tell")
	}

	// Nor can the stranger forge an upload.
	to, err = c.passive()
	if err != nil {
		t.Fatal(err)
	}
	forger, err := stranger.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer forger.Close()
	io.WriteString(forger, "forged")
	if err := c.do("STOR g", "150"); err != nil {
		t.Fatal(err)
	}
	data, err = net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(data, "genuine")
	data.Close()
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(s.alice + "/g"); string(b) != "genuine" || err != nil {
		t.Errorf("stored: %q, %v", b, err)
	}
}

// TestBounce: PORT and EPRT lead to the client's own address and to no
// privileged port.
func TestBounce(t *testing.T) {
	s := startSite(t, nil)
	other, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).Port
	c := login(t, s.address[0], "alice")
	for _, line := range []string{
		fmt.Sprintf("PORT 127,0,0,2,%d,%d", port>>8, port&255),
		fmt.Sprintf("EPRT |1|127.0.0.2|%d|", port),
		"PORT 127,0,0,1,0,22",
		"PORT 127,0,0,1,3,255",
		"EPRT |1|127.0.0.1|22|",
		"EPRT |1|127.0.0.1|0|",
		"EPRT |2|::1|40000|",
		"PORT 127,0,0,1,300,1",
		"EPRT |1|127.0.0.1|65536|",
	} {
		c.say(t, line, "5")
		c.say(t, "LIST", "425")
	}
	other.(*net.TCPListener).SetDeadline(time.Now())
	if conn, err := other.Accept(); err == nil {
		conn.Close()
		t.Error("the server connected to another host")
	}
}

// TestActive connects from port 20 where that is set, to the client's port.
func TestActive(t *testing.T) {
	s := startSite(t, map[string]string{"connect_from_port": "20"})
	write(t, s.alice+"/f", []byte("content"))
	for _, address := range s.address {
		c := login(t, address, "alice")
		host, _, _ := net.SplitHostPort(address)
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		family := map[bool]int{true: 1, false: 2}[strings.Contains(host, ".")]
		for range 2 {
			c.say(t, fmt.Sprintf("EPRT |%d|%s|%d|", family, host, l.Addr().(*net.TCPAddr).Port), "200")
			c.say(t, "RETR f", "150")
			data, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if from := data.RemoteAddr().(*net.TCPAddr).Port; from != 20 {
				t.Errorf("from port %d, want 20", from)
			}
			if b, err := io.ReadAll(data); string(b) != "content" || err != nil {
				t.Errorf("got %q, %v", b, err)
			}
			data.Close()
			if err := c.expect("226"); err != nil {
				t.Error(err)
			}
		}
	}
	c := login(t, startSite(t, map[string]string{"active": "no"}).address[0], "alice")
	c.say(t, "PORT 127,0,0,1,200,200", "502")
	c.say(t, "EPRT |1|127.0.0.1|51400|", "502")
	c.say(t, "LIST", "425")
}

// big is more than the kernel takes into its buffers.
const big = 32 << 20

// slowly begins a download that can't end before its client reads.
func slowly(t *testing.T, s *site, c *control) *net.TCPConn {
	t.Helper()
	if sizeOf(s.alice+"/big") != big {
		write(t, s.alice+"/big", randomBytes(big))
	}
	data, err := c.begin("RETR big")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { data.Close() })
	return data
}

// TestQuitInTransfer: QUIT waits for the transfer (RFC 959).
func TestQuitInTransfer(t *testing.T) {
	s := startSite(t, nil)
	c := login(t, s.address[0], "alice")
	data := slowly(t, s, c)
	if err := c.send("QUIT"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	b, err := io.ReadAll(data)
	if err != nil || !bytes.Equal(b, randomBytes(big)) {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	if err := errors.Join(c.expect("226"), c.expect("221"), c.ended()); err != nil {
		t.Error(err)
	}
}

// TestAbort: 426 and 226, at once; then the session goes on.
func TestAbort(t *testing.T) {
	s := startSite(t, nil)
	c := login(t, s.address[0], "alice")
	for _, abor := range []string{"ABOR", "\xff\xf4\xff\xf2ABOR"} {
		data := slowly(t, s, c)
		began := time.Now()
		if err := errors.Join(c.do(abor, "426"), c.expect("226")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > patience/2 {
			t.Errorf("ABOR took %v", took)
		}
		data.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := io.Copy(io.Discard, data); n == big || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the transfer was not aborted: %d bytes, %v", n, err)
		}
	}
	to, err := c.passive() // and while nobody has connected
	if err != nil {
		t.Fatal(err)
	}
	c.say(t, "LIST", "150")
	c.say(t, "ABOR", "42")
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("tcp", to)
		if err != nil {
			break // the monitor has heard of it
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the port is open after ABOR")
		}
	}
	if _, err := c.get("LIST"); err != nil {
		t.Error(err)
	}
}

func TestCommandTraps(t *testing.T) {
	s := startSite(t, nil)
	write(t, s.alice+"/f", []byte("content"))
	c := login(t, s.address[0], "alice")
	for _, size := range []int{8 << 10, 64 << 10} {
		c.say(t, strings.Repeat("DELE f ", size/7), "500")
		c.say(t, "NOOP", "200")
	}
	c.say(t, "MKD a\x00b", "550")
	c.say(t, "DELE f\x00", "550")
	c.say(t, "REIN", "502")
	c.say(t, "EPSV ALL", "200")
	for _, line := range []string{"PASV", "PORT 127,0,0,1,200,200", "EPRT |1|127.0.0.1|40000|"} {
		c.say(t, line, "503")
	}
	if b, err := c.get("RETR f"); string(b) != "content" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if entries, err := os.ReadDir(s.alice); len(entries) != 1 || err != nil {
		t.Errorf("left: %v, %v", entries, err)
	}

	// Before the login, too.
	c = connect(t, s.address[0], "")
	for _, size := range []int{8 << 10, 64 << 10} {
		c.say(t, strings.Repeat("USER x ", size/7), "500")
	}
	c.say(t, "USER "+strings.Repeat("x", 3000), "331")
	c.say(t, "PASS x", "530")
	c.say(t, "USER alice\x00", "331")
	c.say(t, "PASS "+password, "530")

	// A browser that was made to post commands here gets none executed.
	for _, verb := range []string{"GET / HTTP/1.1", "POST /upload HTTP/1.1"} {
		c = connect(t, s.address[0], "")
		c.send(verb + "\r\nHost: 127.0.0.1\r\n\r\nUSER alice\r\nPASS " + password + "\r\nDELE f")
		if err := c.expect("421"); err != nil {
			t.Error(err)
		}
		if err := c.ended(); err != nil {
			t.Error(err)
		}
	}
	if sizeOf(s.alice+"/f") != 7 {
		t.Error("f is gone")
	}
	if n := s.logged("level=ERROR") + s.logged("session ended"); n > 0 {
		t.Errorf("%d complaints in the log", n)
	}
}

// TestPassivePorts: one address can't use them up, and all of them serve.
func TestPassivePorts(t *testing.T) {
	low := freeRange(t, 6)
	s := startSite(t, map[string]string{"passive_ports": fmt.Sprintf("%d-%d", low, low+5)})
	enter := func(from string) *control {
		c := connect(t, s.address[0], from)
		if err := c.login("anonymous"); err != nil {
			t.Fatal(err)
		}
		return c
	}
	var greedy []*control
	for range 3 {
		c := enter("127.0.0.1")
		c.say(t, "EPSV", "229")
		greedy = append(greedy, c)
	}
	late := enter("127.0.0.1")
	late.say(t, "EPSV", "425")
	ports := map[string]bool{}
	for range 3 {
		ports[enter("127.0.0.2").say(t, "EPSV", "229")] = true
	}
	if len(ports) != 3 {
		t.Errorf("ports: %v", ports)
	}
	// A worker that is being started has all of the monitor's files until it
	// runs its image, a port just closed among them.
	s.settled(t, map[string]int{"session": 9, "files": 9})
	for range 20 { // one's own port is free again each time
		greedy[0].say(t, "EPSV", "229")
	}
	greedy[1].say(t, "QUIT", "221")
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		late.send("EPSV")
		if got, err := late.reply(); err != nil || strings.HasPrefix(got, "229") {
			break
		} else if time.Now().After(deadline) {
			t.Errorf("a port of a session that has ended: %s", got)
			break
		}
	}
}

// freeRange finds n ports in a row that nobody has.
func freeRange(t *testing.T, n int) int {
	t.Helper()
	for low := 30000 + os.Getpid()%2000; low < 32700; low += n {
		free := true
		for i := range n {
			l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(low+i)))
			if err != nil {
				free = false
				break
			}
			l.Close()
		}
		if free {
			return low
		}
	}
	t.Fatal("no free ports")
	return 0
}

// TestTooManySessions: the rest is told so, and those who are in stay.
func TestTooManySessions(t *testing.T) {
	s := startSite(t, map[string]string{"max_sessions": "4", "max_sessions_per_address": "2"})
	a, b := connect(t, s.address[0], ""), connect(t, s.address[0], "")
	for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3"} {
		c, err := dial(s.address[0], from)
		if from == "127.0.0.2" {
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		} else if err == nil || !strings.Contains(err.Error(), "421") {
			t.Errorf("from %s: %v", from, err)
		}
	}
	a.say(t, "QUIT", "221")
	if err := b.login("alice"); err != nil {
		t.Error(err)
	}
}
