package privsep_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
)

// userOf is a process's real user, as the kernel tells it.
func userOf(t *testing.T, pid string) (uid, gid string) {
	t.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); f[0] == "Uid:" {
			uid = f[1]
		} else if f[0] == "Gid:" {
			gid = f[1]
		}
	}
	return uid, gid
}

func TestWorkerIDs(t *testing.T) {
	testenv.NeedRoot(t)
	noLeaks(t)
	i := newInn(t, privsep.IDs{First: 90000, Last: 90002})
	var guests []*lodger
	seen := make(map[string]bool)
	for range 3 {
		g, pid := i.checkIn("", 1)
		uid, gid := userOf(t, pid)
		if uid < "90000" || "90002" < uid || uid != gid || seen[uid] {
			t.Errorf("user %s group %s, want one number of the range that no other has", uid, gid)
		}
		seen[uid] = true
		guests = append(guests, g)
	}
	// None is left: an error for that launch, and for nobody else.
	var none *privsep.IDsError
	one := func() privsep.Launch { return shared("", 1) }
	if err := i.end(i.serve(one)); !errors.As(err, &none) || !strings.Contains(err.Error(), "all are in use") {
		t.Errorf("got %v, want an IDsError", err)
	}
	i.well(guests[0])
	again := i.serve(one) // the other has been reaped, as Serve has returned
	i.asks(again)
	for _, g := range []*lodger{guests[1], guests[2], again} {
		i.well(g)
	}
	// One that was just given up is not the next.
	for range 20 {
		g, pid := i.checkIn("", 1)
		first, _ := userOf(t, pid)
		i.well(g)
		g, pid = i.checkIn("", 1)
		if second, _ := userOf(t, pid); second == first {
			t.Errorf("user %s twice in a row", first)
		}
		i.well(g)
	}
}

// A range is for those who name no user, and for nobody else.
func TestWorkerIDsAreNobodyElses(t *testing.T) {
	testenv.NeedRoot(t)
	noLeaks(t)
	i := newInn(t, privsep.IDs{First: 90000, Last: 90009})
	for name, change := range map[string]func(*privsep.Sandbox){
		"user":  func(s *privsep.Sandbox) { s.UID = 90009 },
		"group": func(s *privsep.Sandbox) { s.GID = 90000 },
		"one of the groups": func(s *privsep.Sandbox) {
			s.UID, s.Groups = 5000, []uint32{5, 90005}
		},
		"files left behind": func(s *privsep.Sandbox) {
			s.Root, s.Write = t.TempDir(), []string{"/"}
		},
	} {
		var refused *privsep.IDsError
		err := i.end(i.serve(func() privsep.Launch {
			l := shared("", 1)
			change(&l.Sandbox)
			return l
		}))
		if !errors.As(err, &refused) {
			t.Errorf("%s: got %v, want an IDsError", name, err)
		}
	}
	g := i.serve(func() privsep.Launch {
		l := shared("", 1)
		l.Sandbox.UID, l.Sandbox.GID = 5000, 5001
		return l
	})
	if uid, gid := userOf(t, i.asks(g)); uid != "5000" || gid != "5001" {
		t.Errorf("user %s group %s, want those of the sandbox", uid, gid)
	}
	i.well(g)
}

func TestImpossibleWorkerIDs(t *testing.T) {
	for _, r := range []privsep.IDs{{0, 5}, {5, 4}, {60000, 65534}, {65535, 70000}, {1 << 31, 1<<32 - 1}} {
		p, _ := newHouse(launchPorch)
		if m, err := privsep.NewMonitor(p, privsep.Config{WorkerIDs: r}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(r)) {
			t.Errorf("%v: got %v", r, err)
			m.Close()
		}
	}
}
