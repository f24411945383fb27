package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/seccomp"
)

// Enter confines every thread of this process, a monitor, for good. An error
// leaves it half confined: its only way on is to exit. It returns the mechanisms
// that are missing, all of them in c.Without; one that may not be missing is an
// [UnsupportedError].
//
// The environment is emptied, also for who reads it in /proc. The death signal of
// prctl(2), if this process had one, is disarmed by the change of user.
func (c *Confinement) Enter(keep caps.Set) (Mechanisms, error) {
	if err := c.Validate(); err != nil {
		return 0, err
	}
	_ = time.Now().String() // reads the zone's file, which is out of reach afterwards
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g := &guard{Confinement: c, keep: keep}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"environment", sys.EraseEnvironment},
		{"user", g.becomeUser},
		// After the change of user: with cgo, libpsx, by which it is made,
		// lists /proc.
		{"landlock", g.restrictPaths},
		{"memory", g.denyWriteExecute},
		{"core", func() error { return sys.Limit(sys.LimitCore, 0) }},
		{"dumpable", sys.NotDumpable},
		{"filter", g.filter},
	} {
		if err := step.do(); err != nil {
			return 0, fmt.Errorf("sandbox: monitor: %s: %w", step.name, err)
		}
	}
	return g.missing, nil
}

// A guard is one [Confinement.Enter] under way.
type guard struct {
	*Confinement
	keep    caps.Set
	missing Mechanisms
}

func (g *guard) lacks(m Mechanisms, err error) error {
	if !g.Without.Has(m) {
		return Unsupported(m, err)
	}
	g.missing |= m
	return nil
}

// becomeUser leaves root, with what is kept permitted and nothing effective.
func (g *guard) becomeUser() error {
	_, permitted, _, err := sys.Capget()
	if err != nil {
		return err
	}
	keep := g.keep.Bits() & permitted
	if caps.Of(caps.SetUID, caps.SetGID, caps.SetPCap).Bits()&^permitted != 0 {
		if err := g.lacks(Identity, nil); err != nil {
			return err
		}
		return sys.CapsetAll(0, keep, 0)
	}
	// By the securebits the change of user takes no capability; then the last
	// line does.
	if err := sys.CapsetAll(permitted, permitted, 0); err != nil {
		return err
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if err := sys.SetSecurebitsAll(sys.SecurebitsLocked); err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(g.gid(), g.gid(), g.gid()), syscall.Setresuid(g.uid(), g.uid(), g.uid())); err != nil {
		return err
	}
	return sys.CapsetAll(0, keep, 0)
}

func (g *guard) restrictPaths() error {
	var rules []landlock.Rule
	for _, grant := range []struct {
		paths  []string
		access landlock.AccessFSSet
	}{{g.Read, landlockRead}, {g.Write, landlockWrite | ll.AccessFSMakeSock}} {
		for _, path := range grant.paths {
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrPermission) {
				continue // nothing here is for the user
			}
			if err != nil {
				return err
			}
			access := grant.access
			if !info.IsDir() {
				access &= landlockFile
			}
			rules = append(rules, landlock.PathAccess(access, path))
		}
	}
	config := landlock.V6
	config.HandledAccessNet = 0 // the monitor is who makes the connections
	err := config.Restrict(rules...)
	if err == nil {
		return nil
	}
	if e := g.lacks(LandlockScopes, err); e != nil {
		return e
	}
	if err = landlock.V3.Restrict(rules...); err == nil {
		return nil
	}
	return g.lacks(Landlock, err)
}

func (g *guard) denyWriteExecute() error {
	if err := sys.DenyWriteExecute(); err != nil {
		return g.lacks(WriteExecute, err)
	}
	return nil
}

func (g *guard) filter() error {
	var promises seccomp.Promises
	if len(g.Read)+len(g.Write) > 0 {
		promises |= seccomp.ReadPaths
	}
	if len(g.Write) > 0 {
		promises |= seccomp.WritePaths
	}
	f, err := seccomp.CompileMonitor(seccomp.Host(), promises, os.Getpid())
	if err != nil {
		return err
	}
	return f.Install()
}
