// Package peer starts the servers that the bench compares, each in the same
// surroundings: loopback, one site on tmpfs, one user database, no log.
//
// The host stays as it was: a server runs in a mount namespace of its own, in
// which /etc/passwd, /etc/group and /etc/shadow have one more user. It needs
// root, and a program that starts servers must call Main first.
package peer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/bench/ftpload"
)

// A Server is a kind of FTP server.
type Server struct {
	Name    string
	Version string
	// Command writes the configuration for a site and returns the argument
	// vector, whose first element is the program's absolute path. The program
	// must stay in the foreground and end on SIGTERM.
	Command func(*Site) (argv []string, err error)
}

// A Site is where and what one instance serves.
type Site struct {
	Dir              string // configuration, log and all else of this instance
	Root             string // what anonymous sees; not writable by anonymous
	Upload           string // where in Root anonymous may write
	Home             string // the home of Local
	Port             int    // on 127.0.0.1
	MinPort, MaxPort int    // passive ports
	Spares           int    // workers kept ready, for servers that have them
}

// Local is the local user that each site has, in yescrypt as Debian hashes.
var Local = ftpload.Account{User: "sallyport-bench", Password: "bench"}

const (
	localHash = "$y$j9T$sallyportbenchsalt01$g.FVHzjwyuophY.oh3EDft9Co4qxq35r4uW5dOvxuo0"
	localID   = 59999
)

// An Instance is a running server.
type Instance struct {
	Server *Server
	Site   *Site
	Addr   string

	process *os.Process
	done    chan struct{} // closed when the first process has been waited for
	memory  *memoryGroup  // nil: none could be made, or none was asked for
}

// Options are what an instance may have beside its site.
type Options struct {
	Spares       int
	MemoryCgroup bool // for Charged; its absence is no error
}

// Start makes a site below parent, which should be on tmpfs, and starts the
// server on it. The caller stops it.
func Start(ctx context.Context, s *Server, parent string, opt Options) (*Instance, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("peer: FTP servers need root to be started")
	}
	dir, err := os.MkdirTemp(parent, "ftpbench-"+s.Name+"-")
	if err != nil {
		return nil, err
	}
	in := &Instance{Server: s, done: make(chan struct{})}
	if err := in.start(ctx, dir, opt); err != nil {
		err = fmt.Errorf("peer: start %s: %w%s", s.Name, err, logTail(dir))
		return nil, errors.Join(err, in.Stop(), os.RemoveAll(dir))
	}
	return in, nil
}

func (in *Instance) start(ctx context.Context, dir string, opt Options) error {
	site, err := makeSite(dir)
	if err != nil {
		return err
	}
	site.Spares = opt.Spares
	in.Site, in.Addr = site, fmt.Sprintf("127.0.0.1:%d", site.Port)
	argv, err := in.Server.Command(site)
	if err != nil {
		return err
	}
	procs := ""
	if opt.MemoryCgroup {
		if in.memory, err = newMemoryGroup(); err == nil {
			procs = filepath.Join(in.memory.dir, "cgroup.procs")
		}
	}
	if err := in.exec(append([]string{stageName, dir, procs}, argv...)); err != nil {
		return err
	}
	return in.ready(ctx)
}

// exec starts the process from a thread that lives as long as it does, because
// the kernel ties PR_SET_PDEATHSIG to the thread: whatever becomes of the
// bench, no server stays behind.
func (in *Instance) exec(args []string) error {
	log, err := os.Create(filepath.Join(in.Site.Dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		p, err := os.StartProcess("/proc/self/exe", args, &os.ProcAttr{
			Dir:   "/",
			Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
			Files: []*os.File{null, log, log},
			Sys:   &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL},
		})
		in.process = p
		started <- err
		if err == nil {
			p.Wait()
			close(in.done)
		}
	}()
	return <-started
}

