package privsep

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/sandbox"
)

// A Worker is what a role's Main has: descriptors, a message, and a monitor to
// ask.
type Worker struct {
	*Conn   // to the monitor
	files   []*os.File
	opened  []*os.File
	body    []byte
	records *recordSender
}

// Files are those of the [Launch], in its order. The worker owns them.
func (w *Worker) Files() []*os.File { return w.files }

// Opened are the files of the sandbox's Open, in its order. The worker owns them.
func (w *Worker) Opened() []*os.File { return w.opened }

// Message stores the launch's message in what into points to.
func (w *Worker) Message(into any) error {
	plan, err := planOf(into)
	if err != nil {
		return err
	}
	return plan.Decode(&ipc.Packet{Body: w.body}, into)
}

// Main is the first call of a program's main. In the process that was started
// by hand it runs monitor and returns when that does. In a worker, which the
// monitor starts from the same program, it confines the process, runs the
// role's Main and never returns.
func Main(monitor func(), roles ...*Role) {
	if len(os.Args) == 3 && os.Args[1] == launcherArgument {
		runtime.LockOSThread() // for good: see launchWorkers
		os.Exit(launchWorkers(os.Args[2], roles))
	}
	if len(os.Args) == 2 && os.Args[1] == workerArgument {
		// The death signal is armed on a thread, and must be on the one
		// whose end is the process's: a worker can end any other.
		runtime.LockOSThread()
		os.Exit(work(roles))
	}
	if len(os.Args) > 3 && os.Args[1] == upgraderArgument {
		os.Exit(upgrade(os.Args[2], os.Args[3:]))
	}
	monitor()
}

// work is a worker's whole life. What it returns is the exit status; what it
// has to say about it goes to standard error, which the monitor reads.
func work(roles []*Role) int {
	if err := workAs(roles); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func workAs(roles []*Role) error {
	os.Clearenv() // the runtime has read it
	if os.Getuid() != os.Geteuid() || os.Getgid() != os.Getegid() {
		return errors.New("privsep: a worker of a set-user-id program: refused")
	}
	syscall.CloseOnExec(channelFD)
	syscall.CloseOnExec(emptyRootFD)
	syscall.CloseOnExec(ordersFD)
	if err := syscall.SetNonblock(channelFD, false); err != nil { // as a Conn needs it, under this number
		return fmt.Errorf("privsep: workers are started by their monitor only: %w", err)
	}
	conn, err := ipc.NewConn(os.NewFile(channelFD, "monitor"), ipc.NewBuffers(defaultSize))
	if err != nil {
		return fmt.Errorf("privsep: workers are started by their monitor only: %w", err)
	}
	// os.Stderr was made of a descriptor that waits, so it does not ask the
	// poller: from here a write that does not fit fails at once, the runtime's
	// own as well.
	if err := syscall.SetNonblock(syscall.Stderr, true); err != nil {
		return fmt.Errorf("privsep: standard error: %w", err)
	}
	role, opened, err := enter(conn, roles)
	if err != nil {
		return err
	}
	runtime.UnlockOSThread()
	var start ipc.Packet
	if err := conn.Receive(&start); errors.Is(err, io.EOF) {
		return nil // a spare that nobody needed
	} else if err != nil {
		return err
	}
	if start.Type != ipc.Start {
		return fmt.Errorf("privsep: %v where a start was expected", start.Type)
	}
	start.Open()
	if start.Call != 0 {
		return serveShared(conn, role, &start)
	}
	w, err := newWorker(conn, new(planCache), &start, start.Files)
	if err != nil {
		return err
	}
	w.opened = opened
	return role.Main(context.Background(), w)
}

// newWorker is the worker of one session, with what start brought for it.
func newWorker(conn *ipc.Conn, plans *planCache, start *ipc.Packet, files []*os.File) (w *Worker, err error) {
	w = &Worker{Conn: &Conn{ipc.NewClient(conn), plans}, files: files, body: bytes.Clone(start.Body)}
	w.records, err = newRecordSender(w.client, start.Value)
	start.Release()
	return w, err
}

// workerArgument marks a worker's command line. What makes a worker is not
// this word but the descriptors that it finds.
const workerArgument = "privsep-worker"

// oneProcessor is a worker's whole environment: a runtime that knows from its
// first instruction that it has one P makes fewer threads, and need not stop
// for the change.
const oneProcessor = "GOMAXPROCS=1"

// A worker's descriptors at its start; 0 and 1 are /dev/null, 2 is a pipe.
const (
	channelFD   = 3
	emptyRootFD = 4
	ordersFD    = 5
)

// enter confines this process as the launcher says, and says so to the monitor.
func enter(conn *ipc.Conn, roles []*Role) (*Role, []*os.File, error) {
	plan, err := ipc.PlanFor[enterMessage]()
	if err != nil {
		return nil, nil, err
	}
	body := make([]byte, plan.MaxSize()+1)
	n, err := syscall.Read(ordersFD, body) // they were all there before this process was
	syscall.Close(ordersFD)
	if err != nil {
		return nil, nil, err
	}
	var message enterMessage
	if err := plan.Decode(&ipc.Packet{Body: body[:n]}, &message); err != nil {
		return nil, nil, err
	}
	var role *Role
	for _, r := range roles {
		if r.Name == message.Role {
			role = r
		}
	}
	if role == nil {
		return nil, nil, fmt.Errorf("privsep: role %s is not among those given to Main", message.Role)
	}
	profile := message.Sandbox.profile()
	opened, err := profile.OpenFirst()
	if err != nil {
		return nil, nil, err
	}
	missing, err := profile.Enter(message.origin(), os.NewFile(emptyRootFD, "empty"))
	var lacks *sandbox.UnsupportedError
	if errors.As(err, &lacks) {
		missing |= lacks.Mechanism // the monitor kills this process, and knows why
	} else if err != nil {
		return nil, nil, err
	}
	ready := ipc.Packet{Type: ipc.Ready, Value: uint32(missing)}
	return role, opened, errors.Join(conn.Send(context.Background(), enterTimeout, &ready), err)
}
