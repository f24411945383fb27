package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// What is no regular file is not even opened: of a device that may do something,
// and a FIFO's writer may wait for it.
func TestOpenFirstOpensRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	fifo, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	watch, err := syscall.InotifyInit1(syscall.IN_NONBLOCK | syscall.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(watch)
	if _, err := syscall.InotifyAddWatch(watch, fifo, syscall.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	opened := func() bool {
		n, _ := syscall.Read(watch, make([]byte, 4096))
		return n > 0
	}
	for _, path := range []string{fifo, link, dir, os.DevNull} {
		p := Profile{Open: []string{path}}
		if files, err := p.OpenFirst(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: got %v, %v", path, files, err)
		}
	}
	if opened() {
		t.Error("the FIFO was opened")
	}
	// The control: an open is seen.
	f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !opened() {
		t.Error("an open is not seen")
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Profile{Open: []string{file}}
	files, err := p.OpenFirst()
	if err != nil {
		t.Fatal(err)
	}
	defer files[0].Close()
	text := make([]byte, 10)
	if n, _ := files[0].Read(text); string(text[:n]) != "content" {
		t.Errorf("read %q", text[:n])
	}
	if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, files[0].Fd(), syscall.F_GETFD, 0); errno != 0 || flags&syscall.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v, want close-on-exec", flags, errno)
	}
}
