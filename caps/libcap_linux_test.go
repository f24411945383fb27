package caps_test

import (
	"strings"
	"testing"

	"kernel.org/pub/linux/libs/security/libcap/cap"
	"pgregory.net/rapid"

	"github.com/go-privsep/sallyport/caps"
)

// fromLibcap reads libcap's set flag by flag, without its texts.
func fromLibcap(t rapid.TB, peer *cap.Set) (s caps.State) {
	t.Helper()
	for c := caps.Cap(1); c <= 64; c++ {
		for flag, set := range map[cap.Flag]*caps.Set{
			cap.Effective: &s.Effective, cap.Permitted: &s.Permitted, cap.Inheritable: &s.Inheritable,
		} {
			on, err := peer.GetFlag(flag, cap.Value(c.Number()))
			if err != nil {
				t.Fatal(err)
			}
			if on {
				*set = set.Union(caps.Of(c))
			}
		}
	}
	return s
}

var anySet = rapid.Custom(func(t *rapid.T) caps.Set {
	return caps.Of(rapid.SliceOfDistinct(rapid.Map(rapid.IntRange(1, 64), func(n int) caps.Cap { return caps.Cap(n) }),
		rapid.ID[caps.Cap]).Draw(t, "capabilities")...)
})

func TestStateTextRoundTripsThroughLibcap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := caps.State{
			Effective:   anySet.Draw(t, "effective"),
			Permitted:   anySet.Draw(t, "permitted"),
			Inheritable: anySet.Draw(t, "inheritable"),
		}
		peer, err := cap.FromText(want.String())
		if err != nil {
			t.Fatalf("libcap does not read %q: %v", want, err)
		}
		if got := fromLibcap(t, peer); got != want {
			t.Fatalf("libcap reads %q as %q", want, got)
		}
		if int(cap.MaxBits()) != caps.Names {
			return // libcap's "all" is the running kernel's
		}
		if got, err := caps.ParseState(peer.String()); err != nil || got != want {
			t.Fatalf("libcap prints %q, read as %q, %v; want %q", peer, got, err, want)
		}
	})
}

func TestSetTextIsALibcapList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anySet.Draw(t, "set")
		if again, err := caps.Parse(want.String()); err != nil || again != want {
			t.Fatalf("%q: got %q, %v", want, again, err)
		}
		if want.Empty() {
			return // a list without an operator is no text of libcap's
		}
		peer, err := cap.FromText(want.String() + "=p")
		if err != nil || fromLibcap(t, peer).Permitted != want {
			t.Fatalf("libcap reads %q as %v, %v", want, peer, err)
		}
	})
}

// What is read at all is read as libcap reads it. Its Go package departs from
// its C library in one point: each = there forgets all words before it.
func FuzzParseState(f *testing.F) {
	for _, text := range []string{"=", "=ep cap_kill-e", "cap_chown=p+e-p cap_kill+i", "all+i", "41=p", "cap_chown=-p+e"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := caps.ParseState(text)
		if err != nil {
			return
		}
		if again, err := caps.ParseState(s.String()); err != nil || again != s {
			t.Fatalf("%q printed as %q is %q, %v", text, s, again, err)
		}
		if words := strings.Fields(text); strings.Contains(strings.Join(words[1:], " "), "=") || int(cap.MaxBits()) != caps.Names {
			return
		}
		peer, err := cap.FromText(text)
		if err != nil {
			t.Fatalf("libcap does not read %q", text)
		}
		if got := fromLibcap(t, peer); got != s {
			t.Fatalf("%q: got %q, libcap %q", text, s, got)
		}
	})
}
