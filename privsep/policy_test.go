package privsep_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/privsep"
)

// States of the policies of these tests.
type (
	first  struct{}
	second struct{}
	third  struct{}
)

type (
	empty     struct{}
	unbounded struct{ Path string }
	unchecked struct{ N int }
	large     struct {
		Text string `privsep:"max=5000"`
	}
	named struct {
		Name string `privsep:"max=8"`
	}
)

func (*unbounded) Check() error { return nil }
func (*large) Check() error     { return nil }
func (*named) Check() error     { return nil }

func serve[S, Request, Reply any](*S, context.Context, Request) (r Reply, err error) { return r, nil }

func forward[S, T, Request, Reply any](*S, context.Context, Request) (r Reply, next *T, err error) {
	return r, new(T), nil
}

func launchFirst(*first) privsep.Launch { return launch("nothing") }
func launchThird(*third) privsep.Launch { return launch("nothing") }

var (
	ask  = privsep.Op[empty, empty]{Name: "ask", Calls: 1}
	move = privsep.Op[empty, empty]{Name: "move", Calls: 1}
)

// Whatever is wrong with a policy is said where it is declared, with the
// operation or phase, the field and the remedy.
func TestPolicyPanics(t *testing.T) {
	type phase1 = *privsep.Phase[first]
	declare := func(f func(p *privsep.Policy, a phase1)) func() {
		return func() {
			p := new(privsep.Policy)
			f(p, privsep.NewPhase(p, "first", launchFirst))
		}
	}
	use := func(f func(p *privsep.Policy, a phase1)) func() {
		return declare(func(p *privsep.Policy, a phase1) {
			f(p, a)
			m, err := privsep.NewMonitor(p, privsep.Config{})
			if err == nil {
				m.Close()
			}
		})
	}
	permit := func(op privsep.Op[empty, empty]) func() {
		return declare(func(_ *privsep.Policy, a phase1) { privsep.Permit(a, op, serve) })
	}
	for _, tt := range []struct {
		name  string
		words []string
		do    func()
	}{
		{"no name", []string{"needs a Name"}, permit(privsep.Op[empty, empty]{Calls: 1})},
		{"no Calls", []string{"ask", "needs Calls", "privsep.Unlimited"}, permit(privsep.Op[empty, empty]{Name: "ask"})},
		{"negative Calls", []string{"ask", "negative"}, permit(privsep.Op[empty, empty]{Name: "ask", Calls: -2})},
		{"negative Timeout", []string{"ask", "negative"}, permit(privsep.Op[empty, empty]{Name: "ask", Calls: 1, Timeout: -1})},
		{"negative Size", []string{"ask", "negative"}, permit(privsep.Op[empty, empty]{Name: "ask", Calls: 1, Size: -1})},
		{"unbounded field", []string{"ask", "privsep_test.unbounded.Path", `privsep:"max=N"`}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[unbounded, empty]{Name: "ask", Calls: 1}, serve)
		})},
		{"unbounded field in the reply", []string{"ask", "privsep_test.unbounded.Path"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[empty, unbounded]{Name: "ask", Calls: 1}, serve)
		})},
		{"no Check", []string{"ask", "privsep_test.unchecked", "Check() error"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[unchecked, empty]{Name: "ask", Calls: 1}, serve)
		})},
		{"no struct", []string{"ask", "string", "struct"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[string, empty]{Name: "ask", Calls: 1}, serve)
		})},
		{"larger than its size", []string{"ask", "privsep_test.large", "5009 bytes", "Size (now 4096)"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[large, empty]{Name: "ask", Calls: 1}, serve)
		})},
		{"permitted twice", []string{"ask", "twice", "first"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, ask, serve)
			privsep.Permit(a, ask, serve)
		})},
		{"one name with two types", []string{"ask", "other types"}, declare(func(p *privsep.Policy, a phase1) {
			privsep.Permit(a, ask, serve)
			privsep.Permit(privsep.NewPhase[second](p, "second", nil), privsep.Op[named, empty]{Name: "ask", Calls: 1}, serve)
		})},
		{"one name with two budgets", []string{"ask", "limits"}, declare(func(p *privsep.Policy, a phase1) {
			privsep.Permit(a, ask, serve)
			privsep.Permit(privsep.NewPhase[second](p, "second", nil), privsep.Op[empty, empty]{Name: "ask", Calls: 2}, serve)
		})},
		// FNV-1a of both names is the same.
		{"one number with two names", []string{"costarring", "liquid"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit(a, privsep.Op[empty, empty]{Name: "costarring", Calls: 1}, serve)
			privsep.Permit(a, privsep.Op[empty, empty]{Name: "liquid", Calls: 1}, serve)
		})},
		{"no phase", []string{"needs a phase"}, func() { privsep.NewMonitor(new(privsep.Policy), privsep.Config{}) }},
		{"first phase without a launch", []string{"first", "needs a launch"}, func() {
			privsep.NewPhase[first](new(privsep.Policy), "first", nil)
		}},
		{"phase without a name", []string{`""`, "one word"}, func() { privsep.NewPhase(new(privsep.Policy), "", launchFirst) }},
		{"name of two words", []string{`"a b"`, "one word"}, func() { privsep.NewPhase(new(privsep.Policy), "a b", launchFirst) }},
		{"two phases of one name", []string{"first", "privsep_test.second", "same name"}, declare(func(p *privsep.Policy, _ phase1) {
			privsep.NewPhase[second](p, "first", nil)
		})},
		{"two phases of one state", []string{"again", "privsep_test.first", "same name or state type"}, declare(func(p *privsep.Policy, _ phase1) {
			privsep.NewPhase[first](p, "again", nil)
		})},
		{"unreachable phase", []string{"second", "no Advance leads here"}, use(func(p *privsep.Policy, _ phase1) {
			privsep.NewPhase[second](p, "second", nil)
		})},
		{"phase reached from an unreachable one only", []string{"second", "no Advance leads here"}, use(func(p *privsep.Policy, _ phase1) {
			b, c := privsep.NewPhase[second](p, "second", nil), privsep.NewPhase[third](p, "third", nil)
			privsep.Advance(b, move, c, forward)
		})},
		{"backwards", []string{"move", "only goes forward", "first", "second"}, declare(func(p *privsep.Policy, a phase1) {
			privsep.Advance(privsep.NewPhase[second](p, "second", nil), move, a, forward)
		})},
		{"to itself", []string{"move", "only goes forward"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Advance(a, move, a, forward)
		})},
		{"to another policy", []string{"move", "in one policy"}, declare(func(_ *privsep.Policy, a phase1) {
			other := new(privsep.Policy)
			privsep.NewPhase(other, "first", launchFirst)
			privsep.Advance(a, move, privsep.NewPhase[second](other, "second", nil), forward)
		})},
		{"permitted where its last call led", []string{"move", "second", "Calls (1)", "remove the permit"}, use(func(p *privsep.Policy, a phase1) {
			b := privsep.NewPhase[second](p, "second", nil)
			privsep.Advance(a, move, b, forward)
			privsep.Permit(b, move, serve)
		})},
		{"edge where its last call led", []string{"move", "second", "Calls (1)"}, use(func(p *privsep.Policy, a phase1) {
			b, c := privsep.NewPhase[second](p, "second", nil), privsep.NewPhase[third](p, "third", nil)
			privsep.Advance(a, move, b, forward)
			privsep.Advance(b, move, c, forward)
			privsep.Permit(c, ask, serve)
		})},
		{"spent two phases before", []string{"move", "third", "Calls (1)"}, use(func(p *privsep.Policy, a phase1) {
			b, c := privsep.NewPhase[second](p, "second", nil), privsep.NewPhase[third](p, "third", nil)
			privsep.Advance(a, move, b, forward)
			privsep.Advance(b, ask, c, forward)
			privsep.Permit(c, move, serve)
		})},
		{"widened", []string{"ask", "second", "cap_chown", "first", "another name"}, use(func(p *privsep.Policy, a phase1) {
			b := privsep.NewPhase[second](p, "second", nil)
			privsep.Permit(a, ask, serve, caps.NetBindService)
			privsep.Advance(a, move, b, forward)
			privsep.Permit(b, ask, serve, caps.NetBindService, caps.Chown)
		})},
		{"widened two phases later", []string{"ask", "third", "cap_chown", "first", "another name"}, use(func(p *privsep.Policy, a phase1) {
			b, c := privsep.NewPhase[second](p, "second", nil), privsep.NewPhase[third](p, "third", launchThird)
			privsep.Permit(a, ask, serve)
			privsep.Advance(a, move, b, forward)
			privsep.Advance(b, privsep.Op[empty, empty]{Name: "again", Calls: 1}, c, forward)
			privsep.Permit(c, ask, serve, caps.Chown)
		})},
		{"widened by the edge itself", []string{"move", "second", "cap_chown"}, use(func(p *privsep.Policy, a phase1) {
			op := privsep.Op[empty, empty]{Name: "move", Calls: 2}
			b := privsep.NewPhase[second](p, "second", nil)
			privsep.Advance(a, op, b, forward)
			privsep.Permit(b, op, serve, caps.Chown)
		})},
		{"nil handler", []string{"ask", "first", "nil handler"}, declare(func(_ *privsep.Policy, a phase1) {
			privsep.Permit[first, empty, empty](a, ask, nil)
		})},
		{"nil handler that advances", []string{"move", "first", "nil handler"}, declare(func(p *privsep.Policy, a phase1) {
			privsep.Advance[first, second, empty, empty](a, move, privsep.NewPhase[second](p, "second", nil), nil)
		})},
		{"parallel and advancing", []string{"move", "can't be Parallel"}, declare(func(p *privsep.Policy, a phase1) {
			privsep.Advance(a, privsep.Op[empty, empty]{Name: "move", Calls: 1, Parallel: true}, privsep.NewPhase[second](p, "second", nil), forward)
		})},
		{"permit in use", []string{"ask", "in use"}, func() {
			_, a := inUse()
			privsep.Permit(a, ask, serve)
		}},
		{"phase in use", []string{"second", "in use"}, func() {
			p, _ := inUse()
			privsep.NewPhase[second](p, "second", nil)
		}},
		{"worker beside in use", []string{"first", "in use"}, func() {
			_, a := inUse()
			privsep.Beside(a, launchFirst)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				message, ok := recover().(string)
				if !ok {
					t.Fatal("no panic with a text")
				}
				for _, word := range append(tt.words, "privsep: ") {
					if !strings.Contains(message, word) {
						t.Errorf("%q does not say %q", message, word)
					}
				}
			}()
			tt.do()
		})
	}
}

