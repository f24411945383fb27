package ftp

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a Files over a directory. Its hooks stand for what a worker may do.
type tree struct {
	*store.Store
	root   *os.Root
	closed *atomic.Int32

	create func(f *os.File) *os.File // what Create gives in its file's place
	list   func(ctx context.Context, w *os.File) error
}

func (t *tree) Close() error { t.closed.Add(1); return t.root.Close() }

func (t *tree) Create(ctx context.Context, p string, mode files.CreateMode) (*os.File, string, error) {
	f, name, err := t.Store.Create(ctx, p, mode)
	if err == nil && t.create != nil {
		f = t.create(f)
	}
	return f, name, err
}

func (t *tree) List(ctx context.Context, p string, o files.ListOptions, w *os.File) error {
	if t.list != nil {
		return t.list(ctx, w)
	}
	return t.Store.List(ctx, p, o, w)
}

// sockets is a Data in this process.
type sockets struct {
	local, peer netip.Addr
	listener    *net.TCPListener
}

func (s *sockets) Listen(ctx context.Context) (netip.AddrPort, error) {
	s.close()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(s.local, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	s.listener = l
	return l.Addr().(*net.TCPAddr).AddrPort(), nil
}

func (s *sockets) Accept(ctx context.Context) (*os.File, error) {
	if s.listener == nil {
		return nil, syscall.EINVAL
	}
	defer s.close()
	l := s.listener
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() != s.peer.Unmap() {
		c.Close()
		return nil, syscall.EACCES
	}
	return socket(c)
}

func (s *sockets) Connect(ctx context.Context, port uint16) (*os.File, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(s.peer, port).String())
	if err != nil {
		return nil, err
	}
	return socket(c.(*net.TCPConn))
}

func (s *sockets) close() {
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// socket makes of c what a worker is handed: a nonblocking descriptor.
func socket(c *net.TCPConn) (*os.File, error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	raw.Control(func(from uintptr) { fd, err = syscall.Dup(int(from)) })
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), nil
}

// server serves a directory to whoever knows the password.
type server struct {
	addr   string
	root   string
	config Config
	asked  int          // Logins
	closed atomic.Int32 // Files
	logged []Transfer
	ended  chan error // what each Serve returned

	create func(f *os.File) *os.File
	list   func(ctx context.Context, w *os.File) error
	accept func(ctx context.Context) (*os.File, error)

	mu sync.Mutex
	l  *net.TCPListener
	wg sync.WaitGroup
}

func (s *server) Login(ctx context.Context, user, password string) (Files, LoginInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if user == "busy" {
		return nil, LoginInfo{}, syscall.EAGAIN
	}
	if password != "secret" {
		return nil, LoginInfo{}, syscall.EACCES
	}
	root, err := os.OpenRoot(s.root)
	if err != nil {
		return nil, LoginInfo{}, err
	}
	st := store.New(root, store.Options{Writable: user != "reader", Perm: 0o644})
	return &tree{Store: st, root: root, closed: &s.closed, create: s.create, list: s.list}, LoginInfo{Message: []string{"Hello.", "1st visit?"}}, nil
}

// start serves on host until the test ends.
func (s *server) start(t testing.TB, host string) *server {
	t.Helper()
	if s.root == "" {
		s.root = t.TempDir()
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	s.l, s.addr, s.ended = l.(*net.TCPListener), l.Addr().String(), make(chan error, 1000)
	s.config.Log = func(tr Transfer) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.logged = append(s.logged, tr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		for {
			c, err := s.l.AcceptTCP()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.ended <- s.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		s.l.Close()
		cancel()
		s.wg.Wait()
	})
	return s
}

// intercepted is a Data of which a test replaces Accept.
type intercepted struct {
	*sockets
	accept func(ctx context.Context) (*os.File, error)
}

func (i intercepted) Accept(ctx context.Context) (*os.File, error) { return i.accept(ctx) }

func (s *server) serve(ctx context.Context, c *net.TCPConn) error {
	peer := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	data := &sockets{local: c.LocalAddr().(*net.TCPAddr).AddrPort().Addr(), peer: peer.Addr()}
	defer data.close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1) })
	control, err := socket(c)
	if err != nil {
		return err
	}
	session := &Session{Control: control, Peer: peer, Login: s, Data: data, Config: s.config}
	if s.accept != nil {
		session.Data = intercepted{data, s.accept}
	}
	return session.Serve(ctx)
}

func (s *server) transfers() []Transfer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Transfer(nil), s.logged...)
}

func (s *server) read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(s.root + "/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return "(no such file)"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *server) write(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(s.root+"/"+name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
