package sys

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// DenyWriteExecute sets PR_SET_MDWE (Linux 6.3): no mapping of the process
// becomes executable that is or was writable.
func DenyWriteExecute() error {
	return unix.Prctl(unix.PR_SET_MDWE, unix.PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
}

// NotDumpable sets PR_SET_DUMPABLE 0: no core file, and no process without
// CAP_SYS_PTRACE may attach to this one or open its /proc files.
func NotDumpable() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// DieWithParent arms SIGKILL for the end of the thread that started this
// process. The signal is armed on the calling thread, which must not end, and
// is disarmed by every later change of credentials (prctl(2)).
func DieWithParent() error {
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// SetFSUser makes the calling thread reach files as uid and gid, or fails.
func SetFSUser(uid, gid int) error {
	// setfsuid(2) has no error: the second call reads back what the first did.
	_ = unix.Setfsgid(gid)
	_ = unix.Setfsuid(uid)
	if got, _ := unix.SetfsgidRetGid(-1); got != gid {
		return os.NewSyscallError("setfsgid", unix.EPERM)
	}
	if got, _ := unix.SetfsuidRetUid(-1); got != uid {
		return os.NewSyscallError("setfsuid", unix.EPERM)
	}
	return nil
}

// EraseEnvironment takes the environment out of this process: what the runtime
// holds, and what the kernel put on the stack, which /proc/PID/environ shows.
func EraseEnvironment() error {
	os.Clearenv()
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	const start, end = 47, 48 // proc_pid_stat(5), fields 50 and 51; the name before the third may be anything
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= end {
		return errors.ErrUnsupported
	}
	from, err1 := strconv.ParseInt(string(fields[start]), 10, 64)
	to, err2 := strconv.ParseInt(string(fields[end]), 10, 64)
	memory, err3 := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	defer memory.Close()
	_, err = memory.WriteAt(make([]byte, to-from), from)
	return err
}

// Limit is one resource limit of this process, soft and hard.
func Limit(resource int, n uint64) error {
	return unix.Prlimit(0, resource, &unix.Rlimit{Cur: n, Max: n}, nil)
}

// The resources of Limit.
const (
	LimitCore     = unix.RLIMIT_CORE
	LimitData     = unix.RLIMIT_DATA
	LimitFileSize = unix.RLIMIT_FSIZE
	LimitFiles    = unix.RLIMIT_NOFILE
	LimitLocked   = unix.RLIMIT_MEMLOCK
	LimitQueues   = unix.RLIMIT_MSGQUEUE
)

// The clone flags of a process in namespaces of its own.
const (
	// NewNamespaces are empty ones for networks, System V IPC and host names,
	// and one for processes, of which it is the init.
	NewNamespaces = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID
	// NewMounts is a copy of the mounts that are seen now.
	NewMounts = unix.CLONE_NEWNS
	// NewUsers is one in which it has every capability.
	NewUsers = unix.CLONE_NEWUSER
)

// MountProc covers /proc with that of the process's own PID namespace, in its own
// mount namespace. What is mounted and unmounted elsewhere is still seen.
func MountProc() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return err
	}
	return unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// OpenDirectory opens a directory only as a place (O_PATH), close-on-exec.
func OpenDirectory(path string) (int, error) {
	return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// OpenRegular opens a regular file for reading, close-on-exec, and nothing else:
// to open a device or a FIFO may already do something. What is looked at as a
// place (O_PATH) is what is opened, whatever the name means by then.
func OpenRegular(path string) (int, error) {
	place, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer Close(place)
	var stat unix.Stat_t
	if err := unix.Fstat(place, &stat); err != nil {
		return -1, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, errNotRegular
	}
	return unix.Open("/proc/self/fd/"+strconv.Itoa(place), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

var errNotRegular = errors.New("not a regular file")

// WaitExited returns how the child behind a pidfd ended, and reaps it. ok is
// false while it runs.
func WaitExited(pidfd uintptr) (status syscall.WaitStatus, ok bool, err error) {
	return waitExited(pidfd, 0)
}

// Exited is WaitExited, and leaves the child to be reaped.
func Exited(pidfd uintptr) (status syscall.WaitStatus, ok bool, err error) {
	return waitExited(pidfd, unix.WNOWAIT)
}

func waitExited(pidfd uintptr, more int) (status syscall.WaitStatus, ok bool, err error) {
	var info unix.Siginfo
	for {
		err = unix.Waitid(unix.P_PIDFD, int(pidfd), &info, unix.WEXITED|unix.WNOHANG|more, nil)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil || info.Signo == 0 {
		return 0, false, err
	}
	return childStatus(&info), true, nil
}

// SetNonblock makes Go's poller accept the descriptor, a pidfd among them.
func SetNonblock(fd int) error { return unix.SetNonblock(fd, true) }

// IsProcess reports whether a descriptor is a pidfd.
func IsProcess(fd uintptr) error {
	// A child is not waited for, and anybody else's process is ECHILD.
	err := unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == unix.ECHILD {
		return nil
	}
	return err
}

// HasEnded reports whether the process behind a pidfd has (pidfd_open(2)).
func HasEnded(pidfd uintptr) bool {
	poll := [1]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Ppoll(poll[:], &unix.Timespec{}, nil)
	return err == nil && n == 1
}

// Kill sends SIGKILL to the process behind a pidfd: never to another one that
// was given its number meanwhile.
func Kill(pidfd uintptr) error {
	return unix.PidfdSendSignal(int(pidfd), unix.SIGKILL, nil, 0)
}

// PipeSize sets the size in bytes of a pipe's buffer.
func PipeSize(fd uintptr, size int) error {
	_, err := unix.FcntlInt(fd, unix.F_SETPIPE_SZ, size)
	return err
}

// CloseOnExecFrom marks every open descriptor from first on close-on-exec
// (CLOSE_RANGE_CLOEXEC, Linux 5.11).
func CloseOnExecFrom(first uint) error {
	return unix.CloseRange(first, 1<<31, unix.CLOSE_RANGE_CLOEXEC)
}
