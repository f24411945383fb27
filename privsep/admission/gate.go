package admission

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// Limits are how many sessions there may be.
type Limits struct {
	// Sessions is how many there may be at once. Zero: 2000.
	Sessions int
	// PerSource is how many of them one source may have, and four times as
	// many a /48, in which those that logged in within a day are counted but
	// not refused. Zero: as many as there are.
	PerSource int

	// Begin, Rate and Full bound the sessions that have not logged in yet, as
	// OpenSSH's MaxStartups does: from Begin on, one connection in 100/Rate is
	// refused, from Full on all are, and in between the odds grow evenly. So
	// an attacker who holds all slots but one keeps others waiting, not out.
	// Zero: 10, 30 and 100.
	Begin, Rate, Full int
	// StartupsPerSource is how many of those one source may have, and twice
	// as many a /48. Zero: (Begin-1)/2, so that no source, and no /48, can by
	// itself make others be refused at random.
	StartupsPerSource int
}

func (l Limits) withDefaults() Limits {
	l.Sessions = cmp.Or(l.Sessions, 2000)
	l.Begin, l.Rate, l.Full = cmp.Or(l.Begin, 10), cmp.Or(l.Rate, 30), cmp.Or(l.Full, 100)
	l.Full = max(l.Full, l.Begin)
	if l.StartupsPerSource == 0 {
		l.StartupsPerSource = max(1, (l.Begin-1)/2)
	}
	return l
}

// A Gate counts sessions and keeps account of penalties. Its methods may be
// called from many goroutines at once and never wait for anything but each
// other.
type Gate struct {
	seed maphash.Seed

	mu       sync.Mutex
	limits   Limits
	ledger   *ledger
	sessions int
	startups int
	from     map[source]held
}

// held is what one source has at once.
type held struct{ sessions, startups int }

// NewGate makes a Gate that nobody has passed yet.
func NewGate(l Limits, p Penalties) *Gate {
	return &Gate{seed: maphash.MakeSeed(), limits: l.withDefaults(), ledger: newLedger(p), from: make(map[source]held)}
}

// SetLimits is for a daemon that was told other limits. Who has been admitted
// stays, and what was booked stays.
func (g *Gate) SetLimits(l Limits, p Penalties) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits, g.ledger.penalties = l.withDefaults(), p.withDefaults()
}

// A Reason says why a connection was refused. The zero Reason is none.
type Reason int

const (
	Penalized Reason = 1 + iota // its source is blocked
	Crowded                     // as many sessions as there may be
	Greedy                      // as many sessions as its source may have
	Unlucky                     // refused at random, because many have not logged in yet
)

func (r Reason) String() string {
	switch r {
	case Penalized:
		return "its source is penalized"
	case Crowded:
		return "too many sessions"
	case Greedy:
		return "too many sessions of its source"
	case Unlucky:
		return "too many sessions without a login"
	}
	return fmt.Sprintf("invalid reason %d", int(r))
}

// A RefusedError is a connection that was not admitted. It may be told to the
// log; the peer learns no more than that there is no room.
type RefusedError struct {
	Source netip.Prefix
	Reason Reason
	Until  time.Time // of Penalized: when it has passed, if nothing is added
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("admission: %v refused: %v", e.Source, e.Reason)
	if !e.Until.IsZero() {
		s += ", until " + e.Until.UTC().Format(time.RFC3339)
	}
	return s
}

// Admit lets a peer in, or says why not: a [*RefusedError]. The caller closes
// the Slot when the session has ended.
func (g *Gate) Admit(peer netip.Addr) (*Slot, error) {
	s := sourceOf(peer)
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if until, by, is := g.ledger.blocked(s, now.UnixMilli()); is {
		return nil, &RefusedError{by.prefix(), Penalized, time.UnixMilli(until)}
	}
	if reason := g.crowd(s, now.UnixMilli()); reason != 0 {
		return nil, &RefusedError{Source: s.prefix(), Reason: reason}
	}
	g.count(s, 1, 1)
	return &Slot{gate: g, source: s}, nil
}

