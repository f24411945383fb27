package privsep

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"
)

// An Observer counts, or whatever it likes: it is told of every event, from many
// goroutines at once, and must not wait. Who is told nothing costs nothing.
type Observer interface{ Observe(Event) }

// An EventKind says what happened. The zero kind is none.
type EventKind int

const (
	SessionStarted EventKind = 1 + iota // Session
	PhaseEntered                        // Session, Phase
	CallEnded                           // Session, Role, Phase, Op, Outcome, Errno, Duration: a request was judged
	SessionEnded                        // Session, Role, Phase, Outcome, Syscall, Duration: all its workers are gone
	WorkerStarted                       // Role, Outcome, Duration until it was proved; a spare's too
	SpareTaken                          // Role: a launch found one ready
	SpareMissed                         // Role: a launch that keeps spares found none
	WorkerFiltered                      // Role, Syscall: an alarm, one for a worker. Session, Phase if it served no other
)

// An Outcome is how a call or a session ended. The zero Outcome is none.
type Outcome int

const (
	Good     Outcome = 1 + iota // replied; or the worker ended well
	Refused                     // answered with an errno
	Troubled                    // the monitor's own trouble: answered with EIO; or the session could not go on
	Violated                    // a violation
	Canceled                    // nobody waits for it any more; or Serve's context ended
	Shared                      // ended with a worker that it shared: a SharedError
	Ended                       // Ended + an ExitClass is the end of a worker that did not end well
)

func (o Outcome) String() string {
	names := [...]string{"", "good", "refused", "troubled", "violated", "canceled", "shared"}
	switch {
	case o > 0 && o < Ended:
		return names[o]
	case o > Ended:
		return ExitClass(o - Ended).String()
	}
	return "none"
}

// An Event is something that happened. What its Kind does not name is zero.
type Event struct {
	Kind    EventKind
	Session uint64 // as in the log, from 1
	Role    string
	Phase   string
	// Op is "" for a request that names no operation of the policy.
	Op       string
	Outcome  Outcome
	Errno    syscall.Errno // of Refused
	Syscall  string        // see ExitError
	Duration time.Duration
}

// A Peer is the state of a first phase that can say whom the session serves. It
// then stands in the monitor's log, beside the worker's records too, and in the
// audit. Peer is called once, before the session's first worker is started.
type Peer interface{ Peer() string }

// peerOf is at most 128 bytes of what the state says, escaped.
func peerOf(state any) string {
	if p, ok := state.(Peer); ok {
		return printable(cut(p.Peer(), 128))
	}
	return ""
}

// A watch is what is told of one session.
type watch struct {
	observer Observer     // or nil
	audit    *slog.Logger // or nil; with the session and its peer
	session  uint64
	role     string // of the worker that asks
}

func (w *watch) idle() bool { return w.observer == nil && w.audit == nil }

func (w *watch) event(e Event) {
	if w.observer != nil {
		e.Session = w.session
		w.observer.Observe(e)
	}
}

// called tells of a call that was judged. permit is nil if there was none, at
// is the phase in which it was judged.
func (w *watch) called(op string, at *phase, permit *permit, took time.Duration, err error) {
	if w.idle() {
		return
	}
	outcome, errno := outcomeOf(err)
	w.event(Event{Kind: CallEnded, Role: w.role, Phase: at.name, Op: op, Outcome: outcome, Errno: errno, Duration: took})
	if w.audit == nil {
		return
	}
	attrs := []slog.Attr{
		slog.String("role", w.role), slog.String("phase", at.name), slog.String("op", op),
		slog.String("outcome", outcome.String()), slog.Duration("duration", took),
	}
	if errno != 0 {
		attrs = append(attrs, slog.String("errno", errno.Error()))
	}
	if permit != nil && !permit.caps.Empty() {
		attrs = append(attrs, slog.String("caps", permit.caps.String()))
	}
	w.audit.LogAttrs(context.Background(), slog.LevelInfo, "call", attrs...)
}

// outcomeOf sorts the error of a call or of a session.
func outcomeOf(err error) (Outcome, syscall.Errno) {
	var (
		next      *replaced
		violation *ViolationError
		exit      *ExitError
		shared    *SharedError
	)
	errno, refused := err.(syscall.Errno) // a refusal is bare
	switch {
	case err == nil || errors.As(err, &next):
		return Good, 0
	case errors.As(err, &violation):
		return Violated, 0
	case errors.As(err, &shared):
		return Shared, 0
	case errors.As(err, &exit):
		return Ended + Outcome(exit.Class), 0
	case refused && errno == syscall.EIO:
		return Troubled, errno
	case refused:
		return Refused, errno
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return Canceled, 0
	}
	return Troubled, 0
}
