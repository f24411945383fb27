package privsep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/sandbox"
)

// launcherArgument marks the launcher's command line, as workerArgument does a
// worker's. Its ground follows.
const launcherArgument = "privsep-launcher"

// launcherName follows the program's name in ps(1).
const launcherName = ": launcher"

// The launcher's descriptors at its start, beside a null device twice and the
// monitor's standard error.
const (
	startsFD        = 3
	controlFD       = 4
	launcherEmptyFD = 5
	launcherImageFD = 6
)

// A launcher is the process that starts a monitor's workers, so that the monitor
// need not be able to. It is the parent of all of them, knows what the kernel
// says of them, and ends with its monitor, and they with it.
//
// It speaks with its monitor alone, and still takes only what it can check
// itself: roles of this program, and sandboxes that no user 0 and no group 0
// can be in.
type launcher struct {
	ground sandbox.Ground
	roles  []*Role
	image  *os.File // this program, opened: a later upgrade on disk changes nothing
	null   *os.File
	empty  *os.File // a directory that no longer exists
	host   *os.File // a /proc in which processes have the monitor's numbers
	proc   string   // its name
	enter  *ipc.Plan
	thread chan func() // what runs on the thread that starts workers

	mu       sync.Mutex
	last     uint32
	children map[uint32]*child
}

// A child is a worker that was not reaped yet, so its number is its own.
type child struct {
	pid   int // the monitor's number for it
	pidfd *os.File
}

// errNoRole is a programmer's mistake, or the try of a monitor that was taken over.
const errNoRole = syscall.EINVAL

// An unprepared launcher starts nothing yet.
type unprepared struct{ *launcher }

// launchWorkers is a launcher's whole life, on a thread that is the caller's alone:
// the kernel ties the workers' death signal to the thread that started them
// (prctl(2), PR_SET_PDEATHSIG; golang.org/issue/27505).
func launchWorkers(word string, roles []*Role) int {
	if err := newLauncher(word, roles).serve(); err != nil {
		fmt.Fprintln(os.Stderr, "privsep: launcher:", err)
		return 1
	}
	return 0
}

func newLauncher(word string, roles []*Role) *launcher {
	ground, _ := strconv.ParseUint(word, 10, 8)
	return &launcher{ground: sandbox.Ground(ground), roles: roles, thread: make(chan func()), children: make(map[uint32]*child)}
}

func (l *launcher) serve() (err error) {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return errors.New("a set-user-id program: refused")
	}
	for fd := startsFD; fd <= launcherImageFD; fd++ {
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, false); err != nil { // as a Conn needs it, under this number
			return errors.New("launchers are started by their monitor only")
		}
	}
	l.empty = os.NewFile(launcherEmptyFD, "empty")
	if l.enter, err = ipc.PlanFor[enterMessage](); err != nil {
		return err
	}
	// Its number stays what it is in a worker's first moment: above those that
	// a worker gets, and below null's, beyond which syscall.StartProcess moves
	// what is in its way.
	l.image = os.NewFile(launcherImageFD, "image")
	if l.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	// Opened now: the /proc of the launcher's own PID namespace may cover it.
	if l.host, err = openPlace("/proc", syscall.O_DIRECTORY); err != nil {
		return err
	}
	l.proc = fmt.Sprintf("/proc/self/fd/%d", l.host.Fd())

	starts, control := new(Policy), new(Policy)
	first := NewPhase(starts, "unprepared", func(*unprepared) Launch { return Launch{} })
	prepared := NewPhase[launcher](starts, "prepared", nil)
	Advance(first, prepareOp, prepared, (*unprepared).prepare)
	Permit(prepared, startOp, (*launcher).start)
	children := NewPhase(control, "children", func(*launcher) Launch { return Launch{} })
	Permit(children, evidenceOp, (*launcher).evidence)
	Permit(children, killOp, (*launcher).kill)
	Permit(children, reapOp, (*launcher).reap)

	// The monitor's end ends both, the second also while a start is under way.
	go l.end(func() error {
		return ServeConn(context.Background(), first, &unprepared{l}, os.NewFile(startsFD, "starts"))
	})
	go l.end(func() error {
		return ServeConn(context.Background(), children, l, os.NewFile(controlFD, "control"))
	})
	for f := range l.thread {
		f()
	}
	return nil
}

