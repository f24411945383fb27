//go:build linux

package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/privsep"
)

// TestMain makes the test binary its own workers, and for a moment each server
// that is started: see stage.
func TestMain(m *testing.M) {
	if os.Args[0] == initName {
		os.Exit(beInit(os.Args[1], os.Args[2:]))
	}
	if os.Args[0] == stageName {
		fmt.Fprintln(os.Stderr, "server not started:", stage(os.Args[1], os.Args[2:]))
		os.Exit(1)
	}
	privsep.Main(func() {
		switch os.Args[0] {
		case arbitraryName:
			arbitraryMonitor()
			os.Exit(0)
		case bareName:
			bareMonitor()
			os.Exit(0)
		}
		manyAtOnce()
		code := m.Run()
		os.RemoveAll(built.dir)
		os.Exit(code)
	}, append([]*privsep.Role{&sessionRole, &filesRole, &accountsRole, &keysRole}, testRoles()...)...)
}

// manyAtOnce has more parallel tests run than there are processors, as they
// wait most of the time: for processes to start and to be gone. What the command
// line says counts, and fuzzing has a use of its own for the number.
func manyAtOnce() {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" || f.Name == "test.fuzz" })
	if !said {
		flag.Set("test.parallel", strconv.Itoa(max(6, runtime.GOMAXPROCS(0))))
	}
}

// stageName is the argument zero of the process between the test and the
// server: in a mount namespace of its own, about to become the server.
const stageName = "vsftpd-like-stage"

// stageFiles are the user database of a site. Nothing of the host's is changed.
var stageFiles = []string{"passwd", "group", "shadow", "shells"}

func stage(dir string, argv []string) error {
	for _, name := range stageFiles {
		path := filepath.Join("/etc", name)
		if err := syscall.Mount(filepath.Join(dir, name), path, "", syscall.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "mount", Path: path, Err: err}
		}
	}
	path := argv[0]
	if path == arbitraryName || path == bareName {
		path = "/proc/self/exe"
	}
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, argv, os.Environ())}
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

// binary is the server as an operator has it, built once.
func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "vsftpd-like-test-"); built.err != nil {
			return
		}
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil { // other users run it, too
			return
		}
		if out, err := exec.Command("go", "build", "-o", filepath.Join(built.dir, "vsftpd-like"), ".").CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "vsftpd-like")
}
