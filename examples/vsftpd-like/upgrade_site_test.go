//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// initName is the argument zero of the process that is init of an upgraded site:
// the first server's parent, and its successors' when that is gone. All end with
// it, because it is the first of a PID namespace.
const initName = "vsftpd-like-init"

func beInit(dir string, argv []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "server not started:", err)
		return 1
	}
	for _, name := range stageFiles {
		if err := syscall.Mount(filepath.Join(dir, name), "/etc/"+name, "", syscall.MS_BIND, ""); err != nil {
			return fail(err)
		}
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fail(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	defer null.Close()
	env := os.Environ()
	for strings.Contains(argv[0], "=") {
		env, argv = append(env, argv[0]), argv[1:]
	}
	files := []*os.File{null, os.Stdout, os.Stderr}
	var names []string
	secluded := false
	for _, word := range env {
		name, address, _ := strings.Cut(word, "=")
		switch name {
		case "TEST_LISTEN":
			name = "ftp"
		case "TEST_PASSIVE":
			name = poolName
		case "TEST_SECLUDED":
			secluded = true
			fallthrough
		default:
			continue
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			return fail(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return fail(err)
		}
		files, names = append(files, f), append(names, name)
	}
	if len(names) > 0 {
		// As a service manager hands over sockets (sd_listen_fds(3)): only the
		// process itself knows its number in time.
		argv = append([]string{"/bin/sh", "-c", fmt.Sprintf(`export LISTEN_PID=$$ LISTEN_FDS=%d LISTEN_FDNAMES=%s; exec "$@"`,
			len(names), strings.Join(names, ":")), "sh"}, argv...)
	}
	env = slices.DeleteFunc(env, func(word string) bool { return strings.HasPrefix(word, "TEST_") })
	if secluded {
		// As the service's unit does: no network, and no right to make a namespace.
		runtime.LockOSThread() // whose namespace it is, and the server's that it starts
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return fail(err)
		}
		argv = append([]string{"/usr/bin/setpriv", "--bounding-set=-sys_admin,-net_admin,-net_raw,-dac_read_search", "--"}, argv...)
	}
	if _, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Dir: "/", Env: env, Files: files}); err != nil {
		return fail(err)
	}
	go func() {
		for range stop {
			for _, pid := range serversIn("/proc", func(pid int) bool { return pid != 1 }) {
				syscall.Kill(pid, syscall.SIGTERM)
			}
		}
	}()
	for {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); errors.Is(err, syscall.ECHILD) {
			return 0
		}
	}
}

// serversIn are the processes that are servers, and neither worker nor other
// part of one, the oldest first.
func serversIn(proc string, ours func(pid int) bool) (all []int) {
	type server struct {
		pid   int
		start uint64
	}
	var found []server
	dirs, _ := filepath.Glob(proc + "/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat := statOf(pid)
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		name, _, _ := strings.Cut(string(cmdline), "\x00")
		if len(stat) < 20 || stat[0] == "Z" || strings.Contains(name, ": ") || !strings.HasSuffix(name, "/server") || !ours(pid) {
			continue
		}
		start, _ := strconv.ParseUint(stat[19], 10, 64)
		found = append(found, server{pid, start})
	}
	// What has a server for its parent is about to be one of its workers.
	found = slices.DeleteFunc(found, func(s server) bool {
		stat := statOf(s.pid)
		return len(stat) < 2 || slices.ContainsFunc(found, func(o server) bool { return strconv.Itoa(o.pid) == stat[1] })
	})
	slices.SortFunc(found, func(a, b server) int { return int(a.start) - int(b.start) })
	for _, s := range found {
		all = append(all, s.pid)
	}
	return all
}

// An upgradeSite is a site whose server can be replaced.
type upgradeSite struct {
	*site
	program string // path of the server's binary, a copy
	manager *net.UnixConn
}

// startUpgradeSite starts a site with a service manager that listens.
func startUpgradeSite(t *testing.T, settings map[string]string, env ...string) *upgradeSite {
	t.Helper()
	s := &upgradeSite{site: layOut(t, settings)}
	s.program = filepath.Join(s.dir, "server")
	s.install(t)
	path := s.dir + "/notify"
	var err error
	if s.manager, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.manager.Close() })
	args := []string{initName, s.dir, s.program, "-v", "-config", s.dir + "/conf"}
	n := 1
	if settings["listen"] == "" && len(env) == 0 {
		n, args = 2, append(args, "-listen", "127.0.0.1:0", "-listen", "[::1]:0")
	}
	args = slices.Insert(args, 2, append(env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=2000000")...)
	s.daemon = startDaemon(t, s.dir, nil, args...)
	s.address = s.listening(t, n)
	s.told(t, "READY=1")
	return s
}

// install puts the binary under test at the server's path, as a package manager
// does: the file that runs is not touched.
func (s *upgradeSite) install(t testing.TB) {
	t.Helper()
	in, err := os.Open(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(s.program+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close(), os.Rename(s.program+".new", s.program)); err != nil {
		t.Fatal(err)
	}
}

// installScript puts something else there.
func (s *upgradeSite) installScript(t testing.TB, text string, mode os.FileMode) {
	t.Helper()
	err := os.WriteFile(s.program+".new", []byte(text), mode)
	if err := errors.Join(err, os.Chmod(s.program+".new", mode), os.Rename(s.program+".new", s.program)); err != nil {
		t.Fatal(err)
	}
}

// told waits until the manager is told a line that begins with want, and returns
// the lines that came with it. Others before it are dropped.
func (s *upgradeSite) told(t testing.TB, want string) string {
	t.Helper()
	s.manager.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 4096)
	for {
		n, err := s.manager.Read(b)
		if err != nil {
			t.Fatalf("the manager was not told %s: %v", want, err)
		}
		if strings.HasPrefix(string(b[:n]), want) {
			return string(b[:n])
		}
	}
}

// servers are the numbers of the site's servers here, the newest last.
func (s *upgradeSite) servers() []int {
	return serversIn("/proc", func(pid int) bool {
		for range 5 {
			stat := statOf(pid)
			if len(stat) < 2 || pid <= 1 {
				return false
			}
			if pid, _ = strconv.Atoi(stat[1]); pid == s.Pid {
				return true
			}
		}
		return false
	})
}

func (s *upgradeSite) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	all := s.servers()
	if len(all) == 0 {
		t.Fatalf("no server:\n%s", s.output())
	}
	if err := syscall.Kill(all[len(all)-1], sig); err != nil {
		t.Fatal(err)
	}
}

// upgrade replaces the server, and returns when the new one serves.
func (s *upgradeSite) upgrade(t testing.TB) {
	t.Helper()
	n := s.logged(`msg="replaced;`)
	s.signal(t, syscall.SIGUSR2)
	s.awaitLog(t, n+1, `msg="replaced;`)
}

// awaitServers waits until as many are left.
func (s *upgradeSite) awaitServers(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(s.servers()) != n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			out, _ := exec.Command("ps", "-ef", "--forest").CombinedOutput()
			t.Fatalf("%d servers, want %d\n%s", len(s.servers()), n, out)
		}
	}
}

func (s *upgradeSite) hangUp(t testing.TB, words ...string) {
	t.Helper()
	before := s.logged(words...)
	s.signal(t, syscall.SIGHUP)
	s.awaitLog(t, before+1, words...)
}
