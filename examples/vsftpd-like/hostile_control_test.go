//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/sandbox"
	"github.com/go-privsep/sallyport/seccomp"
)

// A test that attacks fail proves nothing unless they succeed where the defence
// is missing. Here each is tried without it.

// controlVariable names an attack to the process that tries it unconfined.
const controlVariable = "VSFTPD_LIKE_CONTROL"

// TestHostileControlProcess is no test but that process: it does one attack
// on two decoys, in a directory of its own, as root and without a sandbox.
func TestHostileControlProcess(t *testing.T) {
	o, ok := parseOrder("\x00taken over\x00" + os.Getenv(controlVariable))
	if !ok {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := conn.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{files: []*os.File{f}, monitor: o.sibling, sibling: o.sibling}
	fmt.Fprintln(os.Stderr, resultMark+attacks()[o.name](a)+".")
	unix.Exit(0) // the runtime may not survive what was done
}

// TestHostileCallsControl: what the sandbox prevents is possible without it.
func TestHostileCallsControl(t *testing.T) {
	testenv.NeedRoot(t)
	a := newArena(t)
	for _, c := range append(callCases(), append(socketCalls(), fileCalls()...)...) {
		if c.bare == unattended {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			decoy := exec.Command("sleep", "60")
			if err := decoy.Start(); err != nil {
				t.Fatal(err)
			}
			defer decoy.Wait()
			defer decoy.Process.Kill()
			root := a.newTree(t, trial{})
			// A neighbourhood of its own: what is outside gets changed.
			mustWrite(t, filepath.Join(root, "tree", "readme.txt"), "harmless", 0o644)
			mustWrite(t, filepath.Join(root, "outside", "public"), "of the host", 0o644)
			for _, err := range []error{
				os.Mkdir(filepath.Join(root, "tree", "dir"), 0o755),
				os.Symlink("/etc/passwd", filepath.Join(root, "tree", "absolute")),
				os.Symlink("../outside/public", filepath.Join(root, "tree", "upwards")),
				os.Link(filepath.Join(root, "hardlink"), filepath.Join(root, "tree", "hardlink")),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
			bare := exec.Command("/proc/self/exe", "-test.run=^TestHostileControlProcess$")
			bare.Dir = filepath.Join(root, "tree")
			bare.Env = append(os.Environ(), fmt.Sprintf("%s=0 %d 0 call: %s", controlVariable, decoy.Process.Pid, c.name))
			out, err := bare.CombinedOutput()
			_, got, ok := strings.Cut(string(out), resultMark)
			if got = strings.TrimSuffix(strings.TrimSpace(got), "."); !ok {
				t.Fatalf("the control did not live to tell: %v\n%s", err, out)
			}
			switch {
			case got == noInterrupt:
				t.Log("not on this machine: ", got)
			case c.bare != "" && got != c.bare:
				t.Errorf("without a sandbox: got %s, want %s", got, c.bare)
			case got == c.session && c.session != "ENOSYS", got == c.reader && c.reader != "ENOSYS":
				t.Errorf("with and without a sandbox: got %s", got)
			}
		})
	}
}

// TestHostileLayers takes layers away one by one from a worker that has all
// others: each stops its attack alone.
func TestHostileLayers(t *testing.T) {
	a := newArena(t)
	open := func(path string, flags int) string { return fmt.Sprintf("layer: open %s %d", path, flags) }
	const all = seccomp.ReadPaths | seccomp.WritePaths | seccomp.Files
	const create = unix.O_WRONLY | unix.O_CREAT
	who := a.config.AnonymousUser
	full := func(root string) sandbox.Profile {
		return sandbox.Profile{UID: who.UID, GID: who.GID, Root: root, Read: []string{"/"}, Promises: all, FileSize: 1 << 20, Without: a.without}
	}
	for _, c := range []struct {
		name, attack  string
		with, without string
		weaken        func(*sandbox.Profile)
		rootOnly      bool
	}{
		{"landlock keeps a reader from writing", open("readme.txt", unix.O_WRONLY), "EACCES", "ok",
			func(p *sandbox.Profile) { p.Write = []string{"/"} }, false},
		{"landlock keeps a reader from creating", open("new", create), "EACCES", "ok",
			func(p *sandbox.Profile) { p.Write = []string{"/"} }, false},
		{"landlock keeps it to its paths", open("readme.txt", 0), "EACCES", "ok",
			func(p *sandbox.Profile) { p.Read = []string{"/"} }, false},
		{"the root hides the host", open("../outside/public", 0), "ENOENT", "ok",
			func(p *sandbox.Profile) { p.Root, p.Read = filepath.Dir(p.Root), []string{"/"} }, false},
		{"the filter keeps it from writing", open("new", create), killed, "EACCES",
			func(p *sandbox.Profile) { p.Promises = all }, false},
		{"the user's rights are the user's", open("hardlink", 0), "EACCES", "ok",
			func(p *sandbox.Profile) { p.UID = 65531 }, true},
		{"the file size is bounded", "layer: write", "EFBIG", "ok",
			func(p *sandbox.Profile) { p.FileSize = 1 << 20 }, false},
		{"descriptors are bounded", "layer: descriptors", "EMFILE", "ok",
			func(p *sandbox.Profile) { p.OpenFiles = 1024 }, false},
		{"memory is bounded", "layer: memory", "ENOMEM", "ok",
			func(p *sandbox.Profile) { p.Memory = 1 << 30 }, false},
	} {
		if c.rootOnly && os.Geteuid() != 0 || c.name == "memory is bounded" && testing.Short() {
			continue // short is how it runs under the race detector, which needs gigabytes
		}
		t.Run(c.name, func(t *testing.T) {
			for _, weak := range []bool{false, true} {
				root := a.newTree(t, trial{write: true})
				p, want := full(root), c.with
				switch c.name { // the layer in question, at its strongest
				case "landlock keeps it to its paths":
					p.Read = []string{"/dir"}
				case "the filter keeps it from writing":
					p.Promises = seccomp.ReadPaths | seccomp.Files
				case "the file size is bounded":
					p.FileSize, p.Write = 0, []string{"/"}
				case "memory is bounded":
					p.Memory = 256 << 20
				case "the user's rights are the user's":
					if err := os.Lchown(filepath.Join(a.base, "outside", "secret"), 65531, 65531); err != nil {
						t.Fatal(err)
					}
				}
				if weak {
					c.weaken(&p)
					want = c.without
				}
				if got := a.alone(t, c.attack, p); got != (end{"layers", want}) {
					t.Errorf("weak %t: got %v, want %v", weak, got, want)
				}
			}
		})
	}
}

// alone runs an attack in a session worker with another sandbox.
func (a *arena) alone(t *testing.T, attack string, p sandbox.Profile) end {
	t.Helper()
	policy := new(privsep.Policy)
	phase := privsep.NewPhase(policy, "alone", func(*arena) privsep.Launch {
		return privsep.Launch{Role: &layersRole, Sandbox: p, Message: &SessionConfig{Banner: order{name: attack}.String()}}
	})
	m, err := privsep.NewMonitor(policy, privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return endOf(privsep.Serve(ctx, m, phase, a))
}

func layerAttacks() map[string]attack {
	all := map[string]attack{
		"layer: write": func(a *attacker) string {
			fd, errno := raw(unix.SYS_OPENAT, here, cstring("readme.txt"), unix.O_WRONLY)
			if errno != 0 {
				return "open: " + errnoName(errno)
			}
			return a.call(unix.SYS_PWRITE64, fd, room(), 4096, 0)
		},
		"layer: descriptors": func(a *attacker) string {
			got := a.call(unix.SYS_FCNTL, 2, unix.F_DUPFD_CLOEXEC, 0)
			for range 100 { // without a mark each: standard error holds few
				if _, errno := raw(unix.SYS_FCNTL, 2, unix.F_DUPFD_CLOEXEC, 0); errno != 0 {
					got = errnoName(errno)
				}
			}
			return got
		},
		// The kernel counts this way of asking and not two others (MAP_SHARED,
		// and MAP_FIXED over a reservation, which the Go runtime needs): the
		// limit is for accidents, an attacker needs a cgroup.
		"layer: memory": func(a *attacker) string {
			return a.call(unix.SYS_MMAP, 0, 400<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON, ^uintptr(0), 0)
		},
	}
	for _, path := range []string{"readme.txt", "new", "hardlink", "../outside/public"} {
		for _, flags := range []uintptr{unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY | unix.O_CREAT} {
			all[fmt.Sprintf("layer: open %s %d", path, flags)] = func(a *attacker) string {
				return a.call(unix.SYS_OPENAT, here, cstring(path), flags, 0o600)
			}
		}
	}
	return all
}
