//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// A ledger has what the other process of an upgrade has lent.
type ledger struct {
	others, ours map[uint32]bool
	err          error
}

func (l *ledger) Claim(n uint32) (bool, error) {
	if l.err == nil && !l.others[n] {
		l.ours[n] = true
		return true, nil
	}
	return false, l.err
}

func (l *ledger) Unclaim(n uint32) { delete(l.ours, n) }

// newPool listens on addresses with a port that the kernel chooses.
func newPool(t *testing.T, addresses ...string) (*pool, *ledger) {
	t.Helper()
	testenv.NoLeaks(t)
	l := &ledger{others: map[uint32]bool{}, ours: map[uint32]bool{}}
	p := &pool{claims: l}
	for _, address := range addresses {
		if err := p.add(listening(t, "tcp", address)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, one := range p.ports {
			syscall.Close(one.fd)
		}
	})
	return p, l
}

// listening is a socket as a service manager hands it over.
func listening(t *testing.T, network, address string) *os.File {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// queue has n clients connect to one, and waits until all are in its queue.
func (one *pooled) queue(t *testing.T, n int) (clients []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", one.address.Port()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		clients = append(clients, c)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		// Of a socket that listens, this is its queue (tcp_get_info in Linux).
		info, err := unix.GetsockoptTCPInfo(one.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		if int(info.Unacked) >= n {
			return clients
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d clients are in the queue", info.Unacked, n)
		}
	}
}

func hungUp(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a client that was early, or late: read %d bytes, %v", n, err)
	}
}

var near = netip.MustParseAddr("127.0.0.1")

// TestPoolLends: every port once, no port of the other process, and each again
// when it is back.
func TestPoolLends(t *testing.T) {
	p, l := newPool(t, "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0")
	l.others[uint32(p.ports[2].address.Port())] = true
	for range 3 {
		var all []*pooled
		for range 3 {
			one, f, err := p.lend(near)
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			if one == p.ports[2] || !l.ours[uint32(one.address.Port())] {
				t.Error("a port that is another's, or that is not claimed")
			}
			for _, other := range all {
				if one == other {
					t.Error("a port was lent twice")
				}
			}
			all = append(all, one)
		}
		if _, _, err := p.lend(near); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("one more: %v", err)
		}
		for _, one := range all {
			p.give(one)
		}
		if len(l.ours) != 0 {
			t.Errorf("claimed still: %v", l.ours)
		}
	}
	l.err = syscall.EIO
	if _, _, err := p.lend(near); !errors.Is(err, syscall.EIO) {
		t.Errorf("a claim that fails: %v", err)
	}
}

// TestPoolIsDrawn: a stranger can't know which port is next.
func TestPoolIsDrawn(t *testing.T) {
	addresses := make([]string, 32)
	for i := range addresses {
		addresses[i] = "127.0.0.1:0"
	}
	p, _ := newPool(t, addresses...)
	seen := map[uint16]bool{}
	for range 32 {
		one, f, err := p.lend(near)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		p.give(one)
		seen[one.address.Port()] = true
	}
	if len(seen) < 8 { // once in 10^15
		t.Errorf("32 loans were of %d ports", len(seen))
	}
}

// TestPoolQueues: who had connected before a port was lent, or is still there when
// it is given back, is hung up on. Else it would be the first whom the next
// borrower accepts, and from one address nobody could tell.
func TestPoolQueues(t *testing.T) {
	p, _ := newPool(t, "127.0.0.1:0")
	one := p.ports[0]
	early := one.queue(t, 3)
	_, f, err := p.lend(near)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range early {
		hungUp(t, c)
	}
	client := one.queue(t, 1)[0]
	conn, _, err := sys.Accept(f.Fd())
	if err != nil {
		t.Fatal(err)
	}
	var from unix.Sockaddr
	if from, err = unix.Getpeername(conn); err != nil {
		t.Fatal(err)
	}
	syscall.Close(conn)
	if got, want := from.(*unix.SockaddrInet4).Port, client.LocalAddr().(*net.TCPAddr).Port; got != want {
		t.Errorf("accepted port %d, want %d", got, want)
	}
	late := one.queue(t, 1)[0]
	p.give(one)
	hungUp(t, late)
	// The control: in a queue that is not emptied the first comes first.
	first := one.queue(t, 1)[0]
	one.queue(t, 1)
	if conn, _, err = sys.Accept(uintptr(one.fd)); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(conn)
	if from, err = unix.Getpeername(conn); err != nil || from.(*unix.SockaddrInet4).Port != first.LocalAddr().(*net.TCPAddr).Port {
		t.Errorf("the control: %v, %v", from, err)
	}
}

// TestPoolFlooded: a port in whose queue there is always one more is not lent, and
// the others are.
func TestPoolFlooded(t *testing.T) {
	p, l := newPool(t, "127.0.0.1:0", "127.0.0.1:0")
	p.ports[0].queue(t, stale+1)
	lent, f, err := p.lend(near)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if lent == p.ports[0] { // it was the first tried, or never
		t.Error("a port that is being flooded was lent")
	}
	p.ports[0].queue(t, stale+1)
	if _, _, err := p.lend(near); !errors.Is(err, syscall.EADDRINUSE) || len(l.ours) != 1 {
		t.Errorf("got %v; claimed %v", err, l.ours)
	}
	p.give(lent)
}

