package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/sandbox"
)

// A starter is the monitor's hold on its launcher, and through it on workers.
type starter struct {
	ground  sandbox.Ground
	missing sandbox.Mechanisms // that the launcher itself has not
	pid     int
	pidfd   *os.File
	starts  *Conn
	control *Conn
	before  sandbox.Posture // the monitor's own, before it was confined
	host    sandbox.Posture // from which a worker differs: the monitor's namespaces, the launcher's filters
	closing atomic.Bool
	ended   chan struct{} // closed when the launcher is reaped; then:
	status  syscall.WaitStatus
}

// newStarter starts a launcher on the best ground that the host gives.
func newStarter() (*starter, error) {
	host, err := sandbox.ReadPosture(os.Getpid())
	if err != nil {
		return nil, err
	}
	grounds, err := sandbox.Grounds()
	if err != nil {
		return nil, err
	}
	for _, ground := range grounds {
		s := &starter{ground: ground, before: host, host: host, ended: make(chan struct{})}
		if err = s.begin(); err == nil {
			return s, nil
		}
		if !ground.Refused(err) {
			break
		}
	}
	return nil, fmt.Errorf("privsep: start launcher: %w", err)
}

func (s *starter) begin() error {
	files, mine, err := launcherFiles()
	defer closeAll(files)
	if err != nil {
		closeAll(mine)
		return err
	}
	// Descriptors that this process was itself born with, by a careless
	// shell or service manager, are nobody's to pass on.
	if err := sys.CloseOnExecFrom(3); err != nil {
		closeAll(mine)
		return fmt.Errorf("close_range: %w", err)
	}
	var numbers []uintptr
	for _, f := range files {
		numbers = append(numbers, f.Fd())
	}
	fd := -1
	name := filepath.Base(os.Args[0]) + launcherName
	s.pid, _, err = syscall.StartProcess(fmt.Sprintf("/proc/self/fd/%d", launcherImageFD),
		[]string{name, launcherArgument, strconv.Itoa(int(s.ground))}, &syscall.ProcAttr{Dir: "/", Files: numbers, Sys: s.ground.Launcher(&fd)})
	if err != nil {
		closeAll(mine)
		return err
	}
	closeAll(files) // at once: else the launcher's end would not show as EOF
	_ = sys.SetNonblock(fd)
	s.pidfd = os.NewFile(uintptr(fd), "pidfd")
	go s.reap()
	if s.starts, err = NewConn(mine[0]); err == nil {
		if s.control, err = NewConn(mine[1]); err == nil {
			var reply prepareReply
			reply, err = prepareOp.Call(context.Background(), s.starts, nothing{})
			s.missing = sandbox.Mechanisms(reply.Missing)
		}
		if err == nil {
			var launcher sandbox.Posture
			launcher, err = s.posture(launcherID, s.pid)
			s.host.Threads = launcher.Threads
		}
	} else {
		mine[1].Close()
	}
	if err != nil {
		s.close()
	}
	return err
}

// launcherFiles are those that a launcher is born with, and the monitor's ends
// of its two channels.
func launcherFiles() (theirs, mine []*os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs = []*os.File{null, null, os.Stderr}
	for range 2 {
		a, b, err := ipc.Pair()
		if err != nil {
			return theirs, mine, err
		}
		mine, theirs = append(mine, a), append(theirs, b)
	}
	empty, err := emptyDirectory()
	theirs = append(theirs, empty)
	if err != nil {
		return theirs, mine, err
	}
	// It is executed by the number that it gets: in a child that has been given
	// its descriptors, any other may be something else.
	image, err := openPlace("/proc/self/exe", 0)
	return append(theirs, image), mine, err
}

// closeAll closes files but the process's own standard error.
func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil && f != os.Stderr {
			f.Close()
		}
	}
}

func (s *starter) reap() {
	defer close(s.ended)
	raw, err := s.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) (ok bool) {
		s.status, ok, err = sys.WaitExited(fd)
		return ok || err != nil
	})
}

// wait returns when the launcher has ended. What it had to say is in the monitor's
// standard error.
func (s *starter) wait() error {
	<-s.ended
	if s.closing.Load() {
		return nil
	}
	e := &ExitError{Role: "launcher", PID: s.pid, Class: Failed, Status: s.status}
	if s.status.Signaled() {
		e.Class = Crashed
	}
	return e
}

// close ends the launcher. Workers that it started die with it.
func (s *starter) close() {
	s.closing.Store(true)
	for _, c := range []*Conn{s.starts, s.control} {
		if c != nil {
			c.Close()
		}
	}
	<-s.ended
	s.pidfd.Close()
}

// start starts a worker; the caller keeps the files.
func (s *starter) start(role string, p *Sandbox, channel, output *os.File) (startReply, error) {
	reply, err := startOp.Call(context.Background(), s.starts, startRequest{
		Role: role, Sandbox: newProfileMessage(p), Channel: channel, Output: output,
	})
	if errors.Is(err, errNoRole) {
		return reply, fmt.Errorf("privsep: role %s is not among those given to Main", role)
	}
	if err != nil {
		err = fmt.Errorf("privsep: start %s: %w", role, err)
	}
	return reply, err
}

// reapWorker returns how the ended process id did end. Without a launcher that
// is not known; but with it all are killed.
func (s *starter) reapWorker(id uint32) syscall.WaitStatus {
	for {
		reply, err := reapOp.Call(context.Background(), s.control, childRequest{id})
		if err == nil {
			return syscall.WaitStatus(reply.Status)
		}
		if !errors.Is(err, syscall.EAGAIN) && !isLate(err) {
			return syscall.WaitStatus(syscall.SIGKILL)
		}
	}
}

// kill asks until the launcher has done it, or is dead and all workers with it.
func (s *starter) kill(id uint32) {
	for {
		if _, err := killOp.Call(context.Background(), s.control, childRequest{id}); !isLate(err) {
			return
		}
	}
}

// isLate reports whether err is of a call that a slow launcher may not even have
// received.
func isLate(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT)
}

// posture is what the launcher reads of a process: it may look, and gains nothing
// by a lie.
func (s *starter) posture(id uint32, pid int) (sandbox.Posture, error) {
	reply, err := evidenceOp.Call(context.Background(), s.control, childRequest{id})
	if err != nil {
		return sandbox.Posture{PID: pid}, fmt.Errorf("sandbox: posture: %w", err)
	}
	return reply.evidence().Posture(pid)
}

// emptyDirectory returns a directory that is already removed: a root in which
// nothing can be created, by anyone, and that leaves nothing on disk.
func emptyDirectory() (*os.File, error) {
	path, err := os.MkdirTemp("", "privsep-empty-")
	if err != nil {
		return nil, err
	}
	f, err := openPlace(path, syscall.O_DIRECTORY)
	if err == nil {
		err = f.Chmod(0o555)
	}
	return f, errors.Join(err, os.Remove(path))
}

func openPlace(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|flags, 0)
}
