package admission

import (
	"net/netip"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

func parse(s string) netip.Addr { return netip.MustParseAddr(s) }

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A siege is a million addresses of one /48, 16 in each of its 65,536 /64, and
// neighbours who log in every now and then while it lasts. An attacker holds each
// place that it gets for the two minutes of the login deadline.
func TestSiege(t *testing.T) {
	attacks := 1_000_000
	if testing.Short() {
		attacks = 100_000
	}
	const perSecond = 500
	for _, attack := range []struct {
		name string
		end  error
		hold time.Duration
	}{
		{"silent until the deadline", exit(privsep.TimedOut), 2 * time.Minute},
		{"violation", violation, time.Millisecond},
		{"crash", exit(privsep.Crashed), time.Millisecond},
		{"gone at once", nil, time.Millisecond},
	} {
		t.Run(attack.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := heap()
				g := NewGate(Limits{}, Penalties{})
				neighbours := []*neighbour{
					{name: "IPv4", from: parse("198.51.100.1")},
					{name: "another /48", from: parse("2001:db8:ffff::1")},
					{name: "same /48, logged in before", from: subnet(1, 77)},
				}
				for _, n := range neighbours {
					s := admitted(t, g, n.from)
					s.LoggedIn()
					s.Close(nil)
				}
				type place struct {
					slot *Slot
					ends time.Time
				}
				var holds []place
				admitted := 0
				for i := range attacks {
					if i%perSecond == 0 {
						time.Sleep(time.Second)
					}
					for len(holds) > 0 && !holds[0].ends.After(time.Now()) {
						holds[0].slot.Close(attack.end)
						holds = holds[1:]
					}
					from := subnet(1, 1000+i/16) // in turn, as a program would
					if s, err := g.Admit(from); err == nil {
						admitted++
						if attack.hold < time.Second {
							s.Close(attack.end)
						} else {
							holds = append(holds, place{s, time.Now().Add(attack.hold)})
						}
					}
					if i%100 == 0 {
						neighbours[i/100%len(neighbours)].try(g)
					}
				}
				if used := heap() - before; used > 32<<20 {
					t.Errorf("%d MiB in use, want less than 32", used>>20)
				} else {
					t.Logf("%d of %d attacks were admitted, %d KiB in use", admitted, attacks, used>>10)
				}
				for _, n := range neighbours {
					if 100*n.served <= 99*n.tried {
						t.Errorf("neighbour (%s): served %d of %d, want more than 99%%", n.name, n.served, n.tried)
					}
					t.Logf("neighbour (%s): served %d of %d", n.name, n.served, n.tried)
				}
				for _, h := range holds {
					h.slot.Close(nil)
				}
			})
		})
	}
}

// The control: without the bounds per source the same siege shuts others out.
func TestSiegeWithoutTheBounds(t *testing.T) {
	g := NewGate(Limits{StartupsPerSource: 1000}, Penalties{})
	for i := 0; g.startups < 100; i++ {
		g.Admit(subnet(1, i))
	}
	n := &neighbour{from: parse("198.51.100.1")}
	for range 100 {
		n.try(g)
	}
	if n.served > 0 {
		t.Errorf("served %d of %d while all places are taken: the siege is none", n.served, n.tried)
	}
}

// Memory has its bound whatever the addresses are: 200,000 IPv4
// addresses and as many /48.
func TestMemoryIsBounded(t *testing.T) {
	before := heap()
	g := NewGate(Limits{Sessions: 1 << 20, Begin: 1 << 20, Full: 1 << 20}, Penalties{})
	for i := range 200_000 {
		for _, from := range []netip.Addr{
			netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}),
			netip.AddrFrom16([16]byte{0x20, 2, 3: byte(i >> 16), 4: byte(i >> 8), 5: byte(i), 7: 1}),
		} {
			s, err := g.Admit(from)
			if err != nil {
				t.Fatal(err)
			}
			s.LoggedIn()
			s.Close(violation)
		}
	}
	used := heap() - before
	runtime.KeepAlive(g)
	if used > 32<<20 {
		t.Errorf("%d MiB in use, want less than 32", used>>20)
	} else {
		t.Logf("%d KiB in use", used>>10)
	}
	if n4, n6, good := len(g.ledger.v4), len(g.ledger.v6), len(g.ledger.good); n4 > maxSources || n6 > maxSources || good > maxGood {
		t.Errorf("%d and %d sources and %d good ones, want %d and %d at the most", n4, n6, good, maxSources, maxGood)
	}
}

// Small offences do not drive out great ones.
func TestFloodOfSmallOffencesForgivesNoViolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Limits{}, Penalties{})
		admitted(t, g, someone).Close(violation)
		for i := range 4 * maxSources {
			admitted(t, g, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})).Close(nil)
		}
		refused(t, g, someone, Penalized)
	})
}

// A neighbour logs in and goes, again and again.
type neighbour struct {
	name          string
	from          netip.Addr
	tried, served int
}

func (n *neighbour) try(g *Gate) {
	n.tried++
	if s, err := g.Admit(n.from); err == nil {
		n.served++
		s.LoggedIn()
		s.Close(nil)
	}
}

func BenchmarkAdmit(b *testing.B) {
	g := NewGate(Limits{}, Penalties{})
	for b.Loop() {
		if s, err := g.Admit(someone); err == nil {
			s.LoggedIn()
			s.Close(nil)
		}
	}
}
