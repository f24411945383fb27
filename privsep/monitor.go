package privsep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/sandbox"
)

// A Monitor is the privileged side of one policy: it starts workers, answers
// them and ends them. Its methods may be called from many goroutines at once.
type Monitor struct {
	policy   *Policy
	log      *slog.Logger
	audit    *slog.Logger // or nil
	observer Observer     // or nil
	starter  *starter
	buffers  *ipc.Buffers

	recordPlan *ipc.Plan
	claims     *claims
	ids        *ids
	spares     spares
	hosts      hosts
	keepers    keepers
	sessions   atomic.Uint64
	workers    sync.WaitGroup

	upgrader        *Conn // nil: no upgrades
	upgraderProcess *os.Process
}

// A Config says how a monitor runs. The zero Config is a quiet one.
type Config struct {
	// WorkerIDs are users and groups that belong to nobody else on this host,
	// another monitor included. A worker whose Sandbox has no UID gets one of
	// them, and the group of the same number if it has no GID, until it is
	// reaped; so no two such workers may signal or trace each other, or use
	// up what the kernel counts by user. A launch that finds none left fails
	// with an [IDsError]. Zero: all of them are nobody, 65534.
	WorkerIDs IDs
	// Log gets what callers are not told: refusals at Info and failures of
	// the monitor's own at Error. Nil: nothing is logged.
	Log *slog.Logger
	// Audit gets one record for each request that was judged, at Info: the
	// session, its peer, role, phase, op, outcome, errno, capabilities that
	// were raised, and how long it took. Never what a request or a reply
	// says: passwords are among that. Nil: none is written.
	Audit *slog.Logger
	// Observer is told of events, to count them. Nil: nobody is.
	Observer Observer
	// Upgrade lets [Monitor.Upgrade] put a newer binary in this one's place.
	// It takes a process beside the monitor that keeps all that this one has
	// when the monitor is made. Nil: there are no upgrades, and no such process.
	Upgrade *Upgrade
	// Predecessor is what [Inherit] returned. A number of WorkerIDs that one of
	// its workers has is not given to another one here, nor the other way
	// round, until the predecessor is gone: both together get on with one range.
	// So it is with what either claims, see [Monitor.Claim].
	Predecessor *Predecessor
}

// timerSlack is for the runtime's own watching thread, in the monitor and in its
// workers. It sleeps 20 us at a time while anything runs, and after a moment of
// nothing begins again: in a worker that answers short requests that was a fifth
// of all processor time. The price is that a goroutine which waits for another's
// system call to lose its place may wait that much longer.
const timerSlack = time.Millisecond

