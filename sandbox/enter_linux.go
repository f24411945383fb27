package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/seccomp"
)

// An Origin is what a worker's launcher tells it about the launch.
type Origin struct {
	Parent uint32 // the launcher's process number, as it sees it itself
	Ground Ground // on which it started the worker
}

// Enter applies p to every thread of this process, in the one right order, and
// cannot be undone. empty is a directory that no longer exists; Enter closes
// it. An error leaves the process half confined: its only way on is to exit.
//
// It returns the mechanisms that are missing, all of them in p.Without; one
// that may not be missing is an [UnsupportedError].
func (p *Profile) Enter(origin Origin, empty *os.File) (Mechanisms, error) {
	if err := p.Validate(); err != nil {
		return 0, err
	}
	// Credentials of the file system, the death signal and chroot are about
	// this thread; what follows puts none of them on another.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := &entry{Profile: p, origin: origin, missing: origin.Ground.Missing()}
	if cgoEnabled && origin.Ground == groundUser {
		// libpsx lists /proc to find the threads, so with cgo the last
		// capability can't be dropped behind the new root.
		e.missing |= Root
	}
	if lost := e.missing &^ p.Without; lost != 0 {
		return 0, Unsupported(lost, nil)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"runtime", e.settleRuntime},
		{"inherited capabilities", e.dropInherited},
		{"user", e.becomeUser},
		{"landlock", e.restrictPaths},
		{"root", func() error { return e.changeRoot(empty) }},
		// Before the last capability goes: until then no other process of
		// the same user may trace this one (ptrace(2)), after it any could,
		// and would be there still when the sandbox is closed. With cgo the
		// change of user undoes it.
		{"dumpable", sys.NotDumpable},
		{"capabilities", e.changeUser},
		{"dumpable again", sys.NotDumpable},
		{"limits", e.limit},
		{"memory", e.denyWriteExecute},
		{"death signal", e.followParent},
		{"filter", e.filter},
	} {
		if err := step.do(); err != nil {
			return 0, fmt.Errorf("sandbox: %s: %w", step.name, err)
		}
	}
	return e.missing, nil
}

// An entry is one Enter under way.
type entry struct {
	*Profile
	origin  Origin
	missing Mechanisms
}

// lacks notes a mechanism that the host can't give, or fails.
func (e *entry) lacks(m Mechanisms, err error) error {
	if !e.Without.Has(m) {
		return Unsupported(m, err)
	}
	e.missing |= m
	return nil
}

// settleRuntime stops the runtime from re-reading the processor limit of its
// cgroup, whose files it keeps open for that (Go 1.25), and closes them. They
// are among the first descriptors that a process opens; one that were missed
// would show in the posture.
func (e *entry) settleRuntime() error {
	runtime.GOMAXPROCS(1)
	syscall.Umask(e.umask())
	for fd := firstOwnFD; fd < firstOwnFD+8; fd++ {
		name, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if err == nil && strings.HasPrefix(name, "/sys/fs/cgroup/") {
			sys.Close(fd)
		}
	}
	return nil
}

// firstOwnFD is the first descriptor that a worker was not born with.
const firstOwnFD = 5

// dropInherited leaves only permitted what the next steps use, so that nothing
// is left to inherit. Bounding set and securebits are as [Ground.Prepare] left
// them.
func (e *entry) dropInherited() error {
	keep := e.origin.Ground.late().Bits()
	return sys.CapsetAll(keep, keep, 0)
}

func (e *entry) dropAll() error { return sys.CapsetAll(0, 0, 0) }

// becomeUser makes this thread open paths as the user would, so that a link of
// the user's leads nowhere that the user could not go. Groups and group were
// changed before exec; the user is changed last: see changeUser.
func (e *entry) becomeUser() error {
	if e.missing.Has(Identity) || os.Getuid() == e.uid() {
		return nil
	}
	return sys.SetFSUser(e.uid(), e.gid())
}

const (
	landlockRead  = ll.AccessFSReadFile | ll.AccessFSReadDir
	landlockWrite = landlockRead | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRefer |
		ll.AccessFSMakeReg | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
	landlockFile = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSTruncate
)

func (e *entry) restrictPaths() error {
	var rules []landlock.Rule
	for _, grant := range []struct {
		paths  []string
		access landlock.AccessFSSet
	}{{e.Read, landlockRead}, {e.Write, landlockWrite}} {
		for _, path := range grant.paths {
			path = filepath.Join(e.Root, path)
			if e.Root == "" {
				return fmt.Errorf("path %s: a profile without a root has no paths", path)
			}
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			access := grant.access
			if !info.IsDir() {
				access &= landlockFile // the kernel refuses others for a file
			}
			rules = append(rules, landlock.PathAccess(access, path))
		}
	}
	err := landlock.V6.Restrict(rules...)
	if err == nil {
		return nil
	}
	if e := e.lacks(LandlockScopes, err); e != nil {
		return e
	}
	if err = landlock.V3.Restrict(rules...); err == nil {
		return nil
	}
	return e.lacks(Landlock, err)
}

func (e *entry) changeRoot(empty *os.File) error {
	defer empty.Close()
	fd := int(empty.Fd())
	if e.Root != "" {
		root, err := sys.OpenDirectory(e.Root)
		if err != nil {
			return &os.PathError{Op: "open", Path: e.Root, Err: err}
		}
		defer sys.Close(root)
		fd = root
	}
	if err := syscall.Fchdir(fd); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	if e.missing.Has(Root) {
		return nil // it begins there, and can go elsewhere
	}
	return os.NewSyscallError("chroot", syscall.Chroot("."))
}

// changeUser ends the last capability, on every thread: with the user, from uid
// 0, every set is emptied (capabilities(7), "Effect of user ID changes"). That
// needs no /proc, where libpsx, which capset takes with cgo, lists the threads.
// A monitor that is not uid 0 has no cgo, or no new root, and drops the rest.
// The monitor reads back what became of it.
func (e *entry) changeUser() error {
	if e.missing.Has(Identity) {
		return e.dropAll()
	}
	if err := syscall.Setresuid(e.uid(), e.uid(), e.uid()); err != nil {
		return err
	}
	_, permitted, _, err := sys.Capget()
	if err != nil || permitted == 0 {
		return err
	}
	return e.dropAll()
}

func (e *entry) limit() error {
	for _, l := range []struct {
		resource int
		n        uint64
	}{
		{sys.LimitCore, 0},
		{sys.LimitLocked, 0},
		{sys.LimitQueues, 0},
		{sys.LimitFileSize, e.FileSize},
		{sys.LimitFiles, e.openFiles()},
		// Not RLIMIT_AS: the runtime reserves far more than it uses and
		// dies at 1 GiB. Not RLIMIT_NPROC: it dies at its next thread,
		// and the filter denies processes anyway.
		{sys.LimitData, e.memory()},
	} {
		if err := sys.Limit(l.resource, l.n); err != nil {
			return err
		}
	}
	return nil
}

func (e *entry) denyWriteExecute() error {
	if err := sys.DenyWriteExecute(); err != nil {
		return e.lacks(WriteExecute, err)
	}
	return nil
}

func (e *entry) followParent() error {
	if err := sys.DieWithParent(); err != nil {
		return err
	}
	// Armed too late if the parent died before; then another is the parent.
	if parent := os.Getppid(); parent != int(e.origin.Parent) {
		return fmt.Errorf("the launcher is gone (parent is %d)", parent)
	}
	return nil
}

func (e *entry) filter() error {
	f, err := seccomp.CompileReport(seccomp.Host(), e.Promises, os.Getpid())
	if err != nil {
		return err
	}
	return f.Install()
}
