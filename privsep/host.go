package privsep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// A host without a session waits for the next, so long and so many of them: one
// address after another could else leave a process each.
const (
	hostPatience = time.Minute
	maxIdleHosts = 8
)

// A host that does not read for so long is not busy, but taken over or stuck.
const seatTimeout = 10 * time.Second

var errNoSeat = errors.New("takes no session")

// hosts are the workers that serve more than one session.
type hosts struct {
	monitor  *Monitor
	patience time.Duration

	mu   sync.Mutex
	all  map[string][]*host // those that take sessions, by what they share
	idle []*host            // those without any, longest first
}

// A host is a process of which several sessions have a seat.
type host struct {
	hosts *hosts
	key   string
	most  int

	ready chan struct{} // closed when it has started, or not; then:
	p     *process
	err   error

	// The rest is under hosts.mu.
	taken int // seats, also those that are not in use yet
	seats map[uint32]*seat
	last  uint32 // number of the newest seat
	why   error  // the violation that ended it
	over  bool   // it gets no further session
	timer *time.Timer
}

func (hs *hosts) init(m *Monitor) {
	hs.monitor, hs.patience, hs.all = m, hostPatience, make(map[string][]*host)
}

// launch seats l's session in a process that it may share, or in a new one.
func (hs *hosts) launch(ctx context.Context, l *Launch) (*seat, error) {
	process := *l
	process.Sandbox = l.Sandbox.Times(l.Share.Sessions)
	for tries := 3; ; tries-- {
		h, first := hs.take(&process)
		if first {
			h.start(&process)
		}
		select {
		case <-h.ready:
		case <-ctx.Done():
			h.leave(nil)
			return nil, context.Cause(ctx)
		}
		if h.err != nil {
			return nil, h.err
		}
		s, err := h.admit(ctx, l)
		if !errors.Is(err, syscall.EPIPE) || tries == 0 {
			return s, err
		}
		h.retire() // it died waiting, and it was not seen yet
	}
}

// take finds a host with room, or makes one that the caller starts.
func (hs *hosts) take(l *Launch) (h *host, first bool) {
	key := fmt.Sprintf("%q %d %s", l.Share.Key, l.Share.Sessions, l.pool())
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, h := range hs.all[key] {
		if h.taken < h.most {
			h.taken++
			h.awake()
			return h, false
		}
	}
	h = &host{hosts: hs, key: key, most: l.Share.Sessions, ready: make(chan struct{}), taken: 1, seats: make(map[uint32]*seat)}
	hs.all[key] = append(hs.all[key], h)
	return h, true
}

func (h *host) start(l *Launch) {
	defer close(h.ready)
	p, _, err := h.hosts.monitor.ready(l)
	h.hosts.mu.Lock()
	defer h.hosts.mu.Unlock()
	if h.p, h.err = p, err; err != nil {
		h.retireLocked()
		return
	}
	h.hosts.monitor.workers.Go(h.attend)
}

// admit gives l's session, whose seat is taken, a channel of its own.
func (h *host) admit(ctx context.Context, l *Launch) (*seat, error) {
	mine, theirs, err := ipc.Pair()
	if err != nil {
		h.leave(nil)
		return nil, err
	}
	defer theirs.Close()
	conn, err := ipc.NewConn(mine, h.hosts.monitor.buffers)
	if err != nil {
		h.leave(nil)
		return nil, err
	}
	s := &seat{p: h.p, conn: conn, gone: make(chan struct{}), host: h}
	if !h.join(s) {
		conn.Close()
		return nil, syscall.EPIPE
	}
	limit, cancel := context.WithTimeoutCause(ctx, seatTimeout, errNoSeat)
	defer cancel()
	if err = h.p.begin(limit, l, lowestLevel(h.hosts.monitor.log), s.number, theirs); err == nil {
		return s, nil
	}
	conn.Close()
	h.leave(s)
	if context.Cause(limit) == errNoSeat {
		h.blame(&ViolationError{Reason: errNoSeat.Error()})
		err = &SharedError{Role: h.p.role, PID: h.p.pid, Cause: errNoSeat}
	}
	select {
	case <-s.gone: // another session was the first to lose patience, and it is over
		err = s.err
	default:
	}
	return nil, err
}

// join gives s its number, unless h ends.
func (h *host) join(s *seat) bool {
	h.hosts.mu.Lock()
	defer h.hosts.mu.Unlock()
	if h.over {
		return false
	}
	h.last++
	s.number = h.last
	h.seats[s.number] = s
	return true
}

