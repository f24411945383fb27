package ftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/transfer"
)

// ends waits for a session's end.
func (s *server) ends(t testing.TB) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the session goes on")
		return nil
	}
}

func TestLongLines(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	s.write(t, "f", "still here")
	k := s.login(t)
	for _, size := range []int{5000, 8 << 10, 64 << 10, 1 << 20} {
		// Were it cut anywhere, a part would be a command.
		k.send(strings.Repeat("DELE f ", size/7) + "\r\n")
		k.expect("500 Line too long")
		k.say("NOOP", "200")
	}
	k.say("MKD "+strings.Repeat("x", 4092), "550 Name too long")
	k.say("CWD "+strings.Repeat("x/", 1100)+strings.Repeat("../", 300), "550")
	if got := s.read(t, "f"); got != "still here" {
		t.Error(got)
	}
}

// TestWrongPeer: the trap is that the client waits for ever, or gets its data
// mixed with a stranger's.
func TestWrongPeer(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	s.write(t, "f", "hello")
	k := s.login(t)
	m := portOf.FindStringSubmatch(k.say("EPSV", "229"))
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	c, err := d.Dial("tcp", "127.0.0.1:"+m[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	k.say("RETR f", "150")
	k.expect("425")
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("the stranger got %q", b)
	}
}

func TestNoDataConnection(t *testing.T) {
	s := &server{config: Config{ConnectTimeout: 50 * time.Millisecond}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	k.say("EPSV", "229")
	k.say("LIST", "150")
	k.expect("425")
	k.active()
	k.l.Close()
	k.say("LIST", "150")
	k.expect("425")
	k.say("NOOP", "200")
}

func TestIdle(t *testing.T) {
	s := &server{config: Config{IdleTimeout: 200 * time.Millisecond}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	k.passive()
	k.say("STOR f", "150")
	time.Sleep(400 * time.Millisecond) // a transfer isn't idle
	k.put("x")
	k.expect("226")
	go func() { // bytes without a command are
		for range 8 {
			time.Sleep(50 * time.Millisecond)
			k.c.Write([]byte("N"))
		}
	}()
	k.expect("421")
	k.expect("EOF")
	if err := s.ends(t); err != ErrIdle {
		t.Error(err)
	}
	if s.closed.Load() != 1 {
		t.Errorf("Files closed %d times", s.closed.Load())
	}
}

func TestStall(t *testing.T) {
	s := &server{config: Config{StallTimeout: 100 * time.Millisecond}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	k.passive()
	k.say("STOR f", "150")
	k.expect("426 Transfer timed out")
}

func TestServerEnds(t *testing.T) {
	s := new(server)
	s.root = t.TempDir()
	a, b := net.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		done <- (&Session{Control: b, Peer: netip.MustParseAddrPort("127.0.0.1:1"), Login: s, Data: &sockets{}}).Serve(ctx)
	}()
	buf := make([]byte, 100)
	a.Read(buf)
	why := errors.New("shutting down")
	cancel(why)
	if n, _ := a.Read(buf); !strings.HasPrefix(string(buf[:n]), "421") {
		t.Errorf("got %q", buf[:n])
	}
	if err := <-done; err != why {
		t.Error(err)
	}
}

// TestDeafClient: one that reads no reply doesn't hold a session for ever.
func TestDeafClient(t *testing.T) {
	s := &server{config: Config{ReplyTimeout: 100 * time.Millisecond}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	go func() {
		for {
			if _, err := io.WriteString(k.c, strings.Repeat("HELP\r\n", 100)); err != nil {
				return
			}
		}
	}()
	if err := s.ends(t); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// TestFloodBehindTransfer: what waits is bounded, nothing is lost, and nothing
// of it runs before its time.
func TestFloodBehindTransfer(t *testing.T) {
	const n = 2000
	s := new(server).start(t, "127.0.0.1")
	k := s.login(t)
	k.passive()
	k.say("STOR f", "150")
	k.send(strings.Repeat("PWD\r\n", n) + "QUIT\r\n")
	time.Sleep(50 * time.Millisecond)
	k.put("whole")
	k.expect("226")
	for range n {
		k.expect("257")
	}
	k.expect("221")
	k.expect("EOF")
	if got := s.read(t, "f"); got != "whole" {
		t.Error(got)
	}
	if err := s.ends(t); err != nil {
		t.Error(err)
	}
}

// TestQueueIsBounded: behind a full queue nothing is read, not even what would
// be answered at once.
func TestQueueIsBounded(t *testing.T) {
	s := &server{config: Config{MaxQueue: 4}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	k.passive()
	k.say("STOR f", "150")
	k.send("NOOP\r\nNOOP\r\nNOOP\r\n")
	k.say("STAT", "211") // as long as there is room
	k.send("NOOP\r\nSTAT\r\n")
	k.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if b, err := k.r.Peek(1); err == nil {
		t.Errorf("got a reply that begins with %q", b)
	}
	k.put("x")
	k.expect("226")
	for range 4 {
		k.expect("200")
	}
	k.expect("211")
}

// TestClientLeaves: with its control connection a client gives its transfer up.
func TestClientLeaves(t *testing.T) {
	for _, reset := range []bool{false, true} {
		s := new(server).start(t, "127.0.0.1")
		k := s.login(t)
		k.passive()
		k.say("STOR f", "150")
		k.data.Write([]byte("part"))
		if reset {
			k.c.SetLinger(0)
		}
		k.c.Close()
		if err := s.ends(t); err != nil {
			t.Error(err)
		}
		if l := s.transfers(); len(l) != 1 || l[0].Code != 426 || l[0].Err == nil {
			t.Errorf("reset %v: logged %+v", reset, l)
		}
	}
}

// TestHalfClosed: commands that were sent before the client's FIN are answered.
func TestHalfClosed(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	k := s.login(t)
	k.send("PWD\r\nSYST\r\nNOO")
	k.c.CloseWrite()
	k.expect("257")
	k.expect("215")
	k.expect("EOF")
}

func TestUploadTruth(t *testing.T) {
	full := func(f *os.File) *os.File {
		f.Close()
		f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
		}
		return f
	}
	for _, c := range []struct {
		name   string
		create func(*os.File) *os.File
		size   int
		reset  bool
		want   string
	}{
		{"stored", nil, 10, false, "226"},
		{"stored, long", nil, 1 << 20, false, "226"},
		{"reset", nil, 10, true, "426"},
		{"reset, long", nil, 1 << 20, true, "426"},
		{"full", full, 10, false, "452"},
		{"full, long", full, 1 << 20, false, "452"},
	} {
		s := &server{create: c.create}
		s.start(t, "127.0.0.1")
		k := s.login(t)
		k.say("TYPE I", "200")
		k.passive()
		k.say("STOR f", "150")
		k.data.Write(make([]byte, c.size))
		if c.reset {
			time.Sleep(50 * time.Millisecond)
			k.data.(*net.TCPConn).SetLinger(0)
		}
		k.data.Close()
		got := k.expect(c.want)
		if l := s.transfers(); len(l) != 1 || fmt.Sprint(l[0].Code) != c.want || (l[0].Err == nil) != (c.want == "226") {
			t.Errorf("%s: replied %q, logged %+v", c.name, got, l)
		}
	}
}

// TestCloseFails: over NFS, or a quota, only the close says that a file wasn't
// stored.
func TestCloseFails(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	f.Close() // so that the next one fails
	local, peer := net.Pipe()
	defer local.Close()
	defer peer.Close()
	data := intercepted{accept: func(context.Context) (*os.File, error) { return os.Open(os.DevNull) }}
	e := newEngine(&Session{Control: local, Data: data})
	stored := func(context.Context, *os.File) (int64, error) { return 5, nil }
	n, err := e.carry(t.Context(), way{listening: true}, job{file: f, upload: true, move: stored})
	if code, _ := verdict(err); n != 5 || code != 451 {
		t.Errorf("got %d, %v: reply %d, want 451", n, err, code)
	}
}

// TestDownloadTruth: a client that breaks off isn't told that it has the file,
// even where all of it fitted into this host's buffers.
func TestDownloadTruth(t *testing.T) {
	for _, size := range []int64{200 << 10, 64 << 20} {
		s := new(server).start(t, "127.0.0.1")
		s.write(t, "f", "")
		os.Truncate(s.root+"/f", size)
		k := s.login(t)
		k.say("TYPE I", "200")
		k.passive()
		k.data.(*net.TCPConn).SetReadBuffer(4096)
		k.say("RETR f", "150")
		time.Sleep(50 * time.Millisecond)
		k.data.(*net.TCPConn).SetLinger(0)
		k.data.Close()
		k.expect("426")
	}
}

// TestQuitInDownload: to the last byte, and then goodbye.
func TestQuitInDownload(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	s.write(t, "f", strings.Repeat("x", 20<<20))
	k := s.login(t)
	k.say("TYPE I", "200")
	k.passive()
	k.say("RETR f", "150")
	k.send("QUIT\r\n")
	k.c.CloseWrite() // after QUIT no reason to stop
	if n := len(k.get()); n != 20<<20 {
		t.Errorf("got %d bytes", n)
	}
	k.expect("226")
	k.expect("221")
	k.expect("EOF")
}

func TestAborInDownload(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	s.write(t, "f", "")
	os.Truncate(s.root+"/f", 1<<30)
	k := s.login(t)
	k.say("TYPE I", "200")
	k.passive()
	k.say("RETR f", "150")
	start := time.Now()
	k.say("ABOR", "426")
	k.expect("226")
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
	k.say("NOOP", "200")
}

// TestListingFails: the files worker isn't trusted to write well, or at all.
func TestListingFails(t *testing.T) {
	for _, c := range []struct {
		name string
		list func(ctx context.Context, w *os.File) error
		want string
	}{
		{"refuses", func(context.Context, *os.File) error { return syscall.EACCES }, "451"},
		{"breaks off", func(_ context.Context, w *os.File) error { io.WriteString(w, "half"); return syscall.EIO }, "451"},
		{"is silent", func(ctx context.Context, w *os.File) error { <-ctx.Done(); return ctx.Err() }, "451"},
		{"says what is no errno", func(context.Context, *os.File) error { return errors.New("a path\r\n200 x") }, "451"},
	} {
		s := &server{list: c.list, config: Config{StallTimeout: 100 * time.Millisecond, ReplyTimeout: 100 * time.Millisecond}}
		s.start(t, "127.0.0.1")
		k := s.login(t)
		k.passive()
		k.say("LIST", "150")
		if got := k.expect(c.want); strings.Contains(got, "path") {
			t.Errorf("%s: %q", c.name, got)
		}
		k.say("STAT .", "4|550")
		k.say("NOOP", "200")
	}
}

// TestStatIsBounded: a listing in a reply is held in memory.
func TestStatIsBounded(t *testing.T) {
	s := &server{list: func(ctx context.Context, w *os.File) error {
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 98)+"\r\n"); err != nil {
				return err
			}
		}
	}}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	got := k.say("STAT .", "212-")
	if len(got) > maxStatus+4096 || !strings.Contains(got, "and more") {
		t.Errorf("%d bytes", len(got))
	}
}

// TestDataFails: nothing of the monitor's error reaches the client.
func TestDataFails(t *testing.T) {
	s := &server{accept: func(ctx context.Context) (*os.File, error) { return nil, errors.New("inner matters") }}
	s.start(t, "127.0.0.1")
	k := s.login(t)
	k.passive()
	k.say("LIST", "150")
	if got := k.expect("425"); strings.Contains(got, "inner") {
		t.Error(got)
	}
}

// TestManySessions: they share nothing.
func TestManySessions(t *testing.T) {
	s := new(server).start(t, "127.0.0.1")
	done := make(chan bool)
	for i := range 20 {
		go func() {
			defer func() { done <- true }()
			name := fmt.Sprint("f", i)
			k := s.login(t)
			k.passive()
			k.say("STOR "+name, "150")
			k.put(strings.Repeat(name, 1000))
			k.expect("226")
			k.passive()
			k.say("RETR "+name, "150")
			if got := k.get(); got != strings.Repeat(name, 1000) {
				t.Errorf("%s: got %d bytes", name, len(got))
			}
			k.expect("226")
			k.say("QUIT", "221")
		}()
	}
	for range 20 {
		<-done
	}
}

func TestVerdict(t *testing.T) {
	network := func(err error) error { return &transfer.Error{Network: true, Err: err} }
	file := func(err error) error { return &transfer.Error{Err: err} }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 226},
		{errNoConnection, 425},
		{network(errAborted), 426},
		{network(syscall.ECONNRESET), 426},
		{network(os.ErrDeadlineExceeded), 426},
		{file(syscall.EIO), 451},
		{file(io.ErrUnexpectedEOF), 451},
		{file(syscall.EACCES), 451},
		{file(syscall.ENOSPC), 452},
		{file(syscall.EDQUOT), 452},
		{file(syscall.EFBIG), 552},
		{errors.Join(network(syscall.ECONNRESET), syscall.EIO), 426},
		{syscall.EDQUOT, 452}, // the file's Close
		{errors.New("no idea"), 451},
	} {
		if got, _ := verdict(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
}
