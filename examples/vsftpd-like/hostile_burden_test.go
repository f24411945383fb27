//go:build linux

package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childRoles are the workers of this process's launchers.
func childRoles() map[int]string {
	all := make(map[int]string)
	for _, launcher := range childrenOf(os.Getpid()) {
		for _, w := range childrenOf(launcher.pid) {
			all[w.pid] = w.role
		}
	}
	return all
}

// ownNumber is a process's number in its PID namespace, by which its siblings
// know it.
func ownNumber(pid int) (number int) {
	numbers := strings.Fields(statusOf(fmt.Sprint("/proc/", pid))["NSpid"])
	if len(numbers) > 0 {
		number, _ = strconv.Atoi(numbers[len(numbers)-1])
	}
	return number
}

// A burden is what sessions cost the monitor.
type burden struct {
	files, goroutines, children int
	heap                        uint64
}

func burdenNow() burden {
	runtime.GC()
	runtime.GC() // pools let go of what was put back at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	open, _ := os.ReadDir("/proc/self/fd")
	return burden{len(open), runtime.NumGoroutine(), len(childRoles()), m.HeapAlloc}
}

// bears runs tests beside an honest client and then compares the burden with
// what it was. The heap may have grown by a mebibyte: the runtime's, for
// goroutines that are gone, and the pools'.
func (a *arena) bears(t *testing.T, tests func(*testing.T)) {
	t.Helper()
	stop := a.goOn(t)
	for range 3 { // what the first sessions leave behind for all others
		a.try(t, trial{session: "log in and leave"})
	}
	before := burdenNow()
	t.Run("attacks", tests)
	stop()
	stop = a.goOn(t)
	defer stop()
	var after burden
	for range 50 {
		after = burdenNow()
		if after.files <= before.files && after.goroutines <= before.goroutines && after.children <= before.children {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("monitor before and after: %+v %+v", before, after)
	if after.files > before.files || after.goroutines > before.goroutines || after.children > before.children ||
		after.heap > before.heap+1<<20 {
		t.Errorf("the monitor's burden was %+v and is %+v", before, after)
	}
}