// leave gives up a seat, and is idle with the last.
func (h *host) leave(s *seat) {
	hs := h.hosts
	hs.mu.Lock()
	defer hs.mu.Unlock()
	if s != nil {
		if h.seats[s.number] != s {
			return // the worker has said so already, or is gone
		}
		delete(h.seats, s.number)
	}
	if h.taken--; h.taken > 0 || h.over {
		return
	}
	h.timer = time.AfterFunc(hs.patience, func() {
		hs.mu.Lock()
		defer hs.mu.Unlock()
		if h.taken == 0 {
			h.retireLocked()
		}
	})
	if hs.idle = append(hs.idle, h); len(hs.idle) > maxIdleHosts {
		hs.idle[0].retireLocked()
	}
}

// awake is what a host is that gets a session.
func (h *host) awake() {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	h.hosts.idle = slices.DeleteFunc(h.hosts.idle, func(o *host) bool { return o == h })
}

// end asks the worker to end a session, and ends the worker if it does not. It
// doesn't wait.
func (h *host) end(s *seat) {
	h.hosts.mu.Lock()
	ended := s.ending || h.seats[s.number] != s
	s.ending = true
	h.hosts.mu.Unlock()
	if ended {
		return
	}
	h.hosts.monitor.workers.Go(func() {
		// Without an answer the time is up as well.
		_ = h.p.conn.Send(context.Background(), exitGrace, &ipc.Packet{Type: ipc.End, Call: s.number})
		grace := time.NewTimer(exitGrace)
		defer grace.Stop()
		select {
		case <-s.gone:
		case <-grace.C:
			s.blame(&ViolationError{Reason: "session goes on after its end"})
		}
	})
}

// blame ends the process because of what one of its sessions did.
func (h *host) blame(why error) {
	h.hosts.mu.Lock()
	defer h.hosts.mu.Unlock()
	if h.why == nil {
		h.why = why
	}
	h.retireLocked()
}

// retire lets no further session in and ends the process, if there is one.
func (h *host) retire() {
	h.hosts.mu.Lock()
	defer h.hosts.mu.Unlock()
	h.retireLocked()
}

func (h *host) retireLocked() {
	h.over = true
	h.awake()
	all := slices.DeleteFunc(h.hosts.all[h.key], func(o *host) bool { return o == h })
	if h.hosts.all[h.key] = all; len(all) == 0 {
		delete(h.hosts.all, h.key)
	}
	if h.p == nil {
		return
	}
	select {
	case <-h.p.ended:
	default: // the host is one of the monitor's workers still, until attend returns
		h.hosts.monitor.workers.Go(h.p.kill) // which asks the launcher, and others wait for this lock
	}
}

// attend hears which sessions are over, until the process ends, and tells those
// that are left.
func (h *host) attend() {
	if err := h.hear(); !errors.Is(err, io.EOF) {
		h.blame(&ViolationError{Reason: err.Error()})
	} else {
		late := time.AfterFunc(exitGrace, h.retire)
		<-h.p.ended
		late.Stop()
	}
	<-h.p.ended
	why := h.p.exitError()
	h.retire()
	h.hosts.mu.Lock()
	seats := h.seats
	h.seats = nil
	if h.why != nil {
		why = h.why
	} else if why == nil {
		why = errors.New("it exited while it served")
	}
	many := h.last > 1
	h.hosts.mu.Unlock()
	if many {
		var exit *ExitError
		if errors.As(why, &exit) {
			h.hosts.monitor.alarm(h.hosts.monitor.log, Event{}, exit)
		}
		why = &SharedError{Role: h.p.role, PID: h.p.pid, Cause: why}
	}
	for _, s := range seats {
		s.err = why
		close(s.gone)
	}
	h.p.release()
}

// hear returns what ended the process's own channel.
func (h *host) hear() error {
	for {
		var p ipc.Packet
		if err := h.p.conn.Receive(&p); err != nil {
			if err != io.EOF {
				h.p.kill() // before a close that may take its time
			}
			p.CloseFiles()
			return err
		}
		h.hosts.mu.Lock()
		s := h.seats[p.Call]
		h.hosts.mu.Unlock()
		if p.Type != ipc.Ended || s == nil || p.Descriptors() > 0 {
			h.p.kill()
			p.CloseFiles()
			p.Release()
			return errors.New("not the end of a session of its")
		}
		if p.Value != 0 {
			s.err = s.failed(p.Body)
		}
		p.Release()
		_ = s.conn.CloseRead() // it said so: nothing more is served there
		h.leave(s)
		close(s.gone)
	}
}

// close ends all that wait. No session is left.
func (hs *hosts) close() {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	for _, h := range slices.Clone(hs.idle) {
		h.retireLocked()
	}
}
