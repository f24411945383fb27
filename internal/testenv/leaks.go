package testenv

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// patience is how long what a test has ended may take to be gone.
const patience = 5 * time.Second

// A Usage is what this process has that could be left behind.
type Usage struct {
	Files      []string // descriptors and what they are
	Children   []string // processes, zombies too
	Goroutines int
}

// UsageNow is what it has now.
func UsageNow(t testing.TB) (u Usage) {
	t.Helper()
	if r, w, err := os.Pipe(); err == nil { // the runtime's poller has come when they have
		r.Close()
		w.Close()
	}
	u.Files, u.Children, u.Goroutines = files(t), children(t), runtime.NumGoroutine()
	return u
}

// Settled waits until the process has nothing that it had not before, and fails
// t if that does not come.
func (before Usage) Settled(t testing.TB) {
	t.Helper()
	before.settled(t, patience, func(now Usage) bool { return true })
}

// NoLeaks fails t if a goroutine, a descriptor or a process outlives it, or if a
// descriptor that was there before does not. It comes first in a test, so that
// its cleanup comes last.
func NoLeaks(t testing.TB) {
	t.Helper()
	noLeaks(t, patience)
}

func noLeaks(t testing.TB, limit time.Duration) {
	t.Helper()
	before := UsageNow(t)
	t.Cleanup(func() {
		if !t.Failed() { // which may be why something is left
			before.settled(t, limit, func(now Usage) bool { return slices.Equal(now.Files, before.Files) })
		}
	})
}

func (before Usage) settled(t testing.TB, limit time.Duration, also func(now Usage) bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		now := UsageNow(t)
		files, children := beyond(now.Files, before.Files), beyond(now.Children, before.Children)
		if len(files)+len(children) == 0 && now.Goroutines <= before.Goroutines && also(now) {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			stacks = stacks[:runtime.Stack(stacks, true)]
			t.Errorf("left behind: descriptors %q of %q, before %q; children %q; %d goroutines, before %d\n%s",
				files, now.Files, before.Files, children, now.Goroutines, before.Goroutines, stacks)
			return
		}
	}
}

// beyond are those of all that known has not.
func beyond(all, known []string) (more []string) {
	for _, s := range all {
		if !slices.Contains(known, s) {
			more = append(more, s)
		}
	}
	return more
}

func files(t testing.TB) (all []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil {
			all = append(all, e.Name()+" "+name)
		}
	}
	slices.Sort(all)
	return all
}

// children lists the processes that this one has started, zombies too.
func children(t testing.TB) (all []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, _ := os.ReadFile("/proc/self/task/" + e.Name() + "/children")
		all = append(all, strings.Fields(string(text))...)
	}
	return all
}
