package privseptest

import (
	"context"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

func TestWalk(t *testing.T) {
	p, _, _ := newHouse()
	Walk(t, p)
}

// The controls: a walk finds each thing that a dispatcher could do wrong. The
// first half makes the dispatcher's policy differ from the declared one by a
// line, the second changes what the dispatcher does.
func TestWalkFinds(t *testing.T) {
	drop := func(d *fortest.Policy, phase int, name string) {
		d.Phases[phase].Permits = slices.DeleteFunc(d.Phases[phase].Permits, func(p fortest.Permit) bool { return p.Op.Name == name })
	}
	op := func(d *fortest.Policy, name string) *fortest.Op {
		return d.Ops[slices.IndexFunc(d.Ops, func(o *fortest.Op) bool { return o.Name == name })]
	}
	// answers replaces what calls of an operation return.
	answers := func(name string, instead func(body []byte, files []*os.File, err error) ([]byte, []*os.File, error)) func(*fortest.Policy) {
		return func(d *fortest.Policy) {
			number := op(d, name).Number
			broken(d, func(s *fortest.Session) *fortest.Session {
				begin := s.Handler.Begin
				s.Handler = beginner(func(p *ipc.Packet) (ipc.Call, error) {
					c, err := begin(p)
					if err != nil || p.Op != number {
						return c, err
					}
					return spoiltCall{c, func(ctx context.Context) ([]byte, []*os.File, error) { return instead(c.Run(ctx)) }}, nil
				})
				return s
			})
		}
	}
	for _, tt := range []struct {
		name  string
		want  string
		spoil func(*fortest.Policy)
	}{
		{"an operation left permitted (OpenSSH 2016)", "then open: ", func(d *fortest.Policy) { drop(d, 2, "open") }},
		{"an operation permitted before its edge", "then knock: ", func(d *fortest.Policy) { drop(d, 0, "knock") }},
		{"an operation not permitted after its edge", "violation of enter in room", func(d *fortest.Policy) {
			d.Phases[1].Permits = append(d.Phases[1].Permits, fortest.Permit{Op: op(d, "enter"), Next: -1})
		}},
		{"an edge that leads elsewhere", "in phase room, and the oracle says attic", func(d *fortest.Policy) { d.Phases[0].Permits[0].Next = 2 }},
		{"a permit that is none", "violation of knock in room", func(d *fortest.Policy) {
			d.Phases[1].Permits = append(d.Phases[1].Permits, fortest.Permit{Op: op(d, "knock"), Next: 2})
		}},
		{"a budget of one more", "then open: reply", func(d *fortest.Policy) { op(d, "open").Calls-- }},
		{"a budget of one fewer", "called too often", func(d *fortest.Policy) { op(d, "open").Calls++ }},
		{"a budget beyond the depth of the walk", "knock", func(d *fortest.Policy) { op(d, "knock").Calls++ }},
		{"no budget (vsftpd counts tries in the worker)", "are spent, and the oracle says", func(d *fortest.Policy) {
			broken(d, func(s *fortest.Session) *fortest.Session {
				s.Used = func(*fortest.Op) int { return 0 }
				return s
			})
		}},
		{"a phase that is never left", "in phase porch, and the oracle says room", func(d *fortest.Policy) {
			broken(d, func(s *fortest.Session) *fortest.Session {
				s.Phase = func() int { return 0 }
				return s
			})
		}},
		{"a refusal that is a reply", "a reply of bad form, and the oracle says refusal EACCES", answers("enter",
			func(body []byte, files []*os.File, err error) ([]byte, []*os.File, error) {
				if errno, ok := err.(syscall.Errno); ok && errno == syscall.EACCES {
					return []byte{0x80}, nil, nil
				}
				return body, files, err
			})},
		{"an answer of bad form", "a reply of bad form", answers("knock",
			func(body []byte, files []*os.File, err error) ([]byte, []*os.File, error) {
				return []byte{0x81}, files, err
			})},
		{"a violation that is a refusal", "refusal", answers("open",
			func(body []byte, files []*os.File, err error) ([]byte, []*os.File, error) {
				if errors.As(err, new(*privsep.ViolationError)) {
					err = syscall.EACCES
				}
				return body, files, err
			})},
		{"a violation whose operation goes unnamed", "violation: ", answers("open",
			func(body []byte, files []*os.File, err error) ([]byte, []*os.File, error) {
				if v := (*privsep.ViolationError)(nil); errors.As(err, &v) {
					err = &privsep.ViolationError{Reason: v.Reason}
				}
				return body, files, err
			})},
		{"a handler that does not run", "0 calls of knock are spent", func(d *fortest.Policy) {
			broken(d, func(s *fortest.Session) *fortest.Session {
				begin := s.Handler.Begin
				s.Handler = beginner(func(p *ipc.Packet) (ipc.Call, error) {
					c, err := begin(p)
					if err != nil || p.Op != op(d, "knock").Number {
						return c, err
					}
					return spoiltCall{c, func(context.Context) ([]byte, []*os.File, error) { c.Drop(); return []byte{0x80}, nil, nil }}, nil
				})
				return s
			})
		}},
		{"a body with a byte too many", "with a byte too many", func(d *fortest.Policy) {
			broken(d, func(s *fortest.Session) *fortest.Session {
				begin := s.Handler.Begin
				s.Handler = beginner(func(p *ipc.Packet) (ipc.Call, error) {
					p.Body = []byte(strings.TrimSuffix(string(p.Body), "\xc0"))
					return begin(p)
				})
				return s
			})
		}},
		{"the state of a phase that is over (CVE-2015-6564)", "has the state of another phase", func(d *fortest.Policy) {
			serve := d.Serve
			d.Serve = func(o fortest.Options) fortest.Begin {
				perform := o.Perform
				var old any
				o.Perform = func(ctx context.Context, c fortest.Call) (any, any, error) {
					if old == nil {
						old = c.State
					}
					c.State = old
					return perform(ctx, c)
				}
				return serve(o)
			}
		}},
		{"a descriptor that is not closed", "left behind: descriptors", func(d *fortest.Policy) {
			leaked := false
			broken(d, func(s *fortest.Session) *fortest.Session {
				begin := s.Handler.Begin
				s.Handler = beginner(func(p *ipc.Packet) (ipc.Call, error) {
					if len(p.Files) > 0 && !leaked {
						leaked = true
						if f, err := duplicate(p.Files[0]); err == nil {
							t.Cleanup(func() { f.Close() })
						}
					}
					return begin(p)
				})
				return s
			})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, _, _ := newHouse()
			d := describe(p)
			tt.spoil(d)
			said := failures(t, func(tb testing.TB) { walk(tb, d, nil) })
			if len(said) == 0 {
				t.Fatal("the walk found nothing")
			}
			if !strings.Contains(strings.Join(said, "\n"), tt.want) {
				t.Errorf("the walk says\n%s\nwant %s", strings.Join(said, "\n"), tt.want)
			}
		})
	}
}

type odd struct {
	Word string `privsep:"max=8"`
}

func (o *odd) Check() error {
	if o.Word != "xyzzy" {
		return errors.New("not the word")
	}
	return nil
}

// What no candidate fits is asked for, and taken.
func TestWalkAsksForARequest(t *testing.T) {
	p := new(privsep.Policy)
	ph := privsep.NewPhase(p, "cave", func(*porch) privsep.Launch { return privsep.Launch{} })
	privsep.Permit(ph, privsep.Op[odd, nothing]{Name: "magic", Calls: 2}, func(*porch, context.Context, odd) (nothing, error) { return nothing{}, nil })
	said := failures(t, func(tb testing.TB) { Walk(tb, p) })
	if len(said) != 1 || !strings.Contains(said[0], "operation magic") || !strings.Contains(said[0], "privseptest.odd{...}") {
		t.Errorf("got %q", said)
	}
	said = failures(t, func(tb testing.TB) { Walk(tb, p, odd{"plugh"}) })
	if len(said) != 1 || !strings.Contains(said[0], "refuses the privseptest.odd that was given") {
		t.Errorf("got %q", said)
	}
	Walk(t, p, odd{"xyzzy"})
	Walk(t, p, &odd{"xyzzy"})
}

// The odometer reaches every combination once, and ends.
func TestCandidates(t *testing.T) {
	var v struct {
		A bool
		B int8
		C uint32
		D string   `privsep:"max=64"`
		E []string `privsep:"max=2,each=64"`
		F []byte   `privsep:"max=64"`
	}
	seen := make(map[string]int)
	n := 0
	plan, err := ipc.PlanOf(reflect.TypeOf(v))
	if err != nil {
		t.Fatal(err)
	}
	for r := reflect.ValueOf(&v).Elem(); ; n++ {
		body, _, err := plan.Encode(nil, r.Addr().Interface())
		if err != nil {
			t.Fatal(err)
		}
		seen[string(body)]++
		if !advance(r) {
			break
		}
	}
	want := 2 * 5 * (len(numbers) + 1) * (len(words) + 1) * (len(words) + 2) * 5
	if n+1 != want || len(seen) != want {
		t.Errorf("%d candidates, %d different, want %d", n+1, len(seen), want)
	}
}
