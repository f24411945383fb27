package privsep

import (
	"fmt"
	"os"
	"strings"
	"sync"
)

// IDs is a range of user numbers, and of the group numbers that are the same,
// both ends in it. The zero IDs is none.
type IDs struct{ First, Last uint32 }

// Has reports whether id is in the range.
func (r IDs) Has(id uint32) bool { return r != IDs{} && r.First <= id && id <= r.Last }

func (r IDs) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// An IDsError says that a launch found no number in [Config].WorkerIDs, or wants
// one of them for itself. It ends that launch and nothing else.
type IDsError struct {
	Role   string
	IDs    IDs
	Reason string
}

func (e *IDsError) Error() string {
	return fmt.Sprintf("privsep: worker %s: ids %v: %s", e.Role, e.IDs, e.Reason)
}

// ids are the numbers of a range that live workers have.
type ids struct {
	IDs
	mu     sync.Mutex
	used   map[uint32]bool
	next   uint32 // distance from First: one that was just given up comes last
	claims *claims
}

func newIDs(r IDs, c *claims) *ids {
	return &ids{IDs: r, used: make(map[uint32]bool), claims: c}
}

// check reports what makes a range impossible here.
func (r IDs) check() error {
	const nobody, none16, none = 65534, 1<<16 - 1, 1<<32 - 1 // nobody's, and what (uid_t)-1 is
	switch {
	case r == IDs{}:
		return nil
	case r.First == 0 || r.First > r.Last || r.Has(nobody) || r.Has(none16) || r.Has(none):
		return fmt.Errorf("privsep: worker ids %v: not a range, or 0, 65534, 65535 or 4294967295 are in it", r)
	}
	// In a container's user namespace most numbers are no users'.
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		mapped := false
		for line := range strings.Lines(string(text)) {
			var inside, outside, n uint64
			if _, err := fmt.Sscan(line, &inside, &outside, &n); err == nil {
				mapped = mapped || inside <= uint64(r.First) && uint64(r.Last) < inside+n
			}
		}
		if !mapped {
			return fmt.Errorf("privsep: worker ids %v are not in one line of %s: choose others", r, file)
		}
	}
	return nil
}

// assign returns p with a user and group of its own, if it names none, and the
// number that free gives back; 0 if there is none.
func (s *ids) assign(role string, p *Sandbox) (*Sandbox, uint32, error) {
	fail := func(reason string) (*Sandbox, uint32, error) {
		return nil, 0, &IDsError{Role: role, IDs: s.IDs, Reason: reason}
	}
	if (s.IDs == IDs{}) {
		return p, 0, nil
	}
	if s.Has(p.GID) {
		return fail(fmt.Sprintf("group %d is one of them: they are for workers without a user of their own", p.GID))
	}
	for _, g := range p.Groups {
		if s.Has(g) {
			return fail(fmt.Sprintf("group %d is one of them", g))
		}
	}
	if p.UID != 0 {
		if s.Has(p.UID) {
			return fail(fmt.Sprintf("user %d is one of them: they are for workers without a user of their own", p.UID))
		}
		return p, 0, nil
	}
	if len(p.Write) > 0 {
		return fail("a worker that writes files would leave them to the next with its number: set UID")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.Last - s.First + 1 {
		id := s.First + s.next
		s.next = (s.next + 1) % (s.Last - s.First + 1)
		if s.used[id] {
			continue
		}
		mine, err := s.claims.take(workerIDClaims, id)
		if err != nil {
			return nil, 0, fmt.Errorf("privsep: worker %s: ids %v: %w", role, s.IDs, err)
		}
		if mine {
			s.used[id] = true
			own := *p
			if own.UID = id; own.GID == 0 {
				own.GID = id
			}
			return &own, id, nil
		}
	}
	return fail("all are in use")
}

// own takes the last free number for the monitor itself, for good.
func (s *ids) own() (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := s.Last; id >= s.First; id-- {
		if s.used[id] {
			continue
		}
		mine, err := s.claims.take(workerIDClaims, id)
		if err != nil {
			return 0, fmt.Errorf("privsep: monitor: ids %v: %w", s.IDs, err)
		}
		if mine {
			s.used[id] = true
			return id, nil
		}
	}
	return 0, &IDsError{Role: "monitor", IDs: s.IDs, Reason: "all are in use"}
}

// free gives back the number of a worker that is reaped.
func (s *ids) free(id uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[id] {
		s.claims.give(workerIDClaims, id)
	}
	delete(s.used, id)
}
