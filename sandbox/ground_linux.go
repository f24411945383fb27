package sandbox

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/seccomp"
)

// StartCaps is the set of capabilities that a launcher needs, permitted, to
// start workers with every mechanism, to prove and to end them. No monitor
// needs any of them.
func StartCaps() caps.Set {
	return caps.Of(caps.SetGID, caps.SetUID, caps.SysChroot, caps.Kill, caps.SysPtrace)
}

// A Ground is how workers are started on this host: what their launcher may do,
// and in which namespaces it lives, and they with it.
type Ground uint8

// The grounds.
const (
	// groundHost has workers of other users, in namespaces of the launcher's.
	groundHost Ground = iota + 1
	// groundFlat has workers of other users, in the monitor's namespaces.
	groundFlat
	// groundUser has workers of the monitor's user, in a user namespace of the
	// launcher's, which gives them a root and namespaces all the same.
	groundUser
	// groundNone has workers of the monitor's user, and nothing.
	groundNone
)

// Grounds are those that a process like this one may have, the best first. The
// host may refuse the start of a launcher on one, or its Prepare.
func Grounds() ([]Ground, error) {
	_, permitted, _, err := sys.Capget()
	if err != nil {
		return nil, fmt.Errorf("sandbox: read capabilities: %w", err)
	}
	// CAP_SYS_PTRACE is for Proof alone, which may be missing.
	want := StartCaps().Minus(caps.Of(caps.SysPtrace)).Union(caps.Of(caps.SetPCap))
	if want.Bits()&^permitted == 0 {
		return []Ground{groundHost, groundFlat}, nil
	}
	return []Ground{groundUser, groundNone}, nil
}

// Refused reports whether err is a host's answer to a ground that it does not
// give: no right to it, none of that sort, or no more of them.
func (g Ground) Refused(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EINVAL, syscall.ENOSYS, syscall.ENOSPC, syscall.EUSERS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (g Ground) namespaces() bool { return g == groundHost || g == groundUser }
func (g Ground) identity() bool   { return g == groundHost || g == groundFlat }

// Missing are the mechanisms that workers started on this ground can't have.
func (g Ground) Missing() (m Mechanisms) {
	if !g.identity() {
		m |= Identity
	}
	if !g.namespaces() {
		m |= Namespaces
	}
	if g == groundNone {
		m |= Root
	}
	return m
}

// late is what a worker has until its sandbox closes.
func (g Ground) late() caps.Set {
	switch g {
	case groundHost, groundFlat:
		return caps.Of(caps.SysChroot, caps.SetUID)
	case groundUser:
		return caps.Of(caps.SysChroot)
	}
	return caps.Set{}
}

// Launcher is the attributes of a launcher's process, which this process
// starts: nothing may be added to them. The launcher is the init of its PID
// namespace, so nothing in it outlives the launcher (pid_namespaces(7)).
func (g Ground) Launcher(pidfd *int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, PidFD: pidfd}
	if g.namespaces() {
		a.Cloneflags = sys.NewNamespaces
		if cgoEnabled {
			a.Cloneflags |= sys.NewMounts // libpsx needs a /proc of this PID namespace
		}
	}
	keep := StartCaps().Union(caps.Of(caps.SetPCap))
	if cgoEnabled {
		keep = keep.Union(caps.Of(caps.SysAdmin)) // to mount it
	}
	switch g {
	case groundHost, groundFlat:
		_, permitted, _, _ := sys.Capget()
		for c := range keep.All() {
			if permitted&(1<<c.Number()) != 0 {
				a.AmbientCaps = append(a.AmbientCaps, uintptr(c.Number()))
			}
		}
	case groundUser:
		uid, gid := os.Getuid(), os.Getgid()
		a.Cloneflags |= sys.NewUsers
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		for c := range keep.Minus(caps.Of(caps.SetGID, caps.SetUID)).All() {
			a.AmbientCaps = append(a.AmbientCaps, uintptr(c.Number()))
		}
	}
	return a
}

