package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/seccomp"
)

// confinedArgument makes this program enter a sandbox: the ones after it are
// which, its root, the ground, and its parent. launchingArgument makes it the
// process that starts such a one: which, its root, and the ground.
const (
	confinedArgument  = "confined"
	launchingArgument = "launching"
)

// everything is what an ordinary user's host may lack.
const everything = Identity | Root | Namespaces | Landlock | LandlockScopes | WriteExecute | Proof

// memory is for the race detector, which keeps some of every thread that was.
const memory = 16 << 30

// profiles are those of these tests. root has the directories pub and in.
var profiles = map[string]func(root string) Profile{
	"zero": func(string) Profile { return Profile{Memory: memory} },
	"user": func(root string) Profile {
		return Profile{
			UID: 61000, GID: 61001, Groups: []uint32{61003, 61002}, Root: root, Read: []string{"/pub"}, Write: []string{"/in"},
			Promises: seccomp.ReadPaths | seccomp.WritePaths | seccomp.Files, FileSize: 1 << 20, Memory: memory,
		}
	},
	"root that is no directory": func(root string) Profile { return Profile{Root: root + "/pub/file"} },
	"root that is not there":    func(root string) Profile { return Profile{Root: root + "/nowhere"} },
	"path that is not there":    func(root string) Profile { return Profile{Root: root, Read: []string{"/nowhere"}} },
	"path without a root":       func(string) Profile { return Profile{Read: []string{"/pub"}} },
	"invalid":                   func(string) Profile { return Profile{Root: "relative"} },
}