// NewMonitor readies this process to serve policy. It panics if the policy as
// a whole makes no sense.
//
// From here timers of this process may be a millisecond late.
//
// The caller calls Close when no session is left.
func NewMonitor(policy *Policy, config Config) (*Monitor, error) {
	policy.freeze()
	if err := config.WorkerIDs.check(); err != nil {
		return nil, err
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	records, err := ipc.PlanFor[logRecord]()
	if err != nil {
		return nil, err
	}
	if err := sys.SlackenTimers(timerSlack); err != nil {
		return nil, os.NewSyscallError("prctl", err)
	}
	claims, err := newClaims(config.Upgrade != nil, config.Predecessor)
	if err != nil {
		return nil, err
	}
	s, err := newStarter()
	if err != nil {
		claims.close()
		return nil, err
	}
	m := &Monitor{
		policy: policy, log: log, audit: config.Audit, observer: config.Observer,
		starter: s, buffers: policy.buffers(), recordPlan: records,
		claims: claims, ids: newIDs(config.WorkerIDs, claims),
	}
	m.buffers.Grow(records.MaxSize())
	if u := config.Upgrade; u != nil {
		if m.upgrader, m.upgraderProcess, err = startUpgrader(u); err != nil {
			s.close()
			claims.close()
			return nil, err
		}
	}
	m.spares.init(m)
	m.hosts.init(m)
	return m, nil
}

// A Confinement says what a monitor keeps; the zero Confinement keeps no path, and
// no user but one of [Config].WorkerIDs, which no worker gets then, or nobody's.
type Confinement = sandbox.Confinement

// Confine takes from this process, for good, what a monitor has no use for once
// its listeners are bound and its files are open: it leaves root, keeps what the
// policy's permits declare as its permitted capabilities, with none of them effective but in
// the handler of such a permit, and comes under a filter, Landlock, no_new_privs
// and an empty environment, as [Confinement] says. Call it before the first
// session. Then the launcher is asked what the kernel says of every thread.
//
// It returns the mechanisms that are missing, all of them in c.Without. Errors are
// [*sandbox.UnsupportedError] and [*sandbox.PostureError], or the kernel's;
// after any of them the process had better exit.
func (m *Monitor) Confine(c Confinement) (sandbox.Mechanisms, error) {
	if c.UID == 0 && (m.ids.IDs != IDs{}) {
		id, err := m.ids.own()
		if err != nil {
			return 0, err
		}
		if c.UID = id; c.GID == 0 {
			c.GID = id
		}
	}
	keep := m.policy.Caps()
	missing, err := c.Enter(keep)
	if err != nil {
		return 0, err
	}
	posture, err := m.starter.posture(monitorID, os.Getpid())
	if err == nil {
		err = c.Check(&posture, &m.starter.before, keep, missing)
	}
	return missing, err
}

// Postures reads what is in force for this process and for its launcher, as the
// launcher reads it in /proc: for a daemon's start-up report and for tests.
// Files are in neither, and in the monitor's no root and no namespaces. The mechanisms
// are those that the launcher is without.
func (m *Monitor) Postures() (monitor, launcher sandbox.Posture, missing sandbox.Mechanisms, err error) {
	if monitor, err = m.starter.posture(monitorID, os.Getpid()); err == nil {
		launcher, err = m.starter.posture(launcherID, m.starter.pid)
	}
	return monitor, launcher, m.starter.missing, err
}

// Wait returns when the launcher has ended: after Close with nil, and else with
// an [*ExitError]. No worker lives then and none can be started, so the daemon's
// only way on is to exit.
func (m *Monitor) Wait() error { return m.starter.wait() }

// Posture reads what is in force for a worker started from l, which is started
// for this and ended: for a daemon's start-up report and for tests. It is
// handed neither files nor message, without which its role might end before it
// is read. The mechanisms are those that are missing.
func (m *Monitor) Posture(_ context.Context, l Launch) (sandbox.Posture, sandbox.Mechanisms, error) {
	defer l.closeFiles()
	p, err := m.spawn(l.Role, &l.Sandbox)
	if err != nil {
		return sandbox.Posture{}, 0, err
	}
	defer m.bury(p)
	posture, err := m.posture(p)
	return posture, p.missing, err
}

// launch gives l's worker what it serves.
func (m *Monitor) launch(ctx context.Context, l *Launch) (*seat, error) {
	defer l.closeFiles()
	if l.Share.Sessions > 1 {
		if len(l.Sandbox.Open) > 0 {
			return nil, fmt.Errorf("privsep: worker %s: files that are opened once can't be shared: Sandbox.Open or Share", l.Role.Name)
		}
		return m.hosts.launch(ctx, l)
	}
	for {
		p, spare, err := m.ready(l)
		if err != nil {
			return nil, err
		}
		if err = p.begin(ctx, l, lowestLevel(m.log), 0); err == nil {
			return &seat{p: p, conn: p.conn, gone: p.ended}, nil
		}
		m.bury(p)
		if !spare || !errors.Is(err, syscall.EPIPE) {
			return nil, err
		} // else it died waiting, and it was not seen yet
	}
}

func (m *Monitor) event(e Event) {
	if m.observer != nil {
		m.observer.Observe(e)
	}
}

// ready returns a worker that has been handed nothing: a spare if one waits, or
// a new one.
func (m *Monitor) ready(l *Launch) (p *process, spare bool, err error) {
	p = m.spares.take(l)
	spare = p != nil
	if l.Spares > 0 {
		kind := SpareMissed
		if spare {
			kind = SpareTaken
		}
		m.event(Event{Kind: kind, Role: l.Role.Name})
	}
	if !spare {
		p, err = m.spawn(l.Role, &l.Sandbox)
	}
	return p, spare, err
}

// bury kills p and frees what is left of it.
func (m *Monitor) bury(p *process) {
	p.kill()
	<-p.ended
	p.release()
}

// Close ends the keepers, the spares and the launcher, with which every worker
// that is left dies too, and returns when all are gone.
func (m *Monitor) Close() error {
	m.keepers.close()
	if m.upgrader != nil {
		m.upgrader.Close()
		_, _ = m.upgraderProcess.Wait()
	}
	m.hosts.close()
	m.spares.close()
	m.starter.close()
	m.workers.Wait()
	m.claims.close()
	return nil
}
