package privseptest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
)

// objects are a file of each kind that a message can declare, and of some that
// none can. What is sent are duplicates.
type objects struct {
	kinds map[ipc.Kind]*os.File
	odd   map[string]*os.File
}

func newObjects(t testing.TB) *objects {
	t.Helper()
	o := &objects{make(map[ipc.Kind]*os.File), make(map[string]*os.File)}
	var keep []*os.File // the other ends
	t.Cleanup(func() {
		for _, f := range o.kinds {
			f.Close()
		}
		for _, f := range o.odd {
			f.Close()
		}
		for _, f := range keep {
			f.Close()
		}
	})
	must := func(f *os.File, err error) *os.File {
		t.Helper()
		if err != nil {
			t.Fatalf("privseptest: making descriptors to send: %v", err)
		}
		return f
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "regular")
	o.kinds[ipc.KindRegular] = must(os.Create(path))
	o.kinds[ipc.KindRegularRead] = must(os.Open(path))
	o.kinds[ipc.KindDirectory] = must(os.Open(dir))
	r, w, err := os.Pipe()
	o.kinds[ipc.KindPipeRead], o.kinds[ipc.KindPipeWrite] = must(r, err), must(w, err)
	a, b, err := ipc.Pair()
	o.kinds[ipc.KindChannel] = must(a, err)
	keep = append(keep, b)
	fd, err := sys.SealedMemfd("privseptest")
	o.kinds[ipc.KindMemfd] = must(os.NewFile(uintptr(max(fd, 0)), "memfd"), err)

	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("privseptest: making descriptors to send: %v", err)
	}
	defer l.Close()
	o.kinds[ipc.KindListener] = must(l.File())
	c, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatalf("privseptest: making descriptors to send: %v", err)
	}
	defer c.Close()
	o.kinds[ipc.KindStream] = must(c.File())
	other, err := l.AcceptTCP()
	if err != nil {
		t.Fatalf("privseptest: making descriptors to send: %v", err)
	}
	defer other.Close()
	keep = append(keep, must(other.File()))

	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("privseptest: making descriptors to send: %v", err)
	}
	defer u.Close()
	o.odd["a UDP socket"] = must(u.File())
	fifo := filepath.Join(dir, "fifo")
	o.odd["a FIFO"] = must(nil, syscall.Mkfifo(fifo, 0o600))
	o.odd["a FIFO"] = must(os.OpenFile(fifo, os.O_RDWR, 0))
	o.odd["a path alone (O_PATH)"] = must(os.OpenFile(path, sys.PathOnly, 0))
	o.odd["a device"] = must(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	o.odd["a lever of the kernel's (/proc/self/oom_score_adj)"] = must(os.OpenFile("/proc/self/oom_score_adj", os.O_RDWR, 0))
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatalf("privseptest: making descriptors to send: %v", err)
	}
	o.odd["a stream of AF_UNIX"] = os.NewFile(uintptr(pair[0]), "unix")
	keep = append(keep, os.NewFile(uintptr(pair[1]), "unix"))
	return o
}

// of returns a duplicate of the object of each kind.
func (o *objects) of(kinds ...ipc.Kind) (files []*os.File, err error) {
	for _, k := range kinds {
		f, err := duplicate(o.kinds[k])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("privseptest: a file of kind %v: %w", k, err)
		}
		files = append(files, f)
	}
	return files, nil
}

func duplicate(f *os.File) (*os.File, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dup := -1, error(nil)
	err = raw.Control(func(old uintptr) { fd, dup = sys.Duplicate(old) })
	if err = errors.Join(err, dup); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
