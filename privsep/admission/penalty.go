package admission

import (
	"cmp"
	"slices"
	"time"
)

// Penalties are what offences cost. A zero field is its default, a negative one
// costs nothing.
type Penalties struct {
	Violation time.Duration // a message that no honest worker sends: 10 m
	Crash     time.Duration // a worker that crashed: 90 s
	Deadline  time.Duration // no login in time: 10 s
	Login     time.Duration // a failed login, with other credentials than before: 5 s
	NoLogin   time.Duration // gone without having tried one: 1 s

	Threshold time.Duration // what is borne before the source is refused: 15 s
	Max       time.Duration // the most that one source can have before it: 10 m
}

func (p Penalties) withDefaults() Penalties {
	for _, f := range []struct {
		field *time.Duration
		zero  time.Duration
	}{
		{&p.Violation, 10 * time.Minute}, {&p.Crash, 90 * time.Second}, {&p.Deadline, 10 * time.Second},
		{&p.Login, 5 * time.Second}, {&p.NoLogin, time.Second},
		{&p.Threshold, 15 * time.Second}, {&p.Max, 10 * time.Minute},
	} {
		*f.field = max(0, cmp.Or(*f.field, f.zero))
	}
	return p
}

const (
	maxSources = 1 << 15 // of each family
	maxGood    = 1 << 14 // sources with a recent login
	goodFor    = 24 * time.Hour
	// escalation is how many blocked /64 make their /48 a blocked one. Fewer
	// would let one subscriber, who often has several, block a neighbour.
	escalation = 4
	// remembered is how many failed credentials of a source are known again.
	remembered = 4
)

// A record is what one source has to pay. It is a value in a map, 40 bytes.
type record struct {
	until   int64 // when it is paid, in Unix milliseconds
	blocked bool
	inside  uint8 // of a /48: how many /64 have been blocked since it was free
	tried   [remembered]uint32
}

// A ledger holds the records of all sources. Its lock is the Gate's.
type ledger struct {
	penalties Penalties
	v4, v6    map[source]record
	good      map[source]int64 // when it last logged in
}

func newLedger(p Penalties) *ledger {
	return &ledger{p.withDefaults(), make(map[source]record), make(map[source]record), make(map[source]int64)}
}

func (l *ledger) family(s source) map[source]record {
	if s.bits == 32 {
		return l.v4
	}
	return l.v6
}

// get returns what s has to pay, nothing if that has passed.
func (l *ledger) get(s source, now int64) (r record) {
	family := l.family(s)
	r, known := family[s]
	if known && r.until <= now {
		delete(family, s)
		return record{}
	}
	return r
}

// blocked returns until when s is refused, and as part of what.
func (l *ledger) blocked(s source, now int64) (until int64, by source, is bool) {
	if r := l.get(s, now); r.blocked {
		return r.until, s, true
	}
	if w, ok := s.wider(); ok && !l.isGood(s, now) {
		if r := l.get(w, now); r.blocked {
			return r.until, w, true
		}
	}
	return 0, s, false
}

// isGood reports whether s has logged in within a day: what others in its /48 do
// is then not its business.
func (l *ledger) isGood(s source, now int64) bool { return l.good[s] > now-goodFor.Milliseconds() }

// add makes s pay cost more.
func (l *ledger) add(s source, cost time.Duration, now int64) {
	if cost <= 0 {
		return
	}
	r := l.get(s, now)
	was := r.blocked
	r.until = min(max(r.until, now)+cost.Milliseconds(), now+l.penalties.Max.Milliseconds())
	r.blocked = was || r.until-now >= l.penalties.Threshold.Milliseconds()
	l.put(s, r, now)
	if w, ok := s.wider(); ok && r.blocked && !was {
		l.escalate(w, r.until, now)
	}
}

// escalate counts one more blocked /64 of the /48 w.
func (l *ledger) escalate(w source, until, now int64) {
	r := l.get(w, now)
	r.inside = min(r.inside+1, escalation)
	r.until = max(r.until, until)
	r.blocked = r.inside >= escalation
	l.put(w, r, now)
}

// tried reports whether this credential has failed for s before, and remembers
// it for as long as s has anything to pay.
func (l *ledger) tried(s source, credential uint32, now int64) bool {
	r := l.get(s, now)
	if slices.Contains(r.tried[:], credential) {
		return true
	}
	copy(r.tried[1:], r.tried[:])
	r.tried[0] = credential
	if r.until <= now {
		r.until = now + 1 // what add makes of it; alone it is forgotten at once
	}
	l.put(s, r, now)
	return false
}

func (l *ledger) put(s source, r record, now int64) {
	family := l.family(s)
	if _, known := family[s]; !known && len(family) >= maxSources && !makeRoom(family, r.until, now) {
		return
	}
	family[s] = r
}

// makeRoom forgets the one of a few that is free soonest, unless a record that
// ends at until would itself be. So a flood of small offences drives out
// others of its kind and no violation.
func makeRoom(family map[source]record, until, now int64) bool {
	var victim source
	soonest, looked := until, 0
	for s, r := range family { // in an order that nobody can foresee
		if r.until < soonest {
			victim, soonest = s, r.until
		}
		if looked++; looked == 16 || r.until <= now {
			break
		}
	}
	if soonest == until {
		return false
	}
	delete(family, victim)
	return true
}

// succeeded notes a login from s.
func (l *ledger) succeeded(s source, now int64) {
	if _, known := l.good[s]; !known && len(l.good) >= maxGood {
		oldest, at, looked := source{}, now, 0
		for s, t := range l.good {
			if t <= at {
				oldest, at = s, t
			}
			if looked++; looked == 16 {
				break
			}
		}
		delete(l.good, oldest)
	}
	l.good[s] = now
}