// ready waits until the server greets.
func (in *Instance) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for {
		c, err := ftpload.Dial(ctx, in.Addr)
		if err == nil {
			return c.Quit()
		}
		select {
		case <-in.done:
			return errors.New("it exited")
		case <-ctx.Done():
			return cmp.Or(err, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server and all of its processes and removes its site.
func (in *Instance) Stop() error {
	var err error
	if in.process != nil {
		err = in.end()
	}
	if in.memory != nil {
		err = errors.Join(err, in.memory.remove())
	}
	if in.Site != nil {
		err = errors.Join(err, os.RemoveAll(in.Site.Dir))
	}
	return err
}

func (in *Instance) end() error {
	select {
	case <-in.done: // its number may be another's by now
		return nil
	default:
	}
	// Handles taken now are pidfds: they can't come to mean another process.
	var rest []*os.Process
	for _, pid := range in.PIDs() {
		if p, err := os.FindProcess(pid); err == nil {
			rest = append(rest, p)
			defer p.Release()
		}
	}
	var err error
	in.process.Signal(syscall.SIGTERM)
	select {
	case <-in.done:
	case <-time.After(5 * time.Second):
		err = fmt.Errorf("peer: %s did not end on SIGTERM within 5 s", in.Server.Name)
		in.process.Kill()
		<-in.done
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		alive := rest[:0]
		for _, p := range rest {
			if p.Signal(syscall.Signal(0)) == nil && !zombie(p.Pid) {
				alive = append(alive, p)
			}
		}
		if rest = alive; len(rest) == 0 {
			return err
		}
	}
	for _, p := range rest {
		p.Kill()
	}
	return errors.Join(err, fmt.Errorf("peer: %s left %d processes behind", in.Server.Name, len(rest)))
}

// Files writes n files of the given size into the site's root and returns
// their names as a client says them.
func (in *Instance) Files(prefix string, n int, size int64) ([]string, error) {
	chunk := bytes.Repeat([]byte("sallyport bench\n"), 1<<16)
	var names []string
	for i := range n {
		name := fmt.Sprint(prefix, i)
		f, err := os.OpenFile(filepath.Join(in.Site.Root, name), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, err
		}
		for left := size; left > 0 && err == nil; left -= int64(len(chunk)) {
			_, err = f.Write(chunk[:min(left, int64(len(chunk)))])
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// TakeUploads removes what was uploaded and fails unless it is n files of the
// given size.
func (in *Instance) TakeUploads(n, size int64) error {
	dir := filepath.Join(in.Site.Root, in.Site.Upload)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var wrong string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() != size {
			wrong = fmt.Sprintf("%s has %d bytes, want %d", e.Name(), info.Size(), size)
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if wrong != "" {
		return fmt.Errorf("peer: upload to %s: %s", in.Server.Name, wrong)
	}
	if int64(len(entries)) != n {
		return fmt.Errorf("peer: %d uploads to %s left %d files", n, in.Server.Name, len(entries))
	}
	return nil
}

func makeSite(dir string) (*Site, error) {
	site := &Site{Dir: dir, Root: filepath.Join(dir, "root"), Upload: "upload", Home: filepath.Join(dir, "home")}
	// The base is below the kernel's ephemeral ports, which the load uses up.
	port, err := freePort(10000, 12000)
	if err != nil {
		return nil, err
	}
	site.Port, site.MinPort, site.MaxPort = port, 12001, 31999
	upload := filepath.Join(site.Root, site.Upload)
	return site, errors.Join(
		os.Chmod(dir, 0o755),
		os.Mkdir(site.Root, 0o755),
		os.Mkdir(upload, 0o777),
		os.Chmod(upload, 0o777), // past the umask: servers differ in who anonymous is
		os.Mkdir(site.Home, 0o755),
		os.Chown(site.Home, localID, localID),
		extend("/etc/passwd", dir, fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", Local.User, localID, localID, site.Home), 0o644),
		extend("/etc/group", dir, fmt.Sprintf("%s:x:%d:\n", Local.User, localID), 0o644),
		extend("/etc/shadow", dir, fmt.Sprintf("%s:%s:20000:0:99999:7:::\n", Local.User, localHash), 0o600),
	)
}

// extend copies a file of /etc into dir with one more line.
func extend(path, dir, line string, mode os.FileMode) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return os.WriteFile(filepath.Join(dir, filepath.Base(path)), append(b, line...), mode)
}

func freePort(from, to int) (int, error) {
	for range 100 {
		port := from + rand.IntN(to-from)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port")
}

func logTail(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil || len(b) == 0 {
		return ""
	}
	return "\nits output ends with:\n" + strings.TrimRight(string(b[max(0, len(b)-2000):]), "\n")
}
