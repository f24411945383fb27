package privsep

import (
	"slices"
	"sync"
	"time"
)

// maxPools bounds how many sandboxes have spares at once. A daemon whose
// sandboxes are per user would else keep spares for every user it ever saw.
const maxPools = 4

// spares are workers that wait, confined and proved, for the next launch of
// their role and sandbox. One goroutine starts them, so that they never
// compete with each other for the processors that sessions need.
type spares struct {
	monitor *Monitor
	wake    chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	pools  []*pool // latest used first
	closed bool
}

type pool struct {
	key     string
	role    *Role
	sandbox Sandbox
	want    int
	ready   []*process
}

func (s *spares) init(m *Monitor) {
	s.monitor, s.wake, s.done = m, make(chan struct{}, 1), make(chan struct{})
	go s.run()
}

// take returns a ready worker for l, or nil, and has others made.
func (s *spares) take(l *Launch) (p *process) {
	if l.Spares <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	pool := s.find(l)
	pool.want = l.Spares
	for p == nil && len(pool.ready) > 0 {
		p, pool.ready = pool.ready[0], pool.ready[1:]
		select {
		case <-p.ended: // it died waiting
			p.release()
			p = nil
		default:
		}
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return p
}

// find returns l's pool and makes it the latest used.
func (s *spares) find(l *Launch) *pool {
	key := l.pool()
	for i, p := range s.pools {
		if p.key == key {
			copy(s.pools[1:i+1], s.pools[:i])
			s.pools[0] = p
			return p
		}
	}
	p := &pool{key: key, role: l.Role, sandbox: l.Sandbox}
	s.pools = append([]*pool{p}, s.pools...)
	for len(s.pools) > maxPools {
		last := s.pools[len(s.pools)-1]
		s.pools = s.pools[:len(s.pools)-1]
		for _, p := range last.ready {
			s.monitor.workers.Go(func() { s.monitor.bury(p) })
		}
	}
	return p
}

// run fills the pools whenever something was taken.
func (s *spares) run() {
	defer close(s.done)
	for range s.wake {
		if s.some() {
			time.Sleep(handOver)
		}
		for {
			pool := s.lacking()
			if pool == nil {
				break
			}
			p, err := s.monitor.spawn(pool.role, &pool.sandbox)
			if err != nil {
				// The next launch meets the same trouble and reports it.
				s.monitor.log.Error("no spare", "role", pool.role.Name, "err", err)
				break
			}
			s.add(pool, p)
		}
	}
}

// handOver is how long the one who took a spare has the processors before the
// next is started, if more are ready.
const handOver = 3 * time.Millisecond

// some reports whether there is a spare of each sort that is wanted.
func (s *spares) some() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.pools, func(p *pool) bool { return len(p.ready) == 0 })
}

func (s *spares) lacking() *pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	for _, p := range s.pools {
		if len(p.ready) < p.want {
			return p
		}
	}
	return nil
}

func (s *spares) add(to *pool, p *process) {
	s.mu.Lock()
	for _, pool := range s.pools {
		if pool == to && !s.closed {
			pool.ready = append(pool.ready, p)
			p = nil
		}
	}
	s.mu.Unlock()
	if p != nil {
		s.monitor.bury(p)
	}
}

func (s *spares) close() {
	s.mu.Lock()
	s.closed = true
	pools := s.pools
	s.pools = nil
	s.mu.Unlock()
	close(s.wake)
	<-s.done
	for _, pool := range pools {
		for _, p := range pool.ready {
			s.monitor.bury(p)
		}
	}
}
