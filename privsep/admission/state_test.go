package admission

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// A restart forgives nothing: OpenSSH's penalties are gone with a SIGHUP.
func TestStateSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := NewGate(Limits{}, Penalties{})
		admitted(t, old, someone).Close(violation)
		admitted(t, old, somebody).Close(exit(privsep.TimedOut))
		for i := range escalation {
			admitted(t, old, subnet(1, i)).Close(violation)
		}
		time.Sleep(time.Second)
		state, err := old.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		g := NewGate(Limits{}, Penalties{})
		if err := g.UnmarshalBinary(state); err != nil {
			t.Fatal(err)
		}
		refused(t, g, someone, Penalized)
		refused(t, g, subnet(1, 99), Penalized)
		admitted(t, g, somebody).Close(exit(privsep.TimedOut))
		refused(t, g, somebody, Penalized) // 9 s came along
		time.Sleep(10 * time.Minute)
		admitted(t, g, someone)

		if err := g.UnmarshalBinary(state); err != nil { // from the past
			t.Fatal(err)
		}
		if n := len(g.ledger.v4) + len(g.ledger.v6); n != 0 {
			t.Errorf("%d penalties that had passed were taken over", n)
		}
		short := NewGate(Limits{}, Penalties{Max: time.Minute})
		admitted(t, old, someone).Close(violation)
		if state, err = old.AppendBinary(nil); err == nil {
			err = short.UnmarshalBinary(state)
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		admitted(t, short, someone)
	})
}

func FuzzState(f *testing.F) {
	g := NewGate(Limits{}, Penalties{})
	for _, a := range []string{"192.0.2.1", "2001:db8::1"} {
		s, _ := g.Admit(parse(a))
		s.Close(violation)
	}
	seed, _ := g.AppendBinary(nil)
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add([]byte{stateVersion})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, state []byte) {
		g := NewGate(Limits{}, Penalties{})
		s, _ := g.Admit(someone)
		s.Close(violation)
		before, _ := g.AppendBinary(nil)
		err := g.UnmarshalBinary(state)
		after, _ := g.AppendBinary(nil)
		if err != nil && !bytes.Equal(before, after) {
			t.Errorf("%v, and yet the state changed", err)
		}
		if len(after) > len(state) && err == nil {
			t.Errorf("%d bytes became %d", len(state), len(after))
		}
		if err := g.UnmarshalBinary(after); err != nil {
			t.Errorf("what it wrote it does not read: %v", err)
		}
	})
}