// Prepare readies a launcher, whose every thread is left with [StartCaps] at
// most and nothing effective, but for the calling one: what is permitted stays
// effective on it. The caller has locked that thread, starts workers from it and
// from no other, and never gives it back to other work. None of it can be undone.
//
// What a worker gets until its sandbox closes is ambient on that thread, and
// nothing is in its bounding set, so that exec can add nothing: a worker is born
// with its bounding set empty and its securebits locked.
//
// It is confined as far as workers, who inherit that below their own, still
// can do all that theirs takes: by a filter, a Landlock domain in which no program
// but this one is executed, and MDWE. The last two may be missing, on any host.
func (g Ground) Prepare() (missing Mechanisms, err error) {
	if cgoEnabled && g.namespaces() {
		if err := sys.MountProc(); err != nil {
			return 0, fmt.Errorf("sandbox: /proc: %w", err)
		}
	}
	if err := sys.NotDumpable(); err != nil {
		return 0, fmt.Errorf("sandbox: dumpable: %w", err)
	}
	if restrictPrograms() != nil {
		missing |= Landlock
	}
	if sys.DenyWriteExecute() != nil {
		missing |= WriteExecute
	}
	if g != groundNone {
		if err := g.limit(); err != nil {
			return 0, err
		}
	}
	filter, err := seccomp.CompileLauncher(seccomp.Host())
	if err != nil {
		return 0, err
	}
	return missing, filter.Install()
}

// restrictPrograms lets this process and those that it starts execute no file but
// their own, and make no device, socket, FIFO or symbolic link. With cgo there is also the loader, whose name the host decides.
func restrictPrograms() error {
	config := landlock.Config{HandledAccessFS: ll.AccessFSExecute | ll.AccessFSMakeChar | ll.AccessFSMakeBlock |
		ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeSym | ll.AccessFSRefer}
	// Without a rule, moving a file to another directory would be denied, too
	// (landlock(7)): that is for a worker's own paths to say.
	rules := []landlock.Rule{landlock.PathAccess(ll.AccessFSRefer, "/")}
	if cgoEnabled {
		config.HandledAccessFS &^= ll.AccessFSExecute
	} else {
		rules = append(rules, landlock.PathAccess(ll.AccessFSExecute, "/proc/self/exe"))
	}
	return config.RestrictPaths(rules...)
}

// limit is the part of Prepare that is about capabilities.
func (g Ground) limit() error {
	_, permitted, _, err := sys.Capget()
	if err != nil {
		return fmt.Errorf("sandbox: read capabilities: %w", err)
	}
	// The order matters: what is inherited must be bounding when it becomes
	// inheritable, inheritable when it becomes ambient, and ambient when the
	// securebits forbid that; and all of it takes CAP_SETPCAP.
	late, keep := g.late().Bits(), StartCaps().Bits()&permitted
	if err := sys.CapsetAll(permitted, permitted, late); err != nil {
		return fmt.Errorf("sandbox: inheritable set: %w", err)
	}
	if err := sys.AmbientClearAll(); err != nil {
		return fmt.Errorf("sandbox: ambient set: %w", err)
	}
	for c := range g.late().All() {
		if err := sys.AmbientRaise(c.Number()); err != nil {
			return fmt.Errorf("sandbox: ambient set: %w", err)
		}
	}
	const noSetuidFixup = 1 << 2 // off and locked: a worker lives by the fix-up (changeUser)
	if err := sys.SetSecurebitsAll(sys.SecurebitsLocked &^ noSetuidFixup); err != nil {
		return fmt.Errorf("sandbox: securebits: %w", err)
	}
	if err := dropBounding(); err != nil {
		return err
	}
	if err := sys.CapsetAll(0, keep, late); err != nil {
		return fmt.Errorf("sandbox: capabilities: %w", err)
	}
	// Effective also in death: the kernel sends the workers' death signal in
	// the name of the dying thread, and not at all to another user's process
	// that it may not signal (forget_original_parent and
	// check_kill_permission in Linux).
	return sys.Capset(keep, keep, late)
}

// dropBounding empties the bounding set of every thread.
func dropBounding() error {
	for n := 0; ; n++ {
		has, err := sys.BoundingHas(n)
		if errors.Is(err, syscall.EINVAL) {
			return nil // beyond this kernel's last
		}
		if err == nil && has {
			err = sys.BoundingDropAll(n)
		}
		if err != nil {
			return fmt.Errorf("sandbox: bounding set: %w", err)
		}
	}
}

// Worker is the attributes of a worker's process, which the prepared thread
// starts: nothing may be added to them.
func (g Ground) Worker(p *Profile, pidfd *int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true, PidFD: pidfd}
	if g.identity() {
		// Not the user yet. Between fork and exec the child shares the
		// launching thread's fate: with its user's uid, any process of
		// that user could stop it, and the launcher with it.
		a.Credential = &syscall.Credential{Uid: uint32(os.Getuid()), Gid: uint32(p.gid()), Groups: p.Groups}
	}
	return a
}
