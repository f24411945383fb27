package privsep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// A session is one peer served, from its first phase to its last worker's
// exit.
type session struct {
	*dispatcher
	monitor *Monitor
	ctx     context.Context
	end     context.CancelCauseFunc

	worker *seat   // the one that asks; serve's own
	scribe *scribe // the worker's; serve's own

	mu      sync.Mutex
	all     []*seat
	timer   *time.Timer
	closing bool

	attending sync.WaitGroup // those who attend workers beside
}

// replaced ends the serving of one worker because another takes its place.
type replaced struct{ by *seat }

func (*replaced) Error() string { return "privsep: worker replaced" }

// Serve serves one session: it launches the first phase's worker, answers it
// and those that follow, and returns when all of them are gone. A nil error
// is a session whose worker ended well. Else it is a [*ViolationError], an
// [*ExitError], a [*PanicError], an error of starting a worker, among them
// [*sandbox.UnsupportedError] and [*sandbox.PostureError], or ctx's.
//
// state is the first phase's; the session's handlers are its only users until
// Serve returns.
func Serve[S any](ctx context.Context, m *Monitor, ph *Phase[S], state *S) error {
	return m.serve(ctx, ph.phase, state)
}

func (m *Monitor) serve(ctx context.Context, ph *phase, state any) error {
	if ph.policy != m.policy || ph.index != 0 {
		panic("privsep: a session begins in the first phase of its monitor's policy")
	}
	id := m.sessions.Add(1)
	about := []any{slog.Uint64("session", id)}
	if peer := peerOf(state); peer != "" {
		about = append(about, slog.String("peer", peer))
	}
	s := &session{monitor: m, dispatcher: newDispatcher(ph, state, m.log.With(about...))}
	s.watch = watch{observer: m.observer, session: id}
	if m.audit != nil {
		s.watch.audit = m.audit.With(about...)
	}
	begun := time.Now()
	s.watch.event(Event{Kind: SessionStarted})
	s.dispatcher.enter = s.enterPhase
	s.ctx, s.end = context.WithCancelCause(ctx)
	defer s.end(nil)
	stop := context.AfterFunc(s.ctx, s.endAll)
	defer stop()

	err := guard(func() error { return s.enterPhase(s.ctx, ph, state) })
	var next *replaced
	for errors.As(err, &next) {
		// Not before the old worker's Serve has returned: its end would
		// be taken for the session's.
		if s.worker != nil {
			s.worker.bury()
		}
		s.worker, next = next.by, nil
		s.watch.role, s.scribe = s.worker.p.role, newScribe(s.log, s.worker.p.role)
		err = ipc.Serve(s.ctx, s.worker.conn, s)
		s.scribe.end(s.current().name)
	}
	if err == nil {
		err = s.awaitExit()
	}
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause // a deadline or another worker's end came first
	}
	s.endAll()
	s.reapAll()
	err = s.ended(err)
	s.tellEnd(err, time.Since(begun))
	return err
}

// tellEnd tells of the session's end.
func (s *session) tellEnd(err error, took time.Duration) {
	outcome, _ := outcomeOf(err)
	e := Event{Kind: SessionEnded, Role: s.watch.role, Phase: s.current().name, Outcome: outcome, Duration: took}
	var exit *ExitError
	if errors.As(err, &exit) {
		e.Role, e.Syscall = exit.Role, exit.Syscall
		s.monitor.alarm(s.log.With("phase", e.Phase), Event{Session: s.watch.session, Phase: e.Phase}, exit)
	}
	s.watch.event(e)
}

// alarm tells, once for a worker, that its filter killed it: it was taken over,
// or its sandbox lacks a promise.
func (m *Monitor) alarm(log *slog.Logger, e Event, exit *ExitError) {
	if exit.Class == Filtered {
		log.Error("worker made a call that its filter forbids", "role", exit.Role, "pid", exit.PID, "syscall", exit.Syscall)
		e.Kind, e.Role, e.Syscall = WorkerFiltered, exit.Role, exit.Syscall
		m.event(e)
	}
}

// Log takes a record of the worker that asks.
func (s *session) Log(p *ipc.Packet) error {
	return s.scribe.record(s.monitor.recordPlan, p, s.current().name)
}

// A bystander is what serves a worker beside: it takes records and answers
// nothing.
type bystander struct {
	*session
	seat   *seat
	scribe *scribe
}

func (b *bystander) Failed(err error) { b.fail(b.seat, err) }

