package privsep

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/sandbox"
	"github.com/go-privsep/sallyport/seccomp"
)

// enterTimeout is how long a worker may take to close its sandbox. It takes
// milliseconds; a machine that is this late serves nobody.
const enterTimeout = 30 * time.Second

// A process is a worker as its monitor sees it.
type process struct {
	starter *starter
	role    string
	id      uint32 // the launcher's
	pid     int
	pidfd   *os.File
	conn    *ipc.Conn
	output  *output
	missing sandbox.Mechanisms

	ended  chan struct{} // closed when it is reaped; then:
	status syscall.WaitStatus
}

// spawn starts a worker of l's role and closes l's sandbox around it. The
// worker has received nothing of the session yet.
func (m *Monitor) spawn(role *Role, profile *Sandbox) (p *process, err error) {
	if err := profile.Validate(); err != nil {
		return nil, err
	}
	defer func(begun time.Time) {
		outcome, _ := outcomeOf(err)
		m.event(Event{Kind: WorkerStarted, Role: role.Name, Outcome: outcome, Duration: time.Since(begun)})
	}(time.Now())
	profile, id, err := m.ids.assign(role.Name, profile)
	if err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			m.ids.free(id)
		}
	}()
	if err := role.check(profile); err != nil {
		return nil, err
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		return nil, err
	}
	conn, err := ipc.NewConn(mine, m.buffers)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	output, theirOutput, err := newOutput()
	if err != nil {
		conn.Close()
		theirs.Close()
		return nil, err
	}
	p = &process{starter: m.starter, role: role.Name, conn: conn, output: output, ended: make(chan struct{})}
	reply, err := m.starter.start(role.Name, profile, theirs, theirOutput)
	theirs.Close() // at once: else the worker's end would not show as EOF
	theirOutput.Close()
	if err != nil {
		conn.Close()
		output.close()
		return nil, err
	}
	started = true
	p.id, p.pid, p.pidfd = reply.ID, int(reply.PID), reply.Process
	m.workers.Add(1)
	go func() {
		defer m.workers.Done()
		// Before anybody hears of the end: the next may start at once.
		p.reap(func() { m.ids.free(id) })
	}()
	if err := m.awaitReady(p, profile); err != nil {
		p.kill()
		<-p.ended
		err = errors.Join(err, p.exitError())
		p.release()
		return nil, err
	}
	return p, nil
}

// awaitReady waits until p has closed the sandbox of which its launcher told
// it, and takes the kernel's word for it.
func (m *Monitor) awaitReady(p *process, profile *Sandbox) error {
	late := time.AfterFunc(enterTimeout, p.kill)
	defer late.Stop()
	var ready ipc.Packet
	defer ready.CloseFiles()
	if err := p.conn.Receive(&ready); err != nil {
		return fmt.Errorf("privsep: worker %s did not close its sandbox: %w", p.role, err)
	}
	ready.Release()
	p.missing = sandbox.Mechanisms(ready.Value) | m.starter.ground.Missing()
	if ready.Type != ipc.Ready {
		return fmt.Errorf("privsep: worker %s: %v where it should be ready", p.role, ready.Type)
	}
	if lost := p.missing &^ profile.Without; lost != 0 {
		return fmt.Errorf("privsep: worker %s: %w", p.role, sandbox.Unsupported(lost, nil))
	}
	return m.prove(p, profile)
}

// prove compares what the kernel says of every thread of p with its profile.
func (m *Monitor) prove(p *process, profile *Sandbox) error {
	posture, err := m.posture(p)
	if err != nil {
		return err
	}
	if posture.Hidden {
		if !profile.Without.Has(sandbox.Proof) {
			return fmt.Errorf("privsep: worker %s: %w", p.role, sandbox.Unsupported(sandbox.Proof, nil))
		}
		p.missing |= sandbox.Proof
	}
	return posture.Check(profile, p.missing, &m.starter.host)
}

func (m *Monitor) posture(p *process) (sandbox.Posture, error) { return m.starter.posture(p.id, p.pid) }

// begin hands p a session: what l says, and before its files those given here.
// It tells which levels are logged.
func (p *process) begin(ctx context.Context, l *Launch, level, number uint32, files ...*os.File) error {
	start := ipc.Packet{Type: ipc.Start, Call: number, Value: level, Files: append(files, l.Files...)}
	if l.Message != nil {
		plan, err := planOf(l.Message)
		if err != nil {
			return err
		}
		if start.Body, _, err = plan.Encode(nil, l.Message); err != nil {
			return err
		}
	}
	return p.conn.Send(ctx, enterTimeout, &start)
}

// reap waits for the process without a thread: a pidfd is readable when its
// process has ended (pidfd_open(2)).
func (p *process) reap(free func()) {
	defer close(p.ended)
	defer free()
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(sys.HasEnded)
	p.status = p.starter.reapWorker(p.id)
}

// kill has the launcher send SIGKILL through a pidfd, so never to another
// process. It may be called at any time, from anywhere.
func (p *process) kill() { p.starter.kill(p.id) }

// release frees what the monitor held of an ended process.
func (p *process) release() {
	p.conn.Close()
	p.output.close()
	p.pidfd.Close()
}

// exitError classifies the end of an ended process; nil for a good one.
func (p *process) exitError() error {
	filtered := p.status.Signaled() && p.status.Signal() == syscall.SIGSYS
	e := &ExitError{Role: p.role, PID: p.pid, Status: p.status}
	e.Output, e.Syscall = p.lastWords(filtered)
	const goPanic = 2 // what the runtime exits with when it gives up
	switch {
	case filtered:
		e.Class = Filtered
	case p.status.Signaled(), p.status.ExitStatus() == goPanic:
		e.Class = Crashed
	case p.status.ExitStatus() != 0:
		e.Class = Failed
	default:
		return nil
	}
	return e
}

// lastWords are what the worker left in its standard error, and the name of the
// call at which its filter killed it. It is a hostile string: bounded, and quoted
// so that it is one line of a log.
func (p *process) lastWords(filtered bool) (output, call string) {
	text := p.output.text()
	if filtered {
		text, call = seccomp.ReportedCall(seccomp.Host(), text)
	}
	if len(text) > 0 {
		output = strconv.Quote(string(text))
	}
	return output, call
}
