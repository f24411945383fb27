package privsep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/ipc"
)

// A dispatcher is one session's place in a policy. It judges every request of
// the session's workers and runs the handlers of those that are permitted. It
// knows nothing of processes, so a worker can serve a policy to another.
type dispatcher struct {
	policy *Policy
	log    *slog.Logger
	watch  watch
	// enter starts what a phase needs before the call that leads to it is
	// answered. Its error ends the session.
	enter func(ctx context.Context, to *phase, state any) error

	// turn is held for reading by handlers, and for writing by one that may
	// advance: no handler of a phase runs on when its state is gone
	// (CVE-2015-6564, a context used after it was freed).
	turn  sync.RWMutex
	phase *phase // written under mu too, for those who may not wait for the turn
	state any

	mu    sync.Mutex
	used  map[*operation]int
	noted int // refusals and failures
}

// maxNoted is how many refusals and failures of one session are logged. A
// worker causes ten thousand a second if it wants to fill a disk.
const maxNoted = 100

func newDispatcher(ph *phase, state any, log *slog.Logger) *dispatcher {
	ph.policy.freeze()
	return &dispatcher{policy: ph.policy, log: log, phase: ph, state: state, used: make(map[*operation]int)}
}

// Begin judges the form of a request, which is the same in every phase.
func (d *dispatcher) Begin(p *ipc.Packet) (ipc.Call, error) {
	op := d.policy.ops[p.Op]
	if op == nil {
		err := &ViolationError{Reason: "unknown operation"}
		d.watch.called("", d.current(), nil, 0, err)
		return nil, err
	}
	request := reflect.New(op.requestType).Interface()
	err := guard(func() error { return op.request.Decode(p, request) })
	if check, ok := request.(Checker); ok && err == nil {
		err = guard(check.Check)
	}
	if err != nil {
		err := &ViolationError{Op: op.name, Reason: err.Error()}
		d.watch.called(op.name, d.current(), nil, 0, err)
		return nil, err
	}
	return &call{dispatcher: d, op: op, request: request, files: p.Files}, nil
}

// current is the phase of the session while a handler may be running.
func (d *dispatcher) current() *phase {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.phase
}

// guard turns a panic of f into an error: the monitor never panics on data.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

// A call is a request of good form.
type call struct {
	*dispatcher
	op      *operation
	request any
	files   []*os.File
	alone   bool // it may advance
}

func (c *call) Parallel() bool       { return c.op.parallel }
func (c *call) Limit() time.Duration { return c.op.timeout }

// Start takes part in the turn, which binds the call to the phase in which it
// came: a parallel one has only begun when one that advances, sent after it,
// has its turn.
func (c *call) Start() {
	if c.alone = c.mayAdvance(); !c.alone {
		c.turn.RLock()
	}
}

// Drop judges the phase as Run does, and gives up what Start and Begin took.
func (c *call) Drop() (err error) {
	if !c.alone {
		if c.phase.permits[c.op.number] == nil {
			err = c.violation("not permitted in this phase")
			c.watch.called(c.op.name, c.phase, nil, 0, err)
		}
		c.turn.RUnlock()
	}
	c.closeFiles()
	return err
}

func (c *call) closeFiles() {
	for _, f := range c.files {
		f.Close()
	}
}

// Run judges the request in the phase that the session is in now, and performs
// it. What it returns as an errno is a refusal, what it returns otherwise ends
// the session.
func (c *call) Run(ctx context.Context) (body []byte, files []*os.File, err error) {
	defer c.closeFiles()
	if !c.alone {
		defer c.turn.RUnlock()
	} else {
		if !c.turn.TryLock() {
			// From here another goroutine reads: a cancel may be what
			// ends the calls that this one waits for.
			ctx.Done()
			c.turn.Lock()
		}
		defer c.turn.Unlock()
	}
	permit := c.phase.permits[c.op.number]
	if !c.watch.idle() {
		defer func(at *phase, begun time.Time) {
			c.watch.called(c.op.name, at, permit, time.Since(begun), err)
		}(c.phase, time.Now())
	}
	if permit == nil {
		return nil, nil, c.violation("not permitted in this phase")
	}
	if !c.spend() {
		return nil, nil, c.violation("called too often")
	}
	reply, next, err := c.perform(ctx, permit)
	if err != nil {
		return nil, nil, c.refuse(err)
	}
	body, files, err = c.op.reply.Encode(nil, reply)
	if err != nil {
		closeFiles(reply)
		c.note(slog.LevelError, "failed", err)
		return nil, nil, syscall.EIO // an errno in err was no handler's verdict
	}
	if permit.next == nil || next == nil {
		return body, files, nil
	}
	c.mu.Lock()
	c.phase, c.state = permit.next, next
	c.mu.Unlock()
	if c.enter != nil {
		if err := guard(func() error { return c.enter(ctx, c.phase, c.state) }); err != nil {
			closeFiles(reply)
			// Wrapped, so that no errno in it is taken for a refusal.
			return nil, nil, fmt.Errorf("privsep: phase %s: %w", c.phase.name, err)
		}
	}
	return body, files, nil
}

