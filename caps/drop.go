package caps

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
)

// Field is one of the things that the kernel keeps for a thread.
type Field string

// The fields, the worst to be left with first.
const (
	Permitted   Field = "permitted set"
	Effective   Field = "effective set"
	Inheritable Field = "inheritable set"
	Ambient     Field = "ambient set"
	Securebits  Field = "securebits" // without them uid 0 regains its bounding set when it executes a file
	Bounding    Field = "bounding set"
)

// RemainsError says which field is not as was asked, after all that could be
// done was done. It names the worst: a Field of [Securebits] means that all
// sets but perhaps the bounding one are right, one of [Bounding] that all else
// is. With no_new_privs set, neither of these two can give a capability.
type RemainsError struct {
	Field  Field
	Thread int // its number, as in /proc/self/task
	Left   Set // what should not be there; empty for Securebits
}

func (e *RemainsError) Error() string {
	if e.Field == Securebits {
		return fmt.Sprintf("caps: securebits of thread %d are not locked", e.Thread)
	}
	return fmt.Sprintf("caps: %s of thread %d still has %v", e.Field, e.Thread, e.Left)
}

// MissingError names capabilities that are needed and are not permitted.
type MissingError struct{ Missing Set }

func (e *MissingError) Error() string { return fmt.Sprintf("caps: %v is not permitted", e.Missing) }

// Drop gives up every capability on every thread, for good: the effective,
// permitted, inheritable, ambient and bounding sets become empty, and the
// securebits are locked so that uid 0 regains nothing by executing a file or
// changing user. Then it reads every thread back from the kernel.
//
// Emptying the bounding set and locking the securebits need CAP_SETPCAP. A
// process without it that was started with both as they should be succeeds;
// otherwise the rest is dropped and the error is a [*RemainsError]. Other
// errors are the kernel's, and mean that nothing is certain.
//
// It needs /proc, so it comes before a chroot. It must not run at the same time
// as [With] or as a change of another thread's credentials.
func Drop() error { return confine(Set{}, true) }

// Limit gives up, on every thread and for good, all capabilities but those of
// permitted: these stay permitted, so that [With] can raise them, and the
// effective, inheritable and ambient sets become empty. The bounding set loses
// the others too, if the process has CAP_SETPCAP. Securebits stay as they are.
//
// The error is a [*MissingError], with nothing changed, if some of permitted
// are not to be had; else as for [Drop], whose restrictions apply.
func Limit(permitted Set) error { return confine(permitted, false) }

func confine(keep Set, lock bool) error {
	_, p, _, err := sys.Capget()
	if missing := keep.Minus(Set{p}); err == nil && !missing.Empty() {
		return &MissingError{missing}
	}
	before, err2 := threads() // also because libpsx kills a process without /proc
	bits, err3 := sys.Securebits()
	if err := errors.Join(err, err2, err3); err != nil {
		return fmt.Errorf("caps: nothing changed: %w", err)
	}
	var excess Set
	for _, t := range before {
		excess = excess.Union(t.sets[Bounding].Minus(keep))
	}
	want := bits
	if lock {
		want = bits&^sys.SecurebitsKeepCaps | sys.SecurebitsLocked
	}

	// Each of these calls stops the world, so none is made without need. What
	// the kernel refuses shows when the threads are read back.
	if (Set{p}).Has(SetPCap) && (lock || !excess.Empty()) {
		// Nothing inheritable: a thread whose bounding set is smaller than
		// another's could not have the same, and threads that answer
		// differently are the end of the process.
		_ = sys.CapsetAll(Of(SetPCap).bits, p, 0)
		for c := range excess.All() {
			_ = sys.BoundingDropAll(c.Number())
		}
		if lock {
			_ = sys.SetSecurebitsAll(want)
		}
	}
	// This empties the ambient set as well: it is always within the inheritable.
	if err := sys.CapsetAll(0, keep.bits, 0); err != nil {
		return fmt.Errorf("caps: capset: %w", err)
	}
	if lock && bits == want {
		bits, err = sys.SecurebitsAll() // this thread had them already: so must the others
	} else {
		bits, err = sys.Securebits()
	}
	after, err2 := threads()
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("caps: not read back: %w", err)
	}
	return remains(after, keep, bits == want)
}

func remains(all []thread, keep Set, locked bool) error {
	for _, field := range []Field{Permitted, Effective, Inheritable, Ambient, Securebits, Bounding} {
		if field == Securebits && !locked {
			return &RemainsError{Field: Securebits, Thread: sys.Gettid()}
		}
		var allowed Set
		if field == Permitted || field == Bounding {
			allowed = keep
		}
		for _, t := range all {
			if left := t.sets[field].Minus(allowed); !left.Empty() {
				return &RemainsError{field, t.id, left}
			}
		}
	}
	return nil
}

type thread struct {
	id   int
	sets map[Field]Set
}

// threads reads the sets of all threads. One that starts meanwhile has those
// of the thread that made it (clone(2)).
func threads() ([]thread, error) {
	const dir = "/proc/self/task/"
	entries, err := os.ReadDir(dir)
	var all []thread
	for _, entry := range entries {
		status, err := os.ReadFile(dir + entry.Name() + "/status")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended
		}
		if err != nil {
			return nil, err
		}
		t := thread{sets: map[Field]Set{}}
		t.id, _ = strconv.Atoi(entry.Name()) // only ever a number
		for line := range strings.Lines(string(status)) {
			key, value, _ := strings.Cut(line, ":")
			set, err := ParseHex(strings.TrimSpace(value))
			if field, ok := statusKeys[key]; ok && err == nil {
				t.sets[field] = set
			}
		}
		if len(t.sets) != len(statusKeys) {
			return nil, fmt.Errorf("caps: status of thread %d lacks a set: %w", t.id, errors.ErrUnsupported)
		}
		all = append(all, t)
	}
	return all, err
}

var statusKeys = map[string]Field{
	"CapPrm": Permitted, "CapEff": Effective, "CapInh": Inheritable, "CapAmb": Ambient, "CapBnd": Bounding,
}