func (b *bystander) Begin(p *ipc.Packet) (ipc.Call, error) {
	return nil, &ViolationError{Reason: "asked by a worker that is beside, which may not ask"}
}

func (b *bystander) Log(p *ipc.Packet) error {
	return b.scribe.record(b.monitor.recordPlan, p, b.current().name)
}

// enterPhase starts what a phase needs. Its error for a phase with a worker of
// its own is a [*replaced].
func (s *session) enterPhase(ctx context.Context, ph *phase, state any) error {
	for _, b := range ph.beside {
		l := b.launch(state)
		if b.onDemand {
			if len(l.Files) == 0 {
				return fmt.Errorf("privsep: worker %s: on demand without a channel: make it the first of Files", l.Role.Name)
			}
			s.attending.Go(func() { s.attendOnDemand(&l) })
			continue
		}
		p, err := s.monitor.launch(ctx, &l)
		if err != nil {
			return err
		}
		if !s.own(p) {
			return context.Cause(s.ctx)
		}
		s.attending.Go(func() { s.attend(p) })
	}
	s.setTimer(0, nil)
	s.watch.event(Event{Kind: PhaseEntered, Phase: ph.name})
	if ph.launch == nil {
		return nil
	}
	l := ph.launch(state)
	p, err := s.monitor.launch(ctx, &l)
	if err != nil {
		return err
	}
	if !s.own(p) {
		return context.Cause(s.ctx)
	}
	s.setTimer(l.timeout(), p)
	return &replaced{p}
}

// Failed ends at once the worker that committed a violation, while calls of
// its may still be running.
func (s *session) Failed(err error) {
	var next *replaced
	if !errors.As(err, &next) {
		s.fail(s.worker, err)
	}
}

// fail ends the session because of what one of its workers did.
func (s *session) fail(by *seat, err error) {
	s.end(err) // the reason, before the deaths that it causes
	if isViolation(err) {
		by.blame(err)
	}
	s.endAll()
}

// own makes p one of the session's workers. If the session has ended
// meanwhile, p is ended too.
func (s *session) own(p *seat) bool {
	s.mu.Lock()
	closing := s.closing
	if !closing {
		s.all = append(s.all, p)
	}
	s.mu.Unlock()
	if closing {
		p.bury()
	}
	return !closing
}

// attend takes the records of a worker that was started beside, and ends the
// session with it unless it ended well.
func (s *session) attend(p *seat) {
	b := &bystander{s, p, newScribe(s.log, p.p.role)}
	err := ipc.Serve(s.ctx, p.conn, b)
	b.scribe.end(s.current().name)
	if err == nil {
		<-p.gone
		err = p.exitError()
	}
	if err != nil {
		s.end(err)
	}
}

// attendOnDemand starts a worker when somebody has sent to its channel, and
// reads nothing of that itself.
func (s *session) attendOnDemand(l *Launch) {
	wanted, err := ipc.Await(s.ctx, l.Files[0])
	if !wanted {
		l.closeFiles()
		if err != nil {
			s.end(err)
		}
		return
	}
	p, err := s.monitor.launch(s.ctx, l)
	if err != nil {
		s.end(err)
		return
	}
	if s.own(p) {
		s.attend(p)
	}
}

// setTimer begins the deadline of a phase, or ends the one before.
func (s *session) setTimer(after time.Duration, of *seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if after > 0 && !s.closing {
		s.timer = time.AfterFunc(after, func() {
			s.end(&ExitError{Role: of.p.role, PID: of.p.pid, Class: TimedOut})
		})
	}
}

// awaitExit gives the worker that closed its channel time to exit.
func (s *session) awaitExit() error {
	p := s.worker
	grace := time.NewTimer(exitGrace)
	defer grace.Stop()
	select {
	case <-p.gone:
		return p.exitError()
	case <-s.ctx.Done():
		return nil
	case <-grace.C:
		err := &ViolationError{Reason: "closed its channel and lives on"}
		s.fail(p, err)
		return err
	}
}

// endAll ends the session's part of every worker.
func (s *session) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for _, p := range s.all {
		p.end()
	}
}

func (s *session) reapAll() {
	s.setTimer(0, nil)
	s.mu.Lock()
	all := s.all
	s.mu.Unlock()
	for _, p := range all {
		<-p.gone
	}
	s.attending.Wait()
	for _, p := range all {
		p.release()
	}
}
