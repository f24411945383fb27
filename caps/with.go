package caps

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/go-privsep/sallyport/internal/sys"
)

// With runs f with just these capabilities effective, and none after it,
// however f ends: by returning, by a panic, or by runtime.Goexit. It returns
// what f returned. The calling goroutine keeps its thread meanwhile, and only
// that thread has the capabilities: goroutines that f starts do not. Any number
// of goroutines may call With at once.
//
// The process must have called [Limit] before: an effective set that is not
// empty is a [*RemainsError], and f does not run. So With does not nest. A
// capability that is not permitted is a [*MissingError], and f does not run.
//
// If the capabilities cannot be lowered again, which takes a filter on capset
// or the like, the error is (or wraps, beside f's) a [*RemainsError] of Field
// [Effective], and the goroutine stays locked to its thread. It must end: the
// runtime then destroys the thread, or parks it for ever if it is the main one.
// The process had better end as well.
//
// f must not call runtime.UnlockOSThread more often than LockOSThread, nor
// start processes, nor let C code start threads: both inherit. Nor may it call
// syscall.Setuid and its like: they change all threads, the kernel allows it to
// this one only, and the process dies.
func With(set Set, f func() error) error { return with(set, f, sys.Capset) }

// with takes capset as an argument for the sake of a test of its failure.
func with(set Set, f func() error, capset func(effective, permitted, inheritable uint64) error) (err error) {
	// The first lock of a thread starts the runtime's template thread, from
	// which it makes threads from then on while a locked one asks for them;
	// were they cloned from this one they would have its capabilities.
	runtime.LockOSThread()
	e, p, i, err := sys.Capget()
	if missing := set.Minus(Set{p}); err == nil && e != 0 {
		err = &RemainsError{Effective, sys.Gettid(), Set{e}}
	} else if err == nil && !missing.Empty() {
		err = &MissingError{missing}
	} else if err == nil {
		err = capset(set.bits, p, i)
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("caps: raise %v: %w", set, err)
	}
	defer func() {
		_, p, i, _ := sys.Capget() // anew: f may have dropped some
		capsetErr := capset(0, p, i)
		if e, _, _, readErr := sys.Capget(); e != 0 || readErr != nil {
			err = errors.Join(err, &RemainsError{Effective, sys.Gettid(), Set{e}}, capsetErr, readErr)
			return // locked: no other goroutine may ever run here
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
