package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-privsep/sallyport/caps"
)

// A Confinement says what a monitor keeps when it has opened what it needs. The
// zero Confinement keeps no path and no user but nobody's.
//
// Kept in any case are the descriptors that are open, TCP sockets, also new
// ones, pairs of AF_UNIX sockets, and the permitted capabilities that are named
// to Enter. Sockets of other kinds, child processes and paths that are not named
// are to be opened before.
type Confinement struct {
	// UID and GID are the monitor's from here on. It is without supplementary
	// groups. Zero: nobody's, 65534. Other processes with the same UID may kill
	// the monitor, so it had better be its own.
	UID, GID uint32
	// Read and Write are files and directories that the monitor may open to
	// read, and may also write, with what is beneath them, by absolute paths,
	// at most 16 each, as far as UID may: one that UID can't reach gives
	// nothing. A file that is named is the one that is there now, not one that
	// takes its name later. Zero: none.
	Read, Write []string
	// Without are the mechanisms that may be missing on this host: Identity,
	// Landlock, LandlockScopes and WriteExecute. Zero: none may.
	Without Mechanisms
}

func (c *Confinement) uid() int { return orDefault(int(c.UID), nobody) }
func (c *Confinement) gid() int { return orDefault(int(c.GID), nobody) }

// Validate reports what makes c impossible on any host.
func (c *Confinement) Validate() error {
	if len(c.Read) > 16 || len(c.Write) > 16 {
		return errors.New("sandbox: at most 16 paths of each kind")
	}
	for _, path := range slices.Concat(c.Read, c.Write) {
		if !cleanAbsolute(path) || path == "/" {
			return fmt.Errorf("sandbox: path %q of a monitor is not a clean absolute one below /", path)
		}
	}
	return nil
}

// Check returns a [PostureError] unless every thread of the monitor is what
// Enter, which returned missing, makes it. keep is what may be permitted, before
// what the monitor was.
func (c *Confinement) Check(p, before *Posture, keep caps.Set, missing Mechanisms) error {
	for i := range p.Threads {
		t := p.Threads[i]
		if left := t.Permitted.Minus(keep); !left.Empty() {
			return &PostureError{p.PID, t.TID, fmt.Sprintf("the permitted set has %v", left)}
		}
		t.Permitted = caps.Set{}
		if missing.Has(Identity) {
			t.Bounding = caps.Set{} // only who has CAP_SETPCAP can lower it; with no_new_privs and no exec it bounds nothing
		}
		if what := t.lacks(&Profile{UID: c.UID, GID: c.GID}, missing, before); what != "" {
			return &PostureError{p.PID, t.TID, what}
		}
	}
	return nil
}
