package privsep

import (
	"errors"
	"fmt"
	"os"

	"github.com/go-privsep/sallyport/internal/sys"
)

// newIDs returns a range's numbers. Where an upgrade may come or has come, each
// of its processes locks a byte of one file for each number that is in use; the
// file is nobody's but theirs, and what a process has locked is free when it has
// ended, however that was.
func newIDs(r IDs, shared bool, before *Predecessor) (*ids, error) {
	s := &ids{IDs: r, used: make(map[uint32]bool)}
	if r == (IDs{}) || !shared && before == nil {
		return s, nil
	}
	if before == nil || before.claims == nil {
		fd, err := sys.SealedMemfd("worker-ids") // its bytes are never there
		if err != nil {
			return s, fmt.Errorf("privsep: worker ids: %w", err)
		}
		s.claims = os.NewFile(uintptr(fd), "worker-ids")
		return s, nil
	}
	// Opened anew: locks belong to what open(2) returns, and what came from the
	// predecessor has its.
	raw, err := before.claims.SyscallConn()
	if err != nil {
		return s, fmt.Errorf("privsep: worker ids: %w", err)
	}
	var opened error
	err = raw.Control(func(fd uintptr) {
		s.claims, opened = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	})
	if err := errors.Join(err, opened, before.claims.Close()); err != nil {
		return s, fmt.Errorf("privsep: worker ids of the predecessor: %w", err)
	}
	return s, nil
}

// claim keeps id from the other processes of an upgrade, unless one has it.
func (s *ids) claim(id uint32) (ok bool, err error) {
	if s.claims == nil {
		return true, nil
	}
	return sys.LockByte(s.claims.Fd(), id)
}

// heirloom returns a duplicate of the file for a successor; nil if there is none.
func (s *ids) heirloom() (*os.File, error) {
	if s.claims == nil {
		return nil, nil
	}
	fd, err := sys.Duplicate(s.claims.Fd())
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), s.claims.Name()), nil
}

func (s *ids) close() {
	if s.claims != nil {
		s.claims.Close()
	}
}
