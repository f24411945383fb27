package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/seccomp"
)

// forbidden are calls that no worker without promises may make.
var forbidden = []string{
	"execve", "execveat", "socket", "connect", "bind", "listen", "ptrace", "mount", "umount2", "chroot", "pivot_root",
	"setuid", "setresuid", "kill", "bpf", "io_uring_setup", "keyctl", "add_key", "perf_event_open", "userfaultfd",
	"unshare", "setns", "init_module", "finit_module", "reboot", "ioctl", "memfd_create", "process_vm_readv", "open_by_handle_at", "seccomp",
}

// callForbidden makes the call of that name, as code would that found no wrapper.
func callForbidden(name string) error {
	nr, ok := seccomp.Number(seccomp.Host(), name)
	if !ok {
		return fmt.Errorf("no call %s", name)
	}
	_, _, errno := syscall.RawSyscall6(uintptr(nr), 0, 0, 0, 0, 0, 0)
	return errno
}

func number(name string) uintptr {
	nr, _ := seccomp.Number(seccomp.Host(), name)
	return uintptr(nr)
}

func TestFilteredNamesTheCall(t *testing.T) {
	noLeaks(t)
	script := make(chan string, 1)
	p, ph := newHouse(func(*porch) privsep.Launch { return launch("call " + <-script) })
	m := newMonitor(t, p)
	for _, name := range forbidden {
		script <- name
		var exit *privsep.ExitError
		err := privsep.Serve(t.Context(), m, ph, new(porch))
		want := fmt.Sprintf("privsep: worker script (pid %%d) filtered: it called %s", name)
		if !errors.As(err, &exit) || exit.Class != privsep.Filtered || exit.Syscall != name || err.Error() != fmt.Sprintf(want, exit.PID) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What a worker that was taken over does about its death, or about what is said
// of it, changes the name at most.
func TestFilteredCannotBeAvoided(t *testing.T) {
	for script, want := range map[string]string{
		"catch SIGSYS":              "", // killed where it tries
		"return":                    "", // the same, with a handler that returns
		"return with a long number": "", // of which the kernel sees the low half
		"catch SIGSEGV":             "", // which comes where the handler of SIGSYS finds no stack
		"move code":                 "", // the same: it could be put where the handler is
		"move code to a gap":        "",
		"block SIGSYS":              "",
		"fill stderr":               "",
		"close stderr":              "",
		"forge a name":              "reboot", // the mark is the last it says, but its own filter kills without a word
		"other numbers":             "",
	} {
		if strings.HasPrefix(script, "forge") || script == "other numbers" {
			if runtime.GOARCH != "amd64" {
				continue
			}
		}
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			var exit *privsep.ExitError
			start := time.Now()
			err := session(t, script)
			if !errors.As(err, &exit) || exit.Class != privsep.Filtered || exit.Syscall != want && script != "fill stderr" {
				t.Errorf("got %v", err)
			}
			if d := time.Since(start); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// A mark without the kernel's word is what any worker can write.
func TestForgedMarkWithoutDeath(t *testing.T) {
	noLeaks(t)
	var exit *privsep.ExitError
	err := session(t, "mark and fail")
	if !errors.As(err, &exit) || exit.Class != privsep.Failed || exit.Syscall != "" {
		t.Errorf("got %v", err)
	}
}

//go:noinline
func returns() {}

// returnFrom gives a signal a handler that returns, and makes a forbidden call.
func returnFrom(signal uintptr) error {
	// As the runtime's for another signal, but for the function.
	var action [4]uint64
	_, _, _ = syscall.RawSyscall6(number("rt_sigaction"), uintptr(syscall.SIGURG), 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
	action[0] = uint64(reflect.ValueOf(returns).Pointer())
	_, _, errno := syscall.RawSyscall6(number("rt_sigaction"), signal, uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno == 0 && signal != uintptr(syscall.SIGSEGV) {
		_ = callForbidden("socket")
	}
	return errors.Join(errno, errors.New("it lives on"))
}

const rebootMark = "\x00SIGSYS\x00\xa9\x00\x00\x00" // of amd64

var filteredScripts = map[string]func(ctx context.Context, w *privsep.Worker) error{
	"catch SIGSYS": func(context.Context, *privsep.Worker) error {
		var ignore [4]uint64
		ignore[0] = 1 // SIG_IGN
		_, _, errno := syscall.RawSyscall6(number("rt_sigaction"), uintptr(syscall.SIGSYS), uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0)
		return errors.Join(errno, callForbidden("socket"))
	},
	"return": func(context.Context, *privsep.Worker) error { return returnFrom(uintptr(syscall.SIGSYS)) },
	"return with a long number": func(context.Context, *privsep.Worker) error {
		return returnFrom(1<<32 | uintptr(syscall.SIGSYS))
	},
	"catch SIGSEGV": func(context.Context, *privsep.Worker) error { return returnFrom(uintptr(syscall.SIGSEGV)) },
	"move code to a gap": func(context.Context, *privsep.Worker) error {
		const pages, mayMoveDontUnmap = 2 * 4096, 1 | 4
		at, _, errno := syscall.RawSyscall6(number("mmap"), 0, pages, 0, syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall6(number("munmap"), at+4096, 4096, 0, 0, 0, 0)
		}
		if errno == 0 {
			_, _, errno = syscall.RawSyscall6(number("mremap"), at, 4096, 4096, mayMoveDontUnmap, at+4096, 0)
		}
		return errors.Join(errno, errors.New("it lives on"))
	},
	"move code": func(context.Context, *privsep.Worker) error {
		const pages, mayMoveFixed = 2 * 4096, 1 | 2
		at, _, errno := syscall.RawSyscall6(number("mmap"), 0, pages, 0, syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0)
		if errno == 0 {
			_, _, errno = syscall.RawSyscall6(number("mremap"), at, 4096, 4096, mayMoveFixed, at+4096, 0)
		}
		return errors.Join(errno, errors.New("it lives on"))
	},
	"block SIGSYS": func(context.Context, *privsep.Worker) error {
		runtime.LockOSThread()
		all := ^uint64(0)
		_, _, _ = syscall.RawSyscall6(number("rt_sigprocmask"), 0, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
		return callForbidden("socket")
	},
	"fill stderr": func(context.Context, *privsep.Worker) error {
		for range 1 << 16 { // it does not wait
			if _, err := syscall.Write(2, make([]byte, 100)); err != nil {
				break
			}
		}
		_ = syscall.SetNonblock(2, false)
		return callForbidden("socket")
	},
	"close stderr": func(context.Context, *privsep.Worker) error {
		syscall.Close(2)
		return callForbidden("socket")
	},
	"forge a name": func(context.Context, *privsep.Worker) error {
		fmt.Fprint(os.Stderr, rebootMark)
		_, _, errno := syscall.RawSyscall(0x4000_0000, 0, 0, 0)
		return errno
	},
	"other numbers": func(context.Context, *privsep.Worker) error {
		_, _, errno := syscall.RawSyscall(0x4000_0029, 2, 1, 0) // socket, by x32
		return errno
	},
	"mark and fail": func(context.Context, *privsep.Worker) error {
		fmt.Fprint(os.Stderr, rebootMark)
		os.Exit(1)
		return nil
	},
}
