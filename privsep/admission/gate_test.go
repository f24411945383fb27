package admission

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

var (
	someone   = netip.MustParseAddr("192.0.2.1")
	somebody  = netip.MustParseAddr("192.0.2.2")
	violation = &privsep.ViolationError{Reason: "test"}
)

// admitted fails the test unless peer is let in.
func admitted(t *testing.T, g *Gate, peer netip.Addr) *Slot {
	t.Helper()
	s, err := g.Admit(peer)
	if err != nil {
		t.Fatalf("%v: %v", peer, err)
	}
	return s
}

// refused fails the test unless peer is refused for this reason.
func refused(t *testing.T, g *Gate, peer netip.Addr, want Reason) *RefusedError {
	t.Helper()
	s, err := g.Admit(peer)
	var e *RefusedError
	if !errors.As(err, &e) || e.Reason != want || s != nil {
		t.Fatalf("%v: got %v, want refused: %v", peer, err, want)
	}
	return e
}

func exit(class privsep.ExitClass) error { return &privsep.ExitError{Role: "session", Class: class} }

// What a session's end costs its source, and nobody else.
func TestOffences(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   error
		login bool // it logged in first
		want  Offence
		cost  time.Duration // refused until then; 0: at no time
	}{
		{"violation", violation, false, Violated, 10 * time.Minute},
		{"violation after the login", violation, true, Violated, 10 * time.Minute},
		{"violation and another end", errors.Join(exit(privsep.Crashed), violation), false, Violated, 10 * time.Minute},
		{"crash", exit(privsep.Crashed), false, Crashed, 90 * time.Second},
		{"panic of a handler", &privsep.PanicError{}, true, Crashed, 90 * time.Second},
		{"filter mistake", exit(privsep.Filtered), false, Suspect, 0},
		{"deadline", exit(privsep.TimedOut), false, Late, 0},
		{"deadline of a later phase", exit(privsep.TimedOut), true, NoOffence, 0},
		{"gone without a login", nil, false, Silent, 0},
		{"worker failed", exit(privsep.Failed), true, NoOffence, 0},
		{"another's violation in the same worker", &privsep.SharedError{Cause: violation}, false, NoOffence, 0},
		{"good end", nil, true, NoOffence, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewGate(Limits{}, Penalties{})
				s := admitted(t, g, someone)
				if c.login {
					s.LoggedIn()
				}
				if got := s.Close(c.end); got != c.want {
					t.Errorf("got offence %v, want %v", got, c.want)
				}
				if got := s.Close(violation); got != NoOffence {
					t.Errorf("closed twice: got offence %v, want none", got)
				}
				if c.cost > 0 {
					if e := refused(t, g, someone, Penalized); !e.Until.Equal(time.Now().Add(c.cost)) {
						t.Errorf("refused until %v, want %v from %v", e.Until, c.cost, time.Now())
					}
					time.Sleep(c.cost - time.Millisecond)
					refused(t, g, someone, Penalized)
					time.Sleep(time.Millisecond)
				}
				admitted(t, g, someone).Close(exit(privsep.Failed))
				admitted(t, g, somebody)
			})
		})
	}
}

// What each costs less than the threshold adds up, and decays.
func TestPenaltiesAddUpAndDecay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{}, Penalties{})
		admitted(t, g, someone).Close(exit(privsep.TimedOut))
		admitted(t, g, someone).Close(exit(privsep.TimedOut)) // 20 s
		refused(t, g, someone, Penalized)
		time.Sleep(19 * time.Second)
		refused(t, g, someone, Penalized) // below the threshold again, and still refused
		time.Sleep(time.Second)
		admitted(t, g, someone).Close(exit(privsep.TimedOut))
		time.Sleep(9 * time.Second)
		admitted(t, g, someone).Close(exit(privsep.TimedOut)) // 1 s was left
		admitted(t, g, someone)
	})
}

func TestNoPenaltyIsLongerThanMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{Begin: 1000, Full: 1000}, Penalties{})
		var slots []*Slot
		for range 100 {
			slots = append(slots, admitted(t, g, someone))
		}
		for _, s := range slots {
			s.Close(violation)
		}
		time.Sleep(10*time.Minute - time.Millisecond)
		refused(t, g, someone, Penalized)
		time.Sleep(time.Millisecond)
		admitted(t, g, someone)
	})
}

func TestNegativePenaltiesCostNothing(t *testing.T) {
	g := NewGate(Limits{}, Penalties{Violation: -1, Login: -1})
	s := admitted(t, g, someone)
	for range 100 {
		s.LoginFailed("a", string(rune(rand.N(1<<15))))
	}
	s.Close(violation)
	admitted(t, g, someone)
}

// A forgotten password that a mail client tries again and again is no guess.
func TestSameCredentialsDoNotAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{}, Penalties{})
		for range 1000 {
			s := admitted(t, g, someone)
			s.LoginFailed("ann", "old password")
			s.LoginFailed("bob", "old password")
			s.Close(nil)
			time.Sleep(100 * time.Millisecond)
		}
		// The control: other passwords do.
		s := admitted(t, g, someone)
		s.LoginFailed("ann", "a")
		s.LoginFailed("ann", "b")
		s.LoginFailed("ann", "c")
		s.Close(nil)
		refused(t, g, someone, Penalized)
	})
}

