package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
)

// upgraderArgument marks the upgrader's command line, as workerArgument does a
// worker's. The path of the program that it starts follows, and its arguments.
const upgraderArgument = "privsep-upgrader"

// handoverVariable tells a process that it is a successor, and which of its
// descriptors leads to its predecessor.
const handoverVariable = "PRIVSEP_HANDOVER"

// What a monitor asks of its upgrader. It can't say what to start.
var (
	startSuccessor = Op[startSuccessorRequest, startSuccessorReply]{Name: "start-successor", Calls: Unlimited}
	endSuccessor   = Op[struct{}, endSuccessorReply]{Name: "end-successor", Calls: Unlimited}
	keepSuccessor  = Op[struct{}, struct{}]{Name: "keep-successor", Calls: Unlimited}
	hangUpOn       = Op[struct{}, struct{}]{Name: "hang-up", Calls: Unlimited}
)

type startSuccessorRequest struct {
	Channel *os.File `privsep:"kind=channel"`
}

// Check has nothing to judge: the kind of the file is all there is.
func (*startSuccessorRequest) Check() error { return nil }

type startSuccessorReply struct{ PID uint32 }

type endSuccessorReply struct{ Status uint32 }

// An upgrader is the process that starts a monitor's successors. It is started
// before the monitor gives its privileges up, keeps them all, because a successor
// begins with what its predecessor began with, and does nothing but start the
// one program that it was given, when its monitor asks. It is none of the
// monitor's workers' parent: a successor outlives the monitor and its namespaces.
type upgrader struct {
	path      string
	args      []string
	successor *os.Process // not kept yet
	kept      *os.Process
}

// upgrade is an upgrader's whole life.
func upgrade(path string, args []string) int {
	u := &upgrader{path: path, args: args}
	err := u.serve()
	u.end()
	if err != nil {
		fmt.Fprintln(os.Stderr, "privsep: upgrader:", err)
		return 1
	}
	return 0
}

func (u *upgrader) serve() error {
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return errors.New("a set-user-id program: refused")
	}
	if err := sys.CloseOnExecFrom(3); err != nil {
		return os.NewSyscallError("close_range", err)
	}
	// It ends with its monitor, whatever is sent to all of a terminal's or a
	// service's processes. Ignored, they would be so in successors, too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR2)
	policy := new(Policy)
	phase := NewPhase(policy, "upgrading", func(*upgrader) Launch { return Launch{} })
	Permit(phase, startSuccessor, (*upgrader).start)
	Permit(phase, endSuccessor, (*upgrader).finish)
	Permit(phase, keepSuccessor, (*upgrader).keep)
	Permit(phase, hangUpOn, (*upgrader).hangUp)
	return ServeConn(context.Background(), phase, u, os.NewFile(channelFD, "monitor"))
}

// start starts the program as it is on disk now.
func (u *upgrader) start(_ context.Context, r startSuccessorRequest) (startSuccessorReply, error) {
	defer r.Channel.Close()
	u.end()
	p, err := os.StartProcess(u.path, u.args, &os.ProcAttr{
		Env:   append(os.Environ(), fmt.Sprintf("%s=%d", handoverVariable, channelFD)),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, r.Channel},
	})
	if err != nil {
		return startSuccessorReply{}, err
	}
	u.successor = p
	return startSuccessorReply{uint32(p.Pid)}, nil
}

// finish kills the successor, if it lives, and tells how it ended.
func (u *upgrader) finish(context.Context, struct{}) (endSuccessorReply, error) {
	state := u.end()
	if state == nil {
		return endSuccessorReply{}, os.NewSyscallError("wait", syscall.ECHILD)
	}
	return endSuccessorReply{uint32(state.Sys().(syscall.WaitStatus))}, nil
}

// keep lets the successor outlive this process.
func (u *upgrader) keep(context.Context, struct{}) (struct{}, error) {
	if u.successor != nil {
		go u.successor.Wait() // should it end first
		u.successor, u.kept = nil, u.successor
	}
	return struct{}{}, nil
}

// hangUp sends SIGHUP to the successor that was kept.
func (u *upgrader) hangUp(context.Context, struct{}) (struct{}, error) {
	if u.kept == nil {
		return struct{}{}, syscall.ESRCH
	}
	return struct{}{}, u.kept.Signal(syscall.SIGHUP)
}

// endGrace is how long a successor that failed has to end by itself, so that
// its own end is what is told.
const endGrace = time.Second

func (u *upgrader) end() (state *os.ProcessState) {
	p := u.successor
	if p == nil {
		return nil
	}
	late := time.AfterFunc(endGrace, func() { _ = p.Kill() })
	state, _ = p.Wait()
	late.Stop()
	u.successor = nil
	return state
}

// startUpgrader starts the upgrader of a monitor: with all that this process
// holds now.
func startUpgrader(u *Upgrade) (conn *Conn, process *os.Process, err error) {
	path, args, env := u.Path, u.Args, u.Env
	if path == "" {
		if path, err = os.Executable(); err != nil {
			return nil, nil, err
		}
	}
	if args == nil {
		args = os.Args
	}
	if env == nil {
		env = os.Environ()
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	if conn, err = NewConn(mine); err != nil {
		return nil, nil, err
	}
	process, err = os.StartProcess("/proc/self/exe", append([]string{filepath.Base(os.Args[0]) + ": upgrader", upgraderArgument, path}, args...), &os.ProcAttr{
		Env:   env,
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, theirs},
	})
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("privsep: start upgrader: %w", err)
	}
	return conn, process, nil
}