// What looks like one of the mistakes above and is none.
func TestLawfulPolicies(t *testing.T) {
	type house struct {
		*privsep.Policy
		a *privsep.Phase[first]
		b *privsep.Phase[second]
		c *privsep.Phase[third]
	}
	again := privsep.Op[empty, empty]{Name: "again", Calls: 1}
	for name, declare := range map[string]func(house){
		"its last call is one way of two": func(h house) {
			privsep.Advance(h.a, move, h.b, forward)
			privsep.Advance(h.a, again, h.c, forward)
			privsep.Advance(h.b, again, h.c, forward)
			privsep.Permit(h.c, move, serve)
		},
		"two calls, one spent": func(h house) {
			twice := privsep.Op[empty, empty]{Name: "twice", Calls: 2}
			privsep.Advance(h.a, twice, h.b, forward)
			privsep.Advance(h.b, twice, h.c, forward)
		},
		"without end": func(h house) {
			always := privsep.Op[empty, empty]{Name: "always", Calls: privsep.Unlimited}
			privsep.Advance(h.a, always, h.b, forward)
			privsep.Advance(h.b, always, h.c, forward)
			privsep.Permit(h.c, always, serve)
		},
		"less behind the edge": func(h house) {
			privsep.Permit(h.a, ask, serve, caps.Chown, caps.NetBindService)
			privsep.Advance(h.a, move, h.b, forward)
			privsep.Permit(h.b, ask, serve, caps.Chown)
			privsep.Advance(h.b, again, h.c, forward)
			privsep.Permit(h.c, ask, serve)
		},
		"more on another branch": func(h house) {
			privsep.Advance(h.a, move, h.b, forward)
			privsep.Advance(h.a, again, h.c, forward)
			privsep.Permit(h.b, ask, serve)
			privsep.Permit(h.c, ask, serve, caps.Chown)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := new(privsep.Policy)
			h := house{Policy: p, a: privsep.NewPhase(p, "first", launchFirst)}
			h.b, h.c = privsep.NewPhase[second](p, "second", nil), privsep.NewPhase(p, "third", launchThird)
			declare(h)
			m, err := privsep.NewMonitor(p, privsep.Config{})
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
		})
	}
}

