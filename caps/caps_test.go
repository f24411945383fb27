package caps_test

import (
	"errors"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/caps"
)

func TestZeroCapIsNone(t *testing.T) {
	var zero caps.Cap
	if zero == caps.Chown || zero.Number() != -1 {
		t.Errorf("the zero Cap is number %d", zero.Number())
	}
	for _, c := range []caps.Cap{0, 65, 255} {
		if got, want := c.String(), "invalid capability"; got != want {
			t.Errorf("Cap(%d): got %q, want %q", uint8(c), got, want)
		}
		full, err := caps.ParseHex("ffffffffffffffff")
		if err != nil || full.Has(c) {
			t.Errorf("Cap(%d) is in a full set (%v)", uint8(c), err)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Of(Cap(%d)) did not panic", uint8(c))
				}
			}()
			caps.Of(c)
		}()
	}
}

func TestNames(t *testing.T) {
	for c, want := range map[caps.Cap]struct {
		name   string
		number int
	}{
		caps.Chown:             {"cap_chown", 0},
		caps.SetUID:            {"cap_setuid", 7},
		caps.NetBindService:    {"cap_net_bind_service", 10},
		caps.CheckpointRestore: {"cap_checkpoint_restore", 40},
		caps.Cap(42):           {"41", 41}, // of a kernel to come
	} {
		if c.String() != want.name || c.Number() != want.number {
			t.Errorf("got %v, %d; want %v", c, c.Number(), want)
		}
	}
}

