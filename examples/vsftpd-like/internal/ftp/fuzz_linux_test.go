package ftp

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// stub is a Login, a Data and a Files that has one of everything and keeps
// nothing. It fails the test for what the engine must never ask.
type stub struct {
	t        testing.TB
	failures int
}

func (s *stub) Login(ctx context.Context, user, password string) (Files, LoginInfo, error) {
	if s.failures == maxFailures {
		s.t.Error("a fourth try was asked")
	}
	if password != "p" {
		s.failures++
		return nil, LoginInfo{}, syscall.EACCES
	}
	return s, LoginInfo{Dir: "/home"}, nil
}

func (s *stub) Listen(context.Context) (netip.AddrPort, error) {
	return netip.MustParseAddrPort("127.0.0.1:2000"), nil
}

// pair is a connection whose client has sent a little and reads nothing.
func (s *stub) pair() (*os.File, error) {
	p, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	syscall.Write(p[1], []byte("some\r\nbytes"))
	syscall.Close(p[1])
	return os.NewFile(uintptr(p[0]), "data"), nil
}

func (s *stub) Accept(context.Context) (*os.File, error) { return s.pair() }

func (s *stub) Connect(_ context.Context, port uint16) (*os.File, error) {
	if port < leastPort {
		s.t.Errorf("asked to connect to port %d", port)
	}
	return s.pair()
}

func (s *stub) path(p string) {
	if clean, err := resolve("/", p); err != nil || clean != p {
		s.t.Errorf("asked for path %q", p)
	}
}

func (s *stub) Stat(_ context.Context, p string) (files.Info, error) {
	s.path(p)
	if strings.HasSuffix(p, "x") {
		return files.Info{}, syscall.ENOENT
	}
	mode := uint32(files.ModeRegular | 0o644)
	if len(p)%2 == 1 {
		mode = files.ModeDir | 0o755
	}
	return files.Info{Name: "n", Size: 4, Mode: mode}, nil
}

func (s *stub) Open(_ context.Context, p string) (*os.File, files.Info, error) {
	s.path(p)
	f, err := os.Open("/dev/null")
	return f, files.Info{Mode: files.ModeRegular}, err
}

func (s *stub) Create(_ context.Context, p string, m files.CreateMode) (*os.File, string, error) {
	s.path(p)
	if !m.Valid() {
		s.t.Errorf("asked for mode %d", m)
	}
	f, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	return f, p + "\r\n226 x", err
}

func (s *stub) List(_ context.Context, p string, o files.ListOptions, w *os.File) error {
	s.path(p)
	if !o.Valid() {
		s.t.Errorf("asked for listing %+v", o)
	}
	_, err := io.WriteString(w, "220 a\r\nb\nc")
	return err
}

func (s *stub) Mkdir(_ context.Context, p string) error  { s.path(p); return nil }
func (s *stub) Rmdir(_ context.Context, p string) error  { s.path(p); return syscall.ENOTEMPTY }
func (s *stub) Remove(_ context.Context, p string) error { s.path(p); return syscall.EIO }
func (s *stub) Rename(_ context.Context, from, to string) error {
	s.path(from)
	s.path(to)
	return nil
}
func (s *stub) Close() error { return nil }

// converse sends in to a session and returns all its replies.
func converse(t testing.TB, in []byte) []byte {
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := &stub{t: t}
		session := Session{Control: theirs, Peer: netip.MustParseAddrPort("127.0.0.1:1"), Login: s, Data: s}
		session.Config.IdleTimeout = 5 * time.Second
		session.TLS = func(context.Context) (*tls.Config, error) { return &tls.Config{}, nil }
		session.Serve(context.Background())
	}()
	replies := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(ours)
		replies <- b
	}()
	go func() {
		ours.SetWriteDeadline(time.Now().Add(5 * time.Second))
		ours.Write(in)
		ours.Write([]byte("\n\nQUIT\r\n")) // a telnet command at the end of in takes the first
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("hangs after %q\n%s", in, buf[:runtime.Stack(buf, true)])
	}
	ours.Close()
	return <-replies
}

// FuzzSession: whatever a client sends, the session ends, the engine asks for
// nothing it must not ask for, and every line of reply is the server's own.
func FuzzSession(f *testing.F) {
	const login = "USER u\r\nPASS p\r\n"
	for _, s := range []string{
		"", "USER u\r\nPASS q\r\nUSER u\r\nPASS q\r\nUSER u\r\nPASS q\r\nUSER u\r\nPASS q\r\n",
		login + "PASV\r\nRETR f\r\nPWD\r\nSTAT\r\nABOR\r\nREIN\r\nPWD\r\n",
		login + "EPSV\r\nSTOU a\xff\xffb\r\nEPSV\r\nAPPE f\r\nTYPE I\r\nREST 1\r\nEPSV\r\nSTOR f\r\n",
		login + "EPRT |1|127.0.0.1|2000|\r\nLIST -la *\r\nPORT 127,0,0,1,7,7\r\nNLST d/[a-\r\nEPSV\r\nMLSD\r\n",
		login + "MKD a\"b\r\x00c\r\nRNFR a\r\nRNTO ../b\r\nSTAT d\r\nMLST\r\nSIZE f\r\nMDTM f\r\nOPTS MLST size;type\r\nFEAT\r\nHELP\r\n",
		login + "GET / HTTP/1.1\r\n\r\n", "\xff\xf4\xff\xf2ABOR\r\n", login + strings.Repeat("x", 5000) + "\r\nNOOP\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 16<<10 {
			return
		}
		replies := converse(t, in)
		open := "" // the code of a reply of several lines
		for l := range bytes.Lines(replies) {
			text, whole := strings.CutSuffix(string(l), "\r\n")
			if !whole || strings.ContainsAny(text, "\r\n\x00\x1b\x7f") {
				t.Fatalf("line %q in %q", l, replies)
			}
			switch {
			case open == "" && len(text) > 3 && text[3] == '-':
				open = text[:3]
			case open != "" && strings.HasPrefix(text, open+" "):
				open = ""
			case open != "" && !strings.HasPrefix(text, " "):
				t.Fatalf("line %q within %s", l, open)
			case open == "" && (len(text) < 4 || text[3] != ' ' || text[0] < '1' || text[0] > '5'):
				t.Fatalf("line %q is no reply in %q", l, replies)
			}
		}
		if open != "" {
			t.Fatalf("reply %s has no end", open)
		}
	})
}