// confined is the process. It writes a line when it is confined, or why not,
// then what its probes found, and churns threads until it is killed.
func confined(args []string) int {
	p := profiles[args[0]](args[1])
	var origin Origin
	fmt.Sscan(args[2], &origin.Ground)
	fmt.Sscan(args[3], &origin.Parent)
	if origin.Ground != groundHost {
		p.Without = everything
	}
	report := os.NewFile(2, "report")
	got, err := p.Enter(origin, os.NewFile(4, "empty"))
	if err != nil {
		var lacks *UnsupportedError
		fmt.Fprintf(report, "error %t %v\n", errors.As(err, &lacks), err)
		return 1
	}
	fmt.Fprintf(report, "confined %d\n", got)
	for _, probe := range []struct {
		name string
		do   func() error
	}{
		{"read /pub/file", func() error { _, err := os.ReadFile("/pub/file"); return err }},
		{"list /pub", func() error { _, err := os.ReadDir("/pub"); return err }},
		{"list /", func() error { _, err := os.ReadDir("/"); return err }},
		{"read /etc/passwd", func() error { _, err := os.ReadFile("/etc/passwd"); return err }},
		{"read /other", func() error { _, err := os.ReadFile("/other"); return err }},
		{"read ../../etc/passwd", func() error { _, err := os.ReadFile("/pub/../../../etc/passwd"); return err }},
		{"follow a link out", func() error { _, err := os.ReadFile("/pub/link"); return err }},
	} {
		if strings.HasPrefix(probe.name, "list") && p.Promises&seccomp.ReadPaths == 0 {
			continue // it kills
		}
		fmt.Fprintf(report, "%s: %v\n", probe.name, why(probe.do()))
	}
	if p.Promises&seccomp.WritePaths != 0 {
		for _, probe := range []struct {
			name string
			do   func() error
		}{
			{"create /in/new", func() error { return os.WriteFile("/in/new", []byte("x"), 0o666) }},
			{"create /pub/new", func() error { return os.WriteFile("/pub/new", []byte("x"), 0o666) }},
			{"write /pub/file", func() error { return os.WriteFile("/pub/file", []byte("x"), 0o666) }},
			{"create /new", func() error { return os.WriteFile("/new", []byte("x"), 0o666) }},
			{"move out of /in", func() error { return os.Rename("/in/new", "/new") }},
		} {
			fmt.Fprintf(report, "%s: %v\n", probe.name, why(probe.do()))
		}
	}
	fmt.Fprintln(report, "end")
	for {
		for range 200 {
			go runtime.Gosched()
		}
		// With cgo a thread counts with its stack of 8 MiB as memory.
		for range 10 {
			go func() {
				runtime.LockOSThread() // and ends with it: a thread is born and dies
				time.Sleep(time.Millisecond)
			}()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// why is an error without a path.
func why(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// launching is the process that starts the confined one, and lives until it is
// killed, as a launcher does.
func launching(args []string) int {
	runtime.LockOSThread()
	var ground Ground
	fmt.Sscan(args[2], &ground)
	p, fd := profiles[args[0]](args[1]), -1
	_, err := ground.Prepare()
	if err == nil {
		_, _, err = syscall.StartProcess("/proc/self/exe",
			append([]string{"confined", confinedArgument}, append(args, fmt.Sprint(os.Getpid()))...),
			&syscall.ProcAttr{Dir: "/", Files: []uintptr{0, 1, 2, 3, 4}, Sys: ground.Worker(&p, &fd)})
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error false %v\n", err)
		return 1
	}
	for fd := range 5 {
		sys.Close(fd)
	}
	for {
		time.Sleep(time.Hour)
	}
}

// A subject is a process under confinement.
type subject struct {
	launcher int
	pid      int
	host     Posture
	lines    *bufio.Scanner
}

// start starts profile in a process that ends with the test.
func start(t *testing.T, profile, root string) *subject {
	t.Helper()
	s := new(subject)
	var err error
	if s.host, err = ReadPosture(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/empty"
	if err := os.Mkdir(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	empty, err := os.Open(dir)
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	grounds, err := Grounds()
	if err != nil {
		t.Fatal(err)
	}
	for _, ground := range grounds {
		fd := -1
		sys.CloseOnExecFrom(3)
		s.launcher, _, err = syscall.StartProcess("/proc/self/exe",
			[]string{"launching", launchingArgument, profile, root, fmt.Sprint(ground)},
			&syscall.ProcAttr{
				Dir: "/", Files: []uintptr{null.Fd(), null.Fd(), w.Fd(), theirs.Fd(), empty.Fd()}, Sys: ground.Launcher(&fd),
			})
		sys.Close(fd)
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	theirs.Close()
	empty.Close()
	null.Close()
	t.Cleanup(func() {
		if err := syscall.Kill(s.launcher, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
		if _, err := syscall.Wait4(s.launcher, nil, 0, nil); err != nil {
			t.Error(err)
		}
		// The end of the process that started it is its own: else this would
		// not end.
		for s.lines.Scan() {
		}
		r.Close()
		mine.Close()
	})
	s.lines = bufio.NewScanner(r)
	return s
}

// next returns the process's next line.
func (s *subject) next(t *testing.T) string {
	t.Helper()
	if !s.lines.Scan() {
		t.Fatal("it says nothing more")
	}
	return s.lines.Text()
}

// confined waits until s says so, and returns what its host lacks.
func (s *subject) confined(t *testing.T) Mechanisms {
	t.Helper()
	var missing uint16
	if line := s.next(t); !strings.HasPrefix(line, "confined ") {
		t.Fatal(line)
	} else {
		fmt.Sscanf(line, "confined %d", &missing)
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", s.launcher))
		for _, list := range lists {
			children, _ := os.ReadFile(list)
			fmt.Sscan(string(children), &s.pid)
		}
	}
	return Mechanisms(missing)
}

// newRoot returns a directory that user 61000 can reach.
func newRoot(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("", "sandbox-root-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	err = errors.Join(
		os.Chmod(root, 0o755), os.Mkdir(root+"/pub", 0o755), os.Mkdir(root+"/in", 0o755),
		os.WriteFile(root+"/pub/file", []byte("x"), 0o644), os.WriteFile(root+"/other", []byte("x"), 0o644),
		os.Symlink("/etc/passwd", root+"/pub/link"),
	)
	if os.Geteuid() == 0 {
		for _, path := range []string{"", "/in", "/pub", "/pub/file", "/other"} {
			err = errors.Join(err, os.Chown(root+path, 61000, 61001))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Every thread of a confined process is as the profile says, those too that
// are born and die meanwhile.
func TestEveryThreadIsConfined(t *testing.T) {
	for _, name := range []string{"zero", "user"} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			s := start(t, name, root)
			missing := s.confined(t)
			if os.Geteuid() == 0 && missing != 0 {
				t.Errorf("root's host lacks %v", missing)
			}
			for s.next(t) != "end" {
			}
			profile := profiles[name](root)
			seen := make(map[int]bool)
			for range 100 {
				p, err := ReadPosture(s.pid)
				if err != nil {
					t.Fatal(err)
				}
				if p.Hidden {
					missing |= Proof
					if os.Geteuid() == 0 {
						for s.lines.Scan() {
							t.Log(s.lines.Text())
						}
						t.Fatalf("hidden from root: %v", new(Evidence).readLinks(fmt.Sprint("/proc/", s.pid)))
					}
				}
				if err := p.Check(&profile, missing, &s.host); err != nil {
					t.Fatalf("%v\n%v", err, &p)
				}
				for _, thread := range p.Threads {
					seen[thread.TID] = true
				}
				time.Sleep(time.Millisecond)
			}
			if len(seen) < 8 {
				t.Errorf("%d threads were seen: none was born meanwhile", len(seen))
			}
			t.Logf("%d threads, missing %v", len(seen), missing)
		})
	}
}

func TestWhatIsInReach(t *testing.T) {
	testenv.NeedRoot(t)
	for name, want := range map[string][]string{
		"zero": {
			"read /pub/file: permission denied",
			"read /etc/passwd: permission denied", "read /other: permission denied",
			"read ../../etc/passwd: permission denied", "follow a link out: permission denied",
		},
		"user": {
			"read /pub/file: <nil>", "list /pub: <nil>", "list /: permission denied",
			"read /etc/passwd: no such file or directory", "read /other: permission denied",
			"read ../../etc/passwd: no such file or directory", "follow a link out: no such file or directory",
			"create /in/new: <nil>", "create /pub/new: permission denied", "write /pub/file: permission denied",
			"create /new: permission denied", "move out of /in: permission denied",
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := newRoot(t)
			s := start(t, name, root)
			s.confined(t)
			for _, want := range want {
				if got := s.next(t); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			if name != "user" {
				return
			}
			info, err := os.Stat(filepath.Join(root, "in/new"))
			if err != nil {
				t.Fatal(err)
			}
			if stat := info.Sys().(*syscall.Stat_t); info.Mode() != 0o600 || stat.Uid != 61000 || stat.Gid != 61001 {
				t.Errorf("it created a file of mode %v, user %d, group %d", info.Mode(), stat.Uid, stat.Gid)
			}
		})
	}
}

// What can't be had is no weaker sandbox.
func TestEnterFails(t *testing.T) {
	for profile, want := range map[string]string{
		"root that is no directory": "sandbox: root: open ",
		"root that is not there":    "sandbox: root: open ",
		"path that is not there":    "sandbox: landlock: stat ",
		"path without a root":       "sandbox: landlock: path /pub: a profile without a root",
		"invalid":                   `sandbox: root "relative" is not`,
	} {
		t.Run(profile, func(t *testing.T) {
			s := start(t, profile, newRoot(t))
			if got := s.next(t); !strings.HasPrefix(got, "error false "+want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A launch that lacks a mechanism does not go on without it, and says which by
// type.
func TestEnterWithoutWhatItNeeds(t *testing.T) {
	for ground, want := range map[Ground]Mechanisms{groundFlat: Namespaces, groundUser: Identity, groundNone: Identity} {
		_, err := new(Profile).Enter(Origin{Ground: ground}, nil)
		var e *UnsupportedError
		if !errors.As(err, &e) || e.Mechanism != want || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: got %v, want an UnsupportedError", want, err)
		}
	}
}