func TestSets(t *testing.T) {
	var zero caps.Set
	a, b := caps.Of(caps.Kill, caps.Chown), caps.Of(caps.Kill, caps.BPF)
	for _, row := range []struct {
		name string
		got  caps.Set
		want string
	}{
		{"zero", zero, ""},
		{"of none", caps.Of(), ""},
		{"of two", a, "cap_chown,cap_kill"},
		{"union", a.Union(b), "cap_chown,cap_kill,cap_bpf"},
		{"minus", a.Minus(b), "cap_chown"},
		{"minus itself", a.Minus(a), ""},
		{"minus none", a.Minus(zero), "cap_chown,cap_kill"},
	} {
		if got := row.got.String(); got != row.want || row.got.Empty() != (row.want == "") {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
	if a == b || a != caps.Of(caps.Chown, caps.Kill) || !a.Has(caps.Kill) || a.Has(caps.BPF) || a.Bits() != 1<<0|1<<5 {
		t.Errorf("a is %v, %#x", a, a.Bits())
	}
	for c := range a.All() {
		if c != caps.Chown {
			t.Errorf("first is %v", c)
		}
		break // All must stop when it is told to
	}
}

func TestParse(t *testing.T) {
	for text, want := range map[string]caps.Set{
		"":                                  {},
		"cap_chown":                         caps.Of(caps.Chown),
		"cap_kill,cap_chown,cap_kill":       caps.Of(caps.Chown, caps.Kill),
		"cap_net_bind_service,cap_syslog":   caps.Of(caps.NetBindService, caps.Syslog),
		"cap_checkpoint_restore,cap_setuid": caps.Of(caps.CheckpointRestore, caps.SetUID),
	} {
		if got, err := caps.Parse(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v; want %v", text, got, err, want)
		}
	}
	// runc warned of unknown names and went on without them.
	for text, word := range map[string]string{
		"cap_frobnicate":       "cap_frobnicate",
		"cap_chown,cap_kil":    "cap_kil",
		"chown":                "chown",
		"CAP_CHOWN":            "CAP_CHOWN",
		"all":                  "all",
		"0":                    "0",
		"64":                   "64",
		"-1":                   "-1",
		"cap_chown,":           "",
		",":                    "",
		"cap_chown, cap_kill":  " cap_kill",
		"cap_chown\x00":        "cap_chown\x00",
		"invalid capability":   "invalid capability",
		"cap_chown,cap_kill=p": "cap_kill=p",
	} {
		got, err := caps.Parse(text)
		var parse *caps.ParseError
		if !errors.As(err, &parse) || parse.Word != word || !got.Empty() {
			t.Errorf("%q: got %v, %v; want a ParseError of %q", text, got, err, word)
		}
	}
}

func TestParseHex(t *testing.T) {
	if got, err := caps.ParseHex("0000000000000401"); err != nil || got != caps.Of(caps.Chown, caps.NetBindService) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "0x1", "g", "-1", " 1", "1\n", "1_0", "10000000000000000"} {
		var parse *caps.ParseError
		if got, err := caps.ParseHex(text); !errors.As(err, &parse) || !got.Empty() {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestStateText(t *testing.T) {
	chown, kill, both := caps.Of(caps.Chown), caps.Of(caps.Kill), caps.Of(caps.Chown, caps.Kill)
	named, _ := caps.ParseHex("1ffffffffff")
	for _, row := range []struct {
		text  string
		want  caps.State
		print string
	}{
		{"=", caps.State{}, "="},
		{"all=", caps.State{}, "="},
		{"cap_chown=", caps.State{}, "="},
		{"cap_chown,cap_kill=ep", caps.State{Effective: both, Permitted: both}, "cap_chown,cap_kill=ep"},
		{"cap_chown=pp+e cap_kill+i", caps.State{Effective: chown, Permitted: chown, Inheritable: kill}, "cap_chown=ep cap_kill+i"},
		{"cap_chown=ip-p", caps.State{Inheritable: chown}, "cap_chown=i"},
		{" cap_chown+p\tcap_kill+p\n", caps.State{Permitted: both}, "cap_chown,cap_kill=p"},
		// As the manual and libcap's C have it: = resets what it lists.
		{"cap_chown=p cap_kill=i", caps.State{Permitted: chown, Inheritable: kill}, "cap_chown=p cap_kill+i"},
		{"cap_chown=p cap_chown=i", caps.State{Inheritable: chown}, "cap_chown=i"},
		{"cap_chown=p all=", caps.State{}, "="},
		{"=p cap_chown-p", caps.State{Permitted: named.Minus(chown)}, named.Minus(chown).String() + "=p"},
		{"all+i cap_chown,cap_kill-i", caps.State{Inheritable: named.Minus(both)}, named.Minus(both).String() + "=i"},
	} {
		got, err := caps.ParseState(row.text)
		if err != nil || got != row.want || got.String() != row.print {
			t.Errorf("%q: got %q, %v; want %q", row.text, got, err, row.print)
		}
	}
	for _, text := range []string{
		"", " ", "cap_chown", "cap_frob=p", "cap_chown=x", "cap_chown=p!", "cap_chown+", "cap_chown-", "+p", "-p",
		"=+p", "=-p", "=e+p", "cap_chown+p=e", "cap_chown+p-", "cap_chown,=p", "cap_chown=p=e", "x", "cap_chown=\xff",
	} {
		var parse *caps.ParseError
		if got, err := caps.ParseState(text); !errors.As(err, &parse) || got != (caps.State{}) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("cap_chown,cap_kill")
	f.Add("63,41,cap_bpf")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := caps.Parse(text)
		if err != nil {
			return
		}
		if again, err := caps.Parse(s.String()); err != nil || again != s {
			t.Errorf("%q printed as %q is %v, %v", text, s, again, err)
		}
		if words := strings.Split(text, ","); text != "" && bits.OnesCount64(s.Bits()) > len(words) {
			t.Errorf("%q holds %v", text, s)
		}
	})
}

func FuzzParseHex(f *testing.F) {
	f.Add("000001ffffffffff")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := caps.ParseHex(text)
		if err == nil && slices.Collect(s.All()) == nil != s.Empty() {
			t.Errorf("%q is %v", text, s)
		}
	})
}

func TestRiskTableIsCompleteAndInOrder(t *testing.T) {
	risks := caps.Risks()
	if got, want := len(risks), caps.Names; got != want {
		t.Fatalf("got %d rows, want %d", got, want)
	}
	counts := map[caps.Answer]int{}
	for n, r := range risks {
		if r.Cap.Number() != n {
			t.Errorf("row %d is of %v", n, r.Cap)
		}
		if r.Cap.Risk() != r {
			t.Errorf("%v.Risk() is not its row", r.Cap)
		}
		for _, text := range []string{r.Condition, r.Way, r.Source, r.Root.String(), r.Survives.String()} {
			if text == "" || strings.HasPrefix(text, "invalid") || strings.ContainsAny(text, "|\n") {
				t.Errorf("%v: cell %q", r.Cap, text)
			}
		}
		if r.Root == caps.Conditional && r.Condition == "none" {
			t.Errorf("%v is conditional on nothing", r.Cap)
		}
		counts[r.Root]++
	}
	if counts[caps.Yes] != 10 || counts[caps.Conditional] != 14 || counts[caps.No] != 17 {
		t.Errorf("got %v; the judgements were 10 yes, 14 conditional, 17 no", counts)
	}
	risks[0] = caps.Risk{}
	if caps.Risks()[0].Cap != caps.Chown {
		t.Error("a caller can change the table")
	}
}

func TestRiskOfTheUnknownIsNotNo(t *testing.T) {
	for _, c := range []caps.Cap{0, 42, 255} {
		if r := c.Risk(); r != (caps.Risk{}) || r.Root == caps.No || r.Root.String() != "invalid answer" {
			t.Errorf("Cap(%d): got %+v", uint8(c), r)
		}
	}
}