// MaxStartups of OpenSSH, by its own formula.
func TestRandomEarlyDrop(t *testing.T) {
	const begin, rate, full, tries = 10, 30, 100, 4000
	for _, startups := range []int{0, 9, 10, 11, 55, 99, 100} {
		g := NewGate(Limits{Begin: begin, Rate: rate, Full: full, StartupsPerSource: 1000}, Penalties{NoLogin: -1})
		for g.startups < startups {
			g.Admit(someone) // some are unlucky
		}
		dropped := 0
		for range tries {
			s, err := g.Admit(somebody)
			if err != nil {
				dropped++
			} else {
				s.Close(nil)
			}
		}
		want := 0.0
		if startups >= begin {
			want = rate + float64((100-rate)*(startups-begin)/(full-begin))
		}
		if got := 100 * float64(dropped) / tries; got < want-4 || got > want+4 {
			t.Errorf("%d startups: %.1f%% dropped, want %.0f%%", startups, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	g := NewGate(Limits{Sessions: 9, PerSource: 3, Begin: 100, Full: 100, StartupsPerSource: 2}, Penalties{NoLogin: -1})
	first, second := admitted(t, g, someone), admitted(t, g, someone)
	refused(t, g, someone, Greedy) // two without a login
	admitted(t, g, somebody)
	first.LoggedIn()
	first.LoggedIn()
	third := admitted(t, g, someone)
	refused(t, g, someone, Greedy) // three in all
	third.LoggedIn()
	second.LoggedIn()
	refused(t, g, someone, Greedy)
	second.Close(nil)
	second.Close(nil)
	admitted(t, g, someone)
	for last := byte(3); last < 8; last++ {
		admitted(t, g, netip.AddrFrom4([4]byte{192, 0, 2, last}))
	}
	refused(t, g, netip.AddrFrom4([4]byte{192, 0, 2, 8}), Crowded)
}

// All that is counted is given back.
func TestNothingStays(t *testing.T) {
	g := NewGate(Limits{Sessions: 50, PerSource: 20}, Penalties{NoLogin: -1})
	var open []*Slot
	for range 20000 {
		if rand.N(2) == 0 && len(open) > 0 {
			i := rand.N(len(open))
			open[i].Close(nil)
			open = append(open[:i], open[i+1:]...)
			continue
		}
		address := netip.AddrFrom16([16]byte{0x20, 1, 5: byte(rand.N(2)), 7: byte(rand.N(3)), 15: byte(rand.N(9))})
		if s, err := g.Admit(address); err == nil {
			open = append(open, s)
			if rand.N(2) == 0 {
				s.LoggedIn()
			}
		}
	}
	for _, s := range open {
		s.Close(nil)
	}
	if g.sessions != 0 || g.startups != 0 || len(g.from) != 0 {
		t.Errorf("%d sessions, %d startups, %d sources are left", g.sessions, g.startups, len(g.from))
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{"192.0.2.1", "192.0.2.1/32"},
		{"::ffff:192.0.2.1", "192.0.2.1/32"},
		{"255.255.255.255", "255.255.255.255/32"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"fe80::1%eth0", "fe80::/64"},
		{"::", "::/64"},
	} {
		if got := sourceOf(netip.MustParseAddr(c.address)).prefix().String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.address, got, c.want)
		}
	}
	if got := sourceOf(netip.Addr{}); got != sourceOf(netip.IPv4Unspecified()) {
		t.Errorf("no address: got %v, want one source for all of them", got)
	}
	if w, ok := sourceOf(netip.MustParseAddr("2001:db8:1:2::")).wider(); !ok || w.prefix().String() != "2001:db8:1::/48" {
		t.Errorf("got %v %v, want 2001:db8:1::/48", w.prefix(), ok)
	}
	if _, ok := sourceOf(someone).wider(); ok {
		t.Error("an IPv4 address has no wider source")
	}
}

// subnet is the i-th /64 of 2001:db8:net::/48.
func subnet(net, i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(net >> 8), byte(net), byte(i >> 8), byte(i), 15: byte(rand.N(256))})
}

// Four blocked /64 block their /48, but for who has logged in from there.
func TestEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{}, Penalties{})
		good := admitted(t, g, subnet(1, 1000))
		good.LoggedIn()
		good.Close(nil)
		for i := range escalation {
			admitted(t, g, subnet(1, 2000)).Close(exit(privsep.Failed))
			admitted(t, g, subnet(1, i)).Close(violation)
		}
		e := refused(t, g, subnet(1, 2000), Penalized)
		if e.Source.String() != "2001:db8:1::/48" {
			t.Errorf("refused as %v, want as 2001:db8:1::/48", e.Source)
		}
		admitted(t, g, subnet(2, 0)) // another /48
		admitted(t, g, subnet(1, 1000)).Close(violation)
		refused(t, g, subnet(1, 1000), Penalized) // what it did itself it pays
		time.Sleep(10 * time.Minute)
		admitted(t, g, subnet(1, 2000))
	})
}
