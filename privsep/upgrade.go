package privsep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"github.com/go-privsep/sallyport/ipc"
)

// What a handover may hold: listeners, and bytes of state.
const (
	maxListeners = 256
	statePart    = 48 << 10
	stateParts   = 1024
)

// An Upgrade says what a monitor's successor is started as. It is fixed before
// the first session: a monitor that was taken over can ask for a successor and
// not for another program. Path names a file at the time of an upgrade, so who
// may write that file, or a directory above it, is root.
type Upgrade struct {
	// Path is the program. Empty: the path that this process was started
	// from, with symbolic links resolved (/proc/self/exe).
	Path string
	// Args are its arguments, with its name first. Nil: those of this process.
	Args []string
	// Env is its environment. Nil: that of this process.
	Env []string
}

// A Listener is a listening TCP socket, and what the daemon calls it: at most
// 256 bytes.
type Listener struct {
	Name string
	File *os.File
}

// A Handover is what a successor takes over.
type Handover struct {
	// Listeners are at most 256 duplicates of the caller's, which the upgrade
	// takes over and closes.
	Listeners []Listener
	// Halt is called when the successor has started and could serve. It stops
	// accepting connections, which queue from here on, and returns state of
	// the daemon's own for the successor: at most 48 MiB.
	Halt func() ([]byte, error)
}

// What a successor asks of its predecessor, in this order.
var (
	inheritListener = Op[struct{}, listenerReply]{Name: "inherit-listener", Calls: maxListeners + 1}
	inheritClaims   = Op[struct{}, claimsReply]{Name: "inherit-claims", Calls: 1}
	haltForState    = Op[struct{}, struct{}]{Name: "halt", Calls: 1}
	inheritState    = Op[struct{}, stateReply]{Name: "inherit-state", Calls: stateParts, Size: 64 << 10}
	serveNow        = Op[struct{}, struct{}]{Name: "serve", Calls: 1}
)

type listenerReply struct {
	Name string   `privsep:"max=256"`
	File *os.File `privsep:"kind=listener"`
}

type claimsReply struct {
	File *os.File `privsep:"kind=memfd"`
}

type stateReply struct {
	Part []byte `privsep:"max=49152"`
	Last bool
}

// The phases of a handover. Only the last one ends it well.
type (
	starting struct {
		Handover
		claims *claims
		serves bool
	}
	halted struct {
		*starting
		state []byte
	}
	replacedBy struct{ *starting }
)

func (s *starting) listener(context.Context, struct{}) (listenerReply, error) {
	if len(s.Listeners) == 0 {
		return listenerReply{}, syscall.ENOENT // the end
	}
	l := s.Listeners[0]
	s.Listeners = s.Listeners[1:]
	return listenerReply{l.Name, l.File}, nil
}

func (s *starting) heirloom(context.Context, struct{}) (claimsReply, error) {
	f, err := s.claims.heirloom()
	if f == nil && err == nil {
		err = syscall.ENOENT
	}
	return claimsReply{f}, err
}

func (s *starting) halt(context.Context, struct{}) (struct{}, *halted, error) {
	state, err := s.Halt()
	if err == nil && len(state) > statePart*stateParts {
		err = syscall.E2BIG
	}
	return struct{}{}, &halted{s, state}, err
}

func (h *halted) part(context.Context, struct{}) (stateReply, error) {
	n := min(len(h.state), statePart)
	part := h.state[:n]
	h.state = h.state[n:]
	return stateReply{part, len(h.state) == 0}, nil
}

func (h *halted) serve(context.Context, struct{}) (struct{}, *replacedBy, error) {
	h.serves = true
	return struct{}{}, &replacedBy{h.starting}, nil
}

