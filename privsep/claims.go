package privsep

import (
	"errors"
	"fmt"
	"os"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Claims are numbers that no two processes of an upgrade have at once. Where an
// upgrade may come or has come, each of its processes locks a byte of one file
// for each number that it has; the file is nobody's but theirs, and what a process
// has locked is free when it has ended, however that was.
type claims struct {
	file *os.File // nil: this process is alone
}

// Where the bytes of each kind of numbers begin.
const (
	workerIDClaims = 0
	daemonClaims   = 1 << 32
)

func newClaims(shared bool, before *Predecessor) (*claims, error) {
	if !shared && before == nil {
		return &claims{}, nil
	}
	if before == nil || before.claims == nil {
		fd, err := sys.SealedMemfd("claims") // its bytes are never there
		if err != nil {
			return nil, fmt.Errorf("privsep: claims: %w", err)
		}
		return &claims{os.NewFile(uintptr(fd), "claims")}, nil
	}
	// Opened anew: locks belong to what open(2) returns, and what came from the
	// predecessor has its.
	raw, err := before.claims.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("privsep: claims: %w", err)
	}
	c := &claims{}
	var opened error
	err = raw.Control(func(fd uintptr) {
		c.file, opened = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	})
	if err := errors.Join(err, opened, before.claims.Close()); err != nil {
		return nil, fmt.Errorf("privsep: claims of the predecessor: %w", err)
	}
	return c, nil
}

// take keeps a number from the other processes of an upgrade, unless one has it.
// Which of them this one has already is the caller's to know.
func (c *claims) take(kind int64, n uint32) (ok bool, err error) {
	if c.file == nil {
		return true, nil
	}
	return sys.LockByte(c.file.Fd(), kind+int64(n))
}

func (c *claims) give(kind int64, n uint32) {
	if c.file != nil {
		_ = sys.UnlockByte(c.file.Fd(), kind+int64(n)) // which can't fail: it only makes a lock smaller
	}
}

// heirloom returns a duplicate of the file for a successor; nil if there is none.
func (c *claims) heirloom() (*os.File, error) {
	if c.file == nil {
		return nil, nil
	}
	fd, err := sys.Duplicate(c.file.Fd())
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), c.file.Name()), nil
}

func (c *claims) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// Claim takes a number of the daemon's own, such as a port that both processes of
// an upgrade could hand out, for as long as this process lives or until
// [Monitor.Unclaim]. It reports whether it could: not if the predecessor or the
// successor has it. What this process itself has claimed, it may claim again, and
// one Unclaim ends all of that.
func (m *Monitor) Claim(n uint32) (ok bool, err error) { return m.claims.take(daemonClaims, n) }

// Unclaim gives back what Claim took.
func (m *Monitor) Unclaim(n uint32) { m.claims.give(daemonClaims, n) }