// crowd judges the limits.
func (g *Gate) crowd(s source, now int64) Reason {
	l := &g.limits
	own := g.from[s]
	wide := held{}
	if w, ok := s.wider(); ok && !g.ledger.isGood(s, now) {
		wide = g.from[w]
	}
	switch {
	case g.sessions >= l.Sessions:
		return Crowded
	case l.PerSource > 0 && (own.sessions >= l.PerSource || wide.sessions >= 4*l.PerSource):
		return Greedy
	case own.startups >= l.StartupsPerSource || wide.startups >= 2*l.StartupsPerSource:
		return Greedy
	case g.startups >= l.Full:
		return Crowded
	case g.startups < l.Begin:
		return 0
	}
	// drop_connection in OpenSSH's sshd.c.
	odds := l.Rate + (100-l.Rate)*(g.startups-l.Begin)/max(1, l.Full-l.Begin)
	if rand.N(100) < odds {
		return Unlucky
	}
	return 0
}

func (g *Gate) count(s source, sessions, startups int) {
	g.sessions += sessions
	g.startups += startups
	all := []source{s}
	if w, ok := s.wider(); ok {
		all = append(all, w)
	}
	for _, s := range all {
		h := g.from[s]
		h.sessions += sessions
		h.startups += startups
		if g.from[s] = h; h == (held{}) {
			delete(g.from, s)
		}
	}
}

// A Slot is the place of one session, from its connection to its end.
type Slot struct {
	gate   *Gate
	source source

	// Under gate.mu.
	tried, proved, closed bool
}

// LoggedIn says that the peer has proved who it is.
func (s *Slot) LoggedIn() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.closed || s.proved {
		return
	}
	s.proved = true
	g.count(s.source, 0, -1)
	g.ledger.succeeded(s.source, time.Now().UnixMilli())
}

// LoginFailed books a login that was refused. The name and the password are not
// kept, only 32 bits of a hash whose key no one knows, by which the same two are
// known again.
func (s *Slot) LoginFailed(name, password string) {
	g := s.gate
	credential := uint32(maphash.Comparable(g.seed, [2]string{name, password}))
	now := time.Now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	s.tried = true
	if !g.ledger.tried(s.source, credential, now) {
		g.ledger.add(s.source, g.ledger.penalties.Login, now)
	}
}

// An Offence is what the end of a session says about its peer.
type Offence int

const (
	NoOffence Offence = iota
	Violated          // a [privsep.ViolationError]
	Crashed           // a crash of a worker, or a handler's panic
	Late              // no login in time
	Silent            // gone without having tried a login
	Suspect           // a worker was killed by its filter: raise an alarm
)

func (o Offence) String() string {
	names := [...]string{"none", "violation", "crash", "login deadline", "no login", "forbidden system call"}
	if o < 0 || int(o) >= len(names) {
		return fmt.Sprintf("invalid offence %d", int(o))
	}
	return names[o]
}

// Close gives the place up and books what err, which [privsep.Serve] returned,
// says about the peer. It returns that, so that the caller can raise an alarm
// for [Suspect], which costs the peer nothing. Further calls do nothing.
func (s *Slot) Close(err error) Offence {
	g := s.gate
	now := time.Now().UnixMilli()
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.closed {
		return NoOffence
	}
	s.closed = true
	startups := -1
	if s.proved {
		startups = 0
	}
	g.count(s.source, -1, startups)
	o := s.judge(err)
	p := &g.ledger.penalties
	cost := map[Offence]time.Duration{Violated: p.Violation, Crashed: p.Crash, Late: p.Deadline, Silent: p.NoLogin}
	g.ledger.add(s.source, cost[o], now)
	return o
}

func (s *Slot) judge(err error) Offence {
	var (
		violation *privsep.ViolationError
		panicked  *privsep.PanicError
		exit      *privsep.ExitError
		shared    *privsep.SharedError
	)
	switch {
	case errors.As(err, &shared):
		return NoOffence // another session's, or nobody knows whose
	case errors.As(err, &violation):
		return Violated
	case errors.As(err, &panicked):
		return Crashed
	case errors.As(err, &exit) && exit.Class == privsep.Filtered:
		return Suspect
	case errors.As(err, &exit) && exit.Class == privsep.Crashed:
		return Crashed
	case errors.As(err, &exit) && exit.Class == privsep.TimedOut && !s.proved:
		return Late
	case !s.proved && !s.tried:
		return Silent
	}
	return NoOffence
}

// Jitter is d and up to a thirtieth more, at random, as OpenSSH adds up to 4 s
// to its 120: deadlines of connections that came together do not come together.
func Jitter(d time.Duration) time.Duration { return d + rand.N(d/30+1) }