// inUse returns a policy with which a monitor was made.
func inUse() (*privsep.Policy, *privsep.Phase[first]) {
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "first", launchFirst)
	m, err := privsep.NewMonitor(p, privsep.Config{})
	if err != nil {
		panic(err)
	}
	m.Close()
	return p, a
}

func TestPolicyString(t *testing.T) {
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "first", launchFirst)
	b := privsep.NewPhase[second](p, "second", nil)
	c := privsep.NewPhase[third](p, "third", func(*third) privsep.Launch { return launch("nothing") })
	privsep.Permit(a, ask, serve, caps.NetBindService, caps.Chown)
	privsep.Advance(a, move, b, forward)
	privsep.Permit(b, ask, serve)
	privsep.Advance(b, privsep.Op[named, large]{Name: "name", Calls: privsep.Unlimited, Size: 6000}, c, forward, caps.SetUID)
	privsep.Permit(c, privsep.Op[named, empty]{Name: "rename", Calls: 12, Timeout: time.Second, Parallel: true}, serve)
	want, err := os.ReadFile("testdata/policy.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := p.String(); got != string(want) {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got, want := p.Caps(), caps.Of(caps.NetBindService, caps.Chown, caps.SetUID); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := new(privsep.Policy).String(); got != "" {
		t.Errorf("the zero policy prints %q", got)
	}
}