// end ends the launcher with the serving of a channel.
func (l *launcher) end(serve func() error) {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "privsep: launcher:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// onThread runs f on the thread that starts workers.
func (l *launcher) onThread(f func() error) error {
	result := make(chan error, 1)
	l.thread <- func() { result <- f() }
	return <-result
}

func (u *unprepared) prepare(context.Context, nothing) (reply prepareReply, l *launcher, err error) {
	err = u.onThread(func() error {
		missing, err := u.ground.Prepare()
		reply.Missing = uint16(missing)
		return err
	})
	return reply, u.launcher, err
}

// start starts a worker that has its channel, the write end of its output and
// the orders to confine itself, and no other descriptor.
func (l *launcher) start(_ context.Context, r startRequest) (reply startReply, err error) {
	profile := r.Sandbox.profile()
	known := slices.IndexFunc(l.roles, func(role *Role) bool { return role.Name == r.Role })
	if known < 0 {
		return reply, errNoRole
	}
	if err := l.roles[known].check(&profile); err != nil {
		return reply, syscall.EPERM
	}
	orders, err := l.orders(&r)
	if err != nil {
		return reply, err
	}
	defer orders.Close()
	fd := -1
	name := strings.TrimSuffix(os.Args[0], launcherName) + ": " + r.Role
	err = l.onThread(func() error {
		_, _, err := syscall.StartProcess(fmt.Sprintf("/proc/self/fd/%d", l.image.Fd()), []string{name, workerArgument}, &syscall.ProcAttr{
			Env:   []string{oneProcessor},
			Dir:   "/",
			Files: []uintptr{l.null.Fd(), l.null.Fd(), r.Output.Fd(), r.Channel.Fd(), l.empty.Fd(), orders.Fd()},
			Sys:   l.ground.Worker(&profile, &fd),
		})
		return err
	})
	if err != nil {
		return reply, err
	}
	c := &child{pidfd: os.NewFile(uintptr(fd), "pidfd")}
	theirs := -1
	if err = sys.SetNonblock(fd); err == nil {
		if c.pid, err = l.monitorsNumber(fd); err == nil {
			theirs, err = sys.Duplicate(uintptr(fd))
		}
	}
	if err != nil {
		return reply, errors.Join(l.unmake(c), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.last++; l.last == monitorID || l.last == launcherID || l.children[l.last] != nil; l.last++ {
	}
	l.children[l.last] = c
	return startReply{ID: l.last, PID: uint32(c.pid), Process: os.NewFile(uintptr(theirs), "pidfd")}, nil
}

// unmake ends a worker of which the monitor will not hear, and waits for it.
func (l *launcher) unmake(c *child) error {
	defer c.pidfd.Close()
	err := l.onThread(func() error { return sys.Kill(c.pidfd.Fd()) }) // that thread has CAP_KILL
	for done := false; err == nil && !done; time.Sleep(time.Millisecond) {
		_, done, err = sys.WaitExited(c.pidfd.Fd())
	}
	return err
}

// orders is a pipe that holds what the worker reads first. Nobody else can
// write into it, also not a monitor.
func (l *launcher) orders(r *startRequest) (*os.File, error) {
	body, _, err := l.enter.Encode(nil, &enterMessage{
		Role: r.Role, Sandbox: r.Sandbox, Parent: uint32(os.Getpid()), Ground: uint8(l.ground),
	})
	if err != nil {
		return nil, err
	}
	read, write, err := sys.Pipe()
	if err != nil {
		return nil, err
	}
	defer sys.Close(write)
	if n, err := syscall.Write(write, body); err != nil || n < len(body) {
		sys.Close(read)
		return nil, errors.Join(err, syscall.ENOBUFS) // pipe-user-pages-soft (pipe(7))
	}
	return os.NewFile(uintptr(read), "orders"), nil
}

// monitorsNumber is the number of the process behind a pidfd in the monitor's
// PID namespace (proc_pid_fdinfo(5)).
func (l *launcher) monitorsNumber(pidfd int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("%s/self/fdinfo/%d", l.proc, pidfd))
	if err != nil {
		return 0, err
	}
	_, after, _ := bytes.Cut(text, []byte("\nPid:\t"))
	number, _, _ := bytes.Cut(after, []byte("\n"))
	return strconv.Atoi(string(number))
}

func (l *launcher) child(id uint32) (*child, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.children[id]; c != nil {
		return c, nil
	}
	return nil, syscall.ESRCH
}

// evidence reads what the kernel says of a worker, of the monitor or of this
// process. It takes CAP_SYS_PTRACE: a worker is not dumpable, so its links in
// /proc are hidden from others. And it takes the thread that started it: a
// Landlock domain is a thread's, and hides its processes from other domains.
func (l *launcher) evidence(_ context.Context, r childRequest) (reply evidenceReply, err error) {
	name, err := l.nameOf(r.ID)
	if err != nil {
		return reply, err
	}
	err = l.onThread(func() error {
		e, err := sandbox.ReadEvidence(l.proc + "/" + name)
		reply = evidenceReply{Status: e.Status, Root: e.Root, Namespaces: e.Namespaces, Files: e.Files, Hidden: e.Hidden}
		if r.ID == monitorID || r.ID == launcherID {
			reply.Files = nil // as many as there are sessions
		}
		return err
	})
	return reply, err
}

// nameOf is a process's directory in the monitor's /proc.
func (l *launcher) nameOf(id uint32) (string, error) {
	switch id {
	case launcherID:
		return "self", nil
	case monitorID:
		// getppid(2) is 0 where the parent is in another PID namespace.
		status, err := os.ReadFile(l.proc + "/self/status")
		_, after, _ := bytes.Cut(status, []byte("\nPPid:\t"))
		number, _, _ := bytes.Cut(after, []byte("\n"))
		return string(number), err
	}
	c, err := l.child(id)
	if err != nil {
		return "", err
	}
	return strconv.Itoa(c.pid), nil
}

// kill sends SIGKILL through the pidfd.
func (l *launcher) kill(_ context.Context, r childRequest) (nothing, error) {
	c, err := l.child(r.ID)
	if err != nil {
		return nothing{}, err
	}
	raw, err := c.pidfd.SyscallConn()
	if err != nil {
		return nothing{}, err
	}
	kill := func() error {
		e := raw.Control(func(fd uintptr) { err = sys.Kill(fd) })
		return errors.Join(e, err)
	}
	if state, err := caps.Current(); err != nil || !state.Permitted.Has(caps.Kill) {
		return nothing{}, errors.Join(err, kill())
	}
	return nothing{}, caps.With(caps.Of(caps.Kill), kill)
}

// afterlife is how long a worker's process entry outlives it. Its last thread
// wakes whoever waits for it, and then takes what was read about it out of the
// cache of /proc; reaping does the same, and meeting it there spins until it is
// done (shrink_dcache_parent in Linux).
const afterlife = 10 * time.Millisecond

// reap forgets a worker that has ended, and says how. EAGAIN: it has not.
func (l *launcher) reap(_ context.Context, r childRequest) (reapReply, error) {
	c, err := l.child(r.ID)
	if err != nil {
		return reapReply{}, err
	}
	status, ok, err := sys.Exited(c.pidfd.Fd())
	if err != nil {
		return reapReply{}, err
	}
	if !ok {
		return reapReply{}, syscall.EAGAIN
	}
	l.mu.Lock()
	delete(l.children, r.ID)
	l.mu.Unlock()
	time.AfterFunc(afterlife, func() {
		_, _, _ = sys.WaitExited(c.pidfd.Fd())
		c.pidfd.Close()
	})
	return reapReply{uint32(status)}, nil
}
