//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/privsep"
)

// The tests of the files hostile*_test.go are about a worker that an attacker
// has taken over. Everything is the server's own: monitor, policy, launches and
// sandboxes. Only what runs behind the sandbox is the attacker's, which is told
// by what an honest worker would take for its configuration.
//
// How an attack ends is seen from outside: by what the monitor's session
// returned, by what is on disk, and by another client's session that goes on
// meanwhile. The attacker's own word counts where it says that it failed.

// An attack is what the attacker does. It returns what came of it, if it lives
// to tell.
type attack func(*attacker) string

// An attacker is the code in control of a worker.
type attacker struct {
	worker *privsep.Worker // nil in a control, which no sandbox confines
	files  []*os.File      // what the worker was handed
	arg    int             // of the order: which variant of the attack
	// monitor and sibling are processes to attack. The sibling is another
	// session's worker of the same role, so of the same user.
	monitor, sibling int
	seen             int // the sibling in a /proc of the host's

	channel int    // to whoever is attacked with packets, raw
	last    uint32 // number of the last call there
}

// attacks are all that can be ordered, by name.
func attacks() map[string]attack {
	all := make(map[string]attack)
	for _, list := range []map[string]attack{callAttacks(), wireAttacks(), replyAttacks(), layerAttacks(), siblingAttacks(), sharedAttacks()} {
		for name, do := range list {
			if all[name] != nil {
				panic("two attacks are called " + name)
			}
			all[name] = do
		}
	}
	return all
}

// An order tells a worker that it has been taken over.
type order struct {
	name    string
	arg     int
	sibling int
	seen    int
}

// orderMark begins an order. A session worker gets it as the banner that it
// shall greet with, a files worker finds it in its root.
const (
	orderMark = "\x00taken over\x00"
	orderFile = ".order"
)

func (o order) String() string {
	return fmt.Sprintf("%s%d %d %d %s", orderMark, o.arg, o.sibling, o.seen, o.name)
}

func parseOrder(s string) (o order, ok bool) {
	s, ok = strings.CutPrefix(s, orderMark)
	words := strings.SplitN(s, " ", 4)
	if !ok || len(words) != 4 {
		return o, false
	}
	o.arg, _ = strconv.Atoi(words[0])
	o.sibling, _ = strconv.Atoi(words[1])
	o.seen, _ = strconv.Atoi(words[2])
	o.name = words[3]
	return o, true
}

func sessionOrder(w *privsep.Worker) string {
	var config SessionConfig
	_ = w.Message(&config)
	return config.Banner
}

func filesOrder(*privsep.Worker) string {
	text, _ := os.ReadFile(orderFile) // its root is also where it stands
	return string(text)
}

// takeOver puts the attacker where a role's code was, in workers with an order.
func takeOver(role *privsep.Role, find func(*privsep.Worker) string) {
	honest := role.Main
	role.Main = func(ctx context.Context, w *privsep.Worker) error {
		o, ok := parseOrder(find(w))
		if !ok {
			return honest(ctx, w)
		}
		do := attacks()[o.name]
		if do == nil {
			return errors.New("no attack is called " + o.name)
		}
		a := &attacker{worker: w, files: w.Files(), arg: o.arg, monitor: os.Getppid(), sibling: o.sibling, seen: o.seen}
		return errors.New(resultMark + do(a) + ".")
	}
}

// An attacker says on standard error that it has come to the decisive call,
// and what came of it: a worker that dies before has proved nothing.
const (
	reachedMark = "reached\n"
	resultMark  = "result: "
)

// call is the decisive system call. It returns "ok" or the error's name.
func (a *attacker) call(nr uintptr, args ...uintptr) string {
	fmt.Fprint(os.Stderr, reachedMark)
	_, errno := raw(nr, args...)
	return errnoName(errno)
}

// raw makes a system call past everything that the runtime would do about it.
func raw(nr uintptr, args ...uintptr) (uintptr, syscall.Errno) {
	var v [6]uintptr
	copy(v[:], args)
	r, _, errno := unix.RawSyscall6(nr, v[0], v[1], v[2], v[3], v[4], v[5])
	return r, errno
}

func errnoName(errno syscall.Errno) string {
	if errno == 0 {
		return "ok"
	}
	if name := unix.ErrnoName(errno); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", int(errno))
}

// hold does nothing until the worker is killed, or for longer than any
// deadline of these tests.
func (a *attacker) hold() string {
	time.Sleep(40 * time.Second)
	return "nobody minded"
}

// An end is how a session's Serve ended, as these tests tell ends apart.
type end struct {
	role   string // "" for a violation found by the monitor
	result string
}

const (
	killed   = "killed" // SIGSYS: the filter
	timedOut = "timed out"
	crashed  = "crashed"
	// Some hosts' virtual machines know no int 0x80, whatever their kernel was
	// built with: nobody enters the kernel by it, and no filter is asked.
	noInterrupt = "no gate 0x80"
	gone        = "gone" // it left without a word and without trouble
)

// unattended is for a case that no control may try: a second return from one
// stack frame, a number that is another call outside of the sandbox, or a
// thread that its parent must wait for.
const unattended = "unattended"

// endOf classifies what Serve returned.
func endOf(err error) end {
	var exit *privsep.ExitError
	var violation *privsep.ViolationError
	switch {
	case err == nil:
		return end{"", gone}
	case errors.As(err, &violation):
		return end{"", fmt.Sprintf("violation %s %s: %s", violation.Phase, violation.Op, violation.Reason)}
	case !errors.As(err, &exit):
		return end{"", "error " + err.Error()}
	}
	text, _ := strconv.Unquote(exit.Output)
	switch exit.Class {
	case privsep.TimedOut:
		return end{exit.Role, timedOut}
	case privsep.Crashed:
		return end{exit.Role, crashed}
	case privsep.Filtered:
		if !strings.HasSuffix(text, reachedMark) {
			return end{exit.Role, "killed before the decisive call: " + text}
		}
		return end{exit.Role, killed}
	}
	if _, result, ok := strings.Cut(text, resultMark); ok {
		return end{exit.Role, strings.TrimSuffix(strings.TrimSpace(result), ".")}
	}
	return end{exit.Role, exit.Class.String() + ": " + strings.TrimSpace(text)}
}