// mayAdvance reads the phase without holding it: calls that may change it run
// one after another with all others that are not Parallel, and a Parallel one
// never may.
func (c *call) mayAdvance() bool {
	if c.op.parallel {
		return false
	}
	permit := c.phase.permits[c.op.number]
	return permit != nil && permit.next != nil
}

// spend takes one call from the operation's budget.
func (c *call) spend() bool {
	if c.op.calls == Unlimited {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used[c.op] >= c.op.calls {
		return false
	}
	c.used[c.op]++
	return true
}

// perform runs the handler under the capabilities of its permit.
func (c *call) perform(ctx context.Context, permit *permit) (reply, next any, err error) {
	run := func() error {
		reply, next, err = permit.perform(ctx, c.state, c.request)
		return err
	}
	var panicked *PanicError
	err = guard(func() error {
		if permit.caps.Empty() {
			return run()
		}
		return caps.With(permit.caps, run)
	})
	if errors.As(err, &panicked) {
		panicked.Phase, panicked.Op = c.phase.name, c.op.name
	}
	if err != nil && reply != nil {
		closeFiles(reply)
	}
	return reply, next, err
}

// refuse sorts a handler's error: an errno goes to the worker as it is, the
// monitor's own trouble as EIO and to the log, the end of the session stays.
func (c *call) refuse(err error) error {
	var (
		violation *ViolationError
		panicked  *PanicError
		remains   *caps.RemainsError
		errno     syscall.Errno
	)
	switch {
	case errors.As(err, &violation):
		return c.violation(violation.Reason)
	case errors.As(err, &panicked):
		return panicked
	case errors.As(err, &remains):
		return remains // nobody may run on with capabilities that nobody gave
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return context.DeadlineExceeded
	case errors.As(err, &errno) && errno != 0:
		c.note(slog.LevelInfo, "refused", err)
		return errno
	}
	c.note(slog.LevelError, "failed", err)
	return syscall.EIO
}

func (c *call) note(level slog.Level, what string, err error) {
	c.mu.Lock()
	c.noted++
	n := c.noted
	c.mu.Unlock()
	if n <= maxNoted {
		c.log.Log(context.Background(), level, what, "phase", c.phase.name, "op", c.op.name, "err", err)
	}
	if n == maxNoted {
		c.log.Warn("no further refusal of this session is logged")
	}
}

func (c *call) violation(reason string) error {
	return &ViolationError{Phase: c.phase.name, Op: c.op.name, Reason: reason}
}

// closeFiles closes what a reply that is not sent would have handed over.
func closeFiles(message any) {
	v := reflect.ValueOf(message).Elem()
	for i := range v.NumField() {
		if f, ok := v.Field(i).Interface().(*os.File); ok && f != nil {
			f.Close()
		}
	}
}

// ServeConn serves a policy from phase on channel, which it takes over, until
// the other side closes it (nil), ctx ends, or the other side commits a
// violation: a [*ViolationError]. No process is started or killed; a phase
// with a launch can't be served so.
//
// This is how one worker serves another, over a socketpair that their monitor
// gave them.
func ServeConn[S any](ctx context.Context, ph *Phase[S], state *S, channel *os.File) error {
	conn, err := ipc.NewConn(channel, ph.policy.buffers())
	if err != nil {
		return err
	}
	defer conn.Close()
	d := newDispatcher(ph.phase, state, slog.New(slog.DiscardHandler))
	d.enter = func(_ context.Context, to *phase, _ any) error {
		if to.launch != nil || len(to.beside) > 0 {
			return errors.New("privsep: phase " + to.name + " needs a monitor: it starts workers")
		}
		return nil
	}
	return d.ended(ipc.Serve(ctx, conn, d))
}

// ended names the phase in an error that comes from below it.
func (d *dispatcher) ended(err error) error {
	d.turn.RLock()
	defer d.turn.RUnlock()
	var protocol *ipc.ProtocolError
	var violation *ViolationError
	switch {
	case errors.As(err, &protocol):
		return &ViolationError{Phase: d.phase.name, Reason: protocol.Reason}
	case errors.As(err, &violation) && violation.Phase == "":
		violation.Phase = d.phase.name
	}
	return err
}