// Upgrade puts a newer binary in this process's place: it starts the program of
// [Config.Upgrade] as it is on disk now, hands it h, and returns its process
// number when it serves. This process then has to close its listeners, finish
// its sessions and exit. At an error it goes on: whatever was started is gone
// again, but connections may have been queueing since h.Halt was called.
//
// ctx bounds how long a successor may take until it serves. The error wraps an
// errno if the program could not be started, an [*ExitError] if it ended, or
// ctx's. Calls must not overlap.
func (m *Monitor) Upgrade(ctx context.Context, h Handover) (pid int, err error) {
	s := &starting{Handover: h, claims: m.claims}
	defer func() {
		for _, l := range s.Listeners {
			l.File.Close()
		}
	}()
	if m.upgrader == nil {
		return 0, fmt.Errorf("privsep: upgrade: %w: Config.Upgrade was not set", errors.ErrUnsupported)
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		return 0, err
	}
	reply, err := startSuccessor.Call(ctx, m.upgrader, startSuccessorRequest{theirs})
	theirs.Close()
	if err != nil {
		mine.Close()
		return 0, err
	}
	policy := new(Policy)
	begin := NewPhase(policy, "starting", func(*starting) Launch { return Launch{} })
	halting := NewPhase[halted](policy, "halted", nil)
	Permit(begin, inheritListener, (*starting).listener)
	Permit(begin, inheritClaims, (*starting).heirloom)
	Advance(begin, haltForState, halting, (*starting).halt)
	Permit(halting, inheritState, (*halted).part)
	Advance(halting, serveNow, NewPhase[replacedBy](policy, "serving", nil), (*halted).serve)
	err = ServeConn(ctx, begin, s, mine)
	if s.serves {
		// An upgrader that doesn't hear this is gone, and kills nobody.
		_, _ = keepSuccessor.Call(context.Background(), m.upgrader, struct{}{})
		return int(reply.PID), nil
	}
	if ctx.Err() != nil {
		err = ctx.Err() // whatever else it did to what was under way
	}
	ended, endErr := endSuccessor.Call(context.Background(), m.upgrader, struct{}{})
	if endErr != nil {
		return 0, errors.Join(err, endErr)
	}
	if err == nil { // it closed its end, by ending if by nothing else
		e := &ExitError{Role: "successor", PID: int(reply.PID), Class: Failed, Status: syscall.WaitStatus(ended.Status)}
		if e.Status.Signaled() {
			e.Class = Crashed
		}
		err = e
	}
	return 0, fmt.Errorf("privsep: upgrade: successor %d did not come to serve: %w", reply.PID, err)
}

// HangUpSuccessor sends SIGHUP to the successor of the last [Monitor.Upgrade]: an order to
// reload that came to this process when the other had read its configuration.
// A confined monitor can signal nobody itself.
func (m *Monitor) HangUpSuccessor(ctx context.Context) error {
	if m.upgrader == nil {
		return fmt.Errorf("privsep: hang up: %w: Config.Upgrade was not set", errors.ErrUnsupported)
	}
	_, err := hangUpOn.Call(ctx, m.upgrader, struct{}{})
	return err
}

// A Predecessor is the monitor that this process was started to replace. It
// goes on as before until [Predecessor.Serve], and this process is ended if
// it does not come to that in time.
type Predecessor struct {
	// Listeners are this process's own.
	Listeners []Listener
	claims    *os.File // see newClaims; nil: it has none
	conn      *Conn
}

// Inherit returns what there is to take over; nil, and no error, for a process
// that was started by anybody else. It is called first, once.
func Inherit(ctx context.Context) (*Predecessor, error) {
	word, ok := os.LookupEnv(handoverVariable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(handoverVariable)
	if word != strconv.Itoa(channelFD) {
		return nil, fmt.Errorf("privsep: %s=%q: a monitor that is upgraded sets it, nobody else may", handoverVariable, word)
	}
	syscall.CloseOnExec(channelFD)
	conn, err := NewConn(os.NewFile(channelFD, "predecessor"))
	if err != nil {
		return nil, fmt.Errorf("privsep: %s is set, and descriptor %d is not from a monitor that is upgraded: %w", handoverVariable, channelFD, err)
	}
	p := &Predecessor{conn: conn}
	for {
		reply, err := inheritListener.Call(ctx, conn, struct{}{})
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.Listeners = append(p.Listeners, Listener{reply.Name, reply.File})
	}
	reply, err := inheritClaims.Call(ctx, conn, struct{}{})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, p.Close())
	}
	p.claims = reply.File
	return p, nil
}

// Halt has the predecessor stop accepting and returns its state: bytes of
// another version of the program, to be decoded with care. Nobody accepts
// connections from here to Serve; they queue.
func (p *Predecessor) Halt(ctx context.Context) (state []byte, err error) {
	if _, err := haltForState.Call(ctx, p.conn, struct{}{}); err != nil {
		return nil, err
	}
	for {
		reply, err := inheritState.Call(ctx, p.conn, struct{}{})
		if err != nil {
			return nil, err
		}
		if state = append(state, reply.Part...); reply.Last {
			return state, nil
		}
	}
}

// Serve tells the predecessor that it is replaced. If that fails it may have
// arrived all the same, so this process serves, and is ended if it may not.
func (p *Predecessor) Serve(ctx context.Context) error {
	_, err := serveNow.Call(ctx, p.conn, struct{}{})
	return errors.Join(err, p.conn.Close())
}

// Close breaks the handover off, unless Serve has ended it, and closes the
// listeners. It returns nil.
func (p *Predecessor) Close() error {
	p.conn.Close()
	if p.claims != nil {
		p.claims.Close() // unless a monitor has taken it
	}
	for _, l := range p.Listeners {
		l.File.Close()
	}
	return nil
}