// TestPoolReaches: a client is told a port only if it listens on the address that
// the client talks to.
func TestPoolReaches(t *testing.T) {
	for _, c := range []struct {
		address string
		only6   bool
		local   string
		want    bool
	}{
		{"[::]:1", false, "192.0.2.1", true},
		{"[::]:1", false, "2001:db8::1", true},
		{"[::]:1", true, "192.0.2.1", false},
		{"[::]:1", true, "2001:db8::1", true},
		{"0.0.0.0:1", false, "192.0.2.1", true},
		{"0.0.0.0:1", false, "2001:db8::1", false},
		{"192.0.2.1:1", false, "192.0.2.1", true},
		{"192.0.2.1:1", false, "192.0.2.2", false},
		{"[2001:db8::1]:1", false, "2001:db8::1", true},
		{"[fe80::1%3]:1", false, "fe80::1%eth0", true},
		{"[2001:db8::1]:1", false, "192.0.2.1", false},
	} {
		one := &pooled{address: netip.MustParseAddrPort(c.address), only6: c.only6}
		if got := one.reachable(netip.MustParseAddr(c.local)); got != c.want {
			t.Errorf("%s (IPv6 only: %v) from %s: %v", c.address, c.only6, c.local, got)
		}
	}
}

// TestPoolRefuses: what is no passive port ends the start.
func TestPoolRefuses(t *testing.T) {
	p, _ := newPool(t, "127.0.0.1:0")
	twice, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: int(p.ports[0].address.Port())})
	if err != nil {
		t.Fatal(err)
	}
	f, err := twice.File()
	twice.Close()
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what *os.File
		want string
	}{
		{listening(t, "unix", t.TempDir()+"/s"), "not TCP"},
		{null, "non-socket"},
		{f, "another one listens on port"},
		{bound(t), "does not listen"},
	} {
		if err := p.add(c.what); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
	if len(p.ports) != 1 {
		t.Errorf("%d ports", len(p.ports))
	}
	var all []string
	for range maxPool - 1 {
		all = append(all, "127.0.0.1:0")
	}
	full, _ := newPool(t, append(all, "127.0.0.1:0")...)
	if err := full.add(listening(t, "tcp", "127.0.0.1:0")); err == nil || !strings.Contains(err.Error(), "one more than 128") {
		t.Errorf("got %v", err)
	}
}

// bound is a socket with an address that nobody can connect to.
func bound(t *testing.T) *os.File {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), poolName)
}

// secluded is a site as the units make it: sockets opened by a service manager, no
// network, and no right to make a namespace. It has n passive ports.
func secluded(t *testing.T, n int, settings map[string]string) *upgradeSite {
	t.Helper()
	testenv.NeedProgram(t, "setpriv")
	env := []string{"TEST_LISTEN=[::]:" + portOf(freePorts(t, 1)[0]), "TEST_SECLUDED=yes"}
	for _, address := range freePorts(t, n) {
		env = append(env, "TEST_PASSIVE=[::]:"+portOf(address))
	}
	s := startUpgradeSite(t, settings, env...)
	port := portOf(s.address[0])
	s.address = []string{"127.0.0.1:" + port, "[::1]:" + port}
	return s
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// TestSecluded: a server without a network serves real clients by the sockets that
// it was given, over IPv4 and IPv6, before and after an upgrade; the port of a
// session that is left behind is nobody else's.
func TestSecluded(t *testing.T) {
	s := secluded(t, 6, nil)
	content := randomBytes(1 << 20)
	write(t, s.alice+"/f", content)
	curl := func(args ...string) {
		t.Helper()
		for _, address := range s.address {
			out := s.dir + "/out"
			mustRun(t, program(t, s.dir, "curl", append([]string{"-sS", "-o", out, fmt.Sprintf("ftp://alice:%s@%s/f", strings.ReplaceAll(password, " ", "%20"), address)}, args...)...))
			same(t, s.alice+"/f", out)
		}
	}
	curl()
	mustRun(t, program(t, s.dir, "curl", "-sS", "--disable-epsv", "-o", s.dir+"/out", "ftp://"+s.address[0]+"/"))
	c := login(t, s.address[1], "alice")
	c.say(t, "EPRT |2|::1|51400|", "502")
	four := login(t, s.address[0], "alice")
	four.say(t, "PORT 127,0,0,1,200,200", "502")
	four.say(t, "QUIT", "221")
	if err := c.put("STOR new", content); err != nil {
		t.Error(err)
	}
	same(t, s.alice+"/f", s.alice+"/new")
	if s.logged("no network but these") != 1 || s.logged("session: MISSING on this host: namespaces") != 1 {
		t.Errorf("the report:\n%s", s.output())
	}

	// Six ports: half is the most that one address gets. The old process keeps
	// three of one address, and the new one lends the others alone.
	data := slowly(t, s.site, c)
	ports := map[string]bool{}
	old := []*control{connect(t, s.address[0], "127.0.0.1"), connect(t, s.address[0], "127.0.0.1"), connect(t, s.address[0], "127.0.0.1")}
	for _, c := range old {
		if err := c.login("anonymous"); err != nil {
			t.Fatal(err)
		}
		ports[c.say(t, "EPSV", "229")] = true
	}
	s.upgrade(t)
	s.awaitServers(t, 2)
	for i := range 4 {
		c := connect(t, s.address[0], fmt.Sprintf("127.0.0.%d", 2+i))
		if err := c.login("anonymous"); err != nil {
			t.Fatal(err)
		}
		want := "229"
		if i == 3 {
			want = "425" // none is left
		}
		if got := c.say(t, "EPSV", want); ports[got] {
			t.Errorf("a port of the predecessor's: %s", got)
		} else {
			ports[got] = true
		}
		if i == 3 {
			old[0].say(t, "QUIT", "221")
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				if c.do("EPSV", "229") == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("a port that the predecessor gave back is never lent")
				}
			}
		}
	}
	if n, err := io.Copy(io.Discard, data); n != big || err != nil {
		t.Errorf("the transfer: %d bytes, %v", n, err)
	}
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}
	for _, c := range append(old[1:], c) {
		c.say(t, "QUIT", "221")
	}
	s.awaitServers(t, 1)
	curl()
}

// TestSecludedStranger: with known ports it counts all the more that a stranger's
// connection is not taken.
func TestSecludedStranger(t *testing.T) {
	s := secluded(t, 2, nil)
	write(t, s.alice+"/f", []byte("content"))
	c := login(t, s.address[0], "alice")
	to, err := c.passive()
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	stranger, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	own, err := net.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	c.say(t, "RETR f", "150")
	if b, err := io.ReadAll(own); string(b) != "content" || err != nil {
		t.Errorf("the client got %q, %v", b, err)
	}
	hungUp(t, stranger)
	if err := c.expect("226"); err != nil {
		t.Error(err)
	}
}

// TestSecludedManySessions: 60 at once of one address, which gets 20 of the 40 ports,
// so that most ask again.
func TestSecludedManySessions(t *testing.T) {
	s := secluded(t, 40, map[string]string{"max_startups": "500:30:1000"})
	write(t, s.anon+"/f", randomBytes(100<<10))
	var all sync.WaitGroup
	errs := make([]error, 60)
	for i := range errs {
		all.Go(func() {
			c, err := dial(s.address[0], "")
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			if errs[i] = c.login("anonymous"); errs[i] != nil {
				return
			}
			for range 5 {
				got, err := c.getAgain("RETR f")
				if err == nil && len(got) != 100<<10 {
					err = fmt.Errorf("%d bytes", len(got))
				}
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// getAgain is get, as often as there is no port.
func (c *control) getAgain(line string) (b []byte, err error) {
	for range 1000 {
		if b, err = c.get(line); err == nil || !strings.Contains(err.Error(), "EPSV: got \"425") {
			return b, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return b, err
}

// TestSecludedKilled: without a PID namespace workers die with their launcher, and
// that with its monitor.
func TestSecludedKilled(t *testing.T) {
	for _, role := range []string{"monitor", "launcher"} {
		t.Run(role, func(t *testing.T) {
			s := secluded(t, 4, nil)
			slowly(t, s.site, login(t, s.address[0], "alice"))
			monitor := s.servers()[0]
			var launcher worker
			for _, w := range childrenOf(monitor) {
				if w.role == "launcher" {
					launcher = w
				}
			}
			workers := append(childrenOf(launcher.pid), launcher)
			if len(workers) < 4 {
				t.Fatalf("workers: %v", workers)
			}
			if role == "monitor" {
				syscall.Kill(monitor, syscall.SIGKILL)
			} else if err := killWorker(launcher); err != nil {
				t.Fatal(err)
			}
			if left := waitGone(workers, 5*time.Second); len(left) > 0 {
				t.Errorf("left are %v", left)
			}
		})
	}
}

// TestNotSecluded: a server that may make no namespaces for its workers, and has a
// network, does not start, whatever ports it was given.
func TestNotSecluded(t *testing.T) {
	testenv.NeedRoot(t)
	s := layOut(t, nil)
	cmd := exec.CommandContext(t.Context(), testenv.NeedProgram(t, "setpriv"), "--bounding-set=-sys_admin", "--", "/bin/sh", "-c",
		`export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=passive; exec "$@"`, "sh", binary(t), "-config", s.dir+"/conf", "-listen", "127.0.0.1:0")
	f := listening(t, "tcp", "127.0.0.1:0")
	defer f.Close()
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "namespaces not supported here (requires CAP_SYS_ADMIN") {
		t.Errorf("%v\n%s", err, out)
	}
}
