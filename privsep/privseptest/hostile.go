package privseptest

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// Hostile attacks a phase of a daemon's policy on the wire, as a worker that has
// been taken over can: with what is not permitted, over budget, out of order,
// truncated at each byte, changed at each byte, with too much or too little in
// it, with the wrong descriptors, with floods, silence and death. Each attack is
// a subtest, which logs why it is one. It must end as is stated for it: in a
// violation that names phase, operation and reason, in a refusal, or in
// nothing at all. After each the process must have the descriptors and
// goroutines that it had before, and an honest session beside it goes on.
//
// What is malformed meets the policy with handlers of the kit's, and must reach
// none. At the end the daemon's own handlers are called, with lawful requests
// that are cancelled, late, or whose caller dies: each must return. state makes
// the phase's state for one session of these, and what releases it when the
// session is over, or nil; it is called many times.
//
// requests are as for [Walk]. No worker is started, so a phase behind the one
// that is attacked is never served.
func Hostile[S any](t *testing.T, ph *privsep.Phase[S], state func() (*S, func()), requests ...any) {
	t.Helper()
	var p fortest.Policy
	ph.ForTest(&p)
	a := newArena(t, &p, requests)
	a.state = func() (any, func()) { return state() }
	for _, x := range a.attacks() {
		t.Run(strings.ReplaceAll(x.name, "/", "|"), func(t *testing.T) {
			t.Log(x.explanation)
			a.run(t, x)
		})
	}
}

// An attack is what a worker does that has been taken over.
type attack struct {
	name        string
	explanation string
	op          *fortest.Op // that the violation names; nil: none
	// want is in the reason of the violation in which the session ends. If it
	// is peace, the session must be alive until the attacker hangs up.
	want  string
	own   bool // the daemon's own handlers
	waits bool // handlers of the kit's wait until they are cancelled
	runs  bool // handlers may run
	do    func(*attacker)
}

const peace = "peace"

// An arena is a phase under attack.
type arena struct {
	policy  *fortest.Policy
	phase   *fortest.Phase
	objects *objects
	samples map[*fortest.Op]sample
	state   func() (any, func())
	stubs   fortest.Begin // handlers that reply
	waiting fortest.Begin // handlers that wait for the end of their context
	own     fortest.Begin // the daemon's
	ran     atomic.Int64  // handlers of the kit's
	canary  *attacker     // an honest session
}

func newArena(t testing.TB, p *fortest.Policy, requests []any) *arena {
	t.Helper()
	a := &arena{policy: p, phase: &p.Phases[p.Phase], objects: newObjects(t)}
	a.samples = samples(t, p, a.objects, requests)
	w := &walker{TB: t, policy: p, objects: a.objects}
	reply := func(op int) any { return w.reply(p.Ops[op], true) }
	a.stubs = p.Serve(fortest.Options{Bare: true, Perform: func(_ context.Context, c fortest.Call) (any, any, error) {
		a.ran.Add(1)
		return reply(c.Op), nil, nil
	}})
	a.waiting = p.Serve(fortest.Options{Bare: true, Perform: func(ctx context.Context, c fortest.Call) (any, any, error) {
		a.ran.Add(1)
		<-ctx.Done()
		return reply(c.Op), nil, ctx.Err()
	}})
	a.own = p.Serve(fortest.Options{})
	a.canary = a.open(t, a.stubs(p.Phase, nil))
	t.Cleanup(func() { _ = a.canary.hangUp() })
	a.ping(t) // all of its goroutines are there, before any are counted
	return a
}

// An attacker has one channel to the dispatcher.
type attacker struct {
	testing.TB
	*arena
	conn    *wire
	served  *ipc.Conn
	session *fortest.Session
	ended   chan error
	number  uint32 // of the last call
	before  int64  // handlers of the kit's that had run
}

// open begins a session.
func (a *arena) open(t testing.TB, session *fortest.Session) *attacker {
	t.Helper()
	conn, theirs := newWire(t)
	served, err := ipc.NewConn(theirs, ipc.NewBuffers(a.policy.Size))
	if err != nil {
		t.Fatal(err)
	}
	x := &attacker{TB: t, arena: a, conn: conn, served: served, session: session, ended: make(chan error, 1), before: a.ran.Load()}
	go func() {
		err := session.Ended(ipc.Serve(context.Background(), served, session))
		served.Close() // as a monitor does, which kills first
		x.ended <- err
	}()
	return x
}

// hangUp closes the channel and waits until nothing is left of the session.
func (x *attacker) hangUp() error {
	x.conn.close()
	select {
	case err := <-x.ended:
		return err
	case <-time.After(patience):
		x.Errorf("%v after its worker was gone the session goes on: does a handler not look at its context?", patience)
		return nil
	}
}

// run makes one attack and judges how it ends.
func (a *arena) run(t testing.TB, attack attack) {
	t.Helper()
	before, ran := testenv.UsageNow(t), a.ran.Load()
	begin, state, done := a.stubs, any(nil), func() {}
	switch {
	case attack.own:
		begin = a.own
		if s, release := a.state(); release != nil {
			state, done = s, release
		} else {
			state = s
		}
	case attack.waits:
		begin = a.waiting
	}
	bytes := allocated()
	x := a.open(t, begin(a.policy.Phase, state))
	func() {
		defer x.conn.close()
		attack.do(x)
		if attack.want == peace {
			return
		}
		select {
		case err := <-x.ended:
			x.ended <- err
		case <-time.After(patience):
			t.Errorf("the session goes on, want a violation: %s", attack.want)
		}
	}()
	a.judge(t, attack, x.hangUp())
	done()
	if n := a.ran.Load() - ran; n > 0 && !attack.runs {
		t.Errorf("%d handlers ran", n)
	}
	if n := allocated() - bytes; n > 4<<20 && !attack.runs && !attack.own {
		t.Errorf("it cost %d bytes of memory", n)
	}
	before.Settled(t)
	a.ping(t)
}

// judge compares a session's end with what was stated.
func (a *arena) judge(t testing.TB, attack attack, err error) {
	t.Helper()
	var violation *privsep.ViolationError
	switch {
	case attack.want == peace:
		if err != nil {
			t.Errorf("the session ended with %v, want none", err)
		}
	case !errors.As(err, &violation):
		t.Errorf("the session ended with %v, want a violation: %s", err, attack.want)
	case violation.Phase != a.phase.Name, attack.op == nil && violation.Op != "", attack.op != nil && violation.Op != attack.op.Name,
		!strings.Contains(violation.Reason, attack.want):
		t.Errorf("got phase %s, op %q, reason %q, want %s, %q, %q", violation.Phase, violation.Op, violation.Reason,
			a.phase.Name, nameOf(attack.op), attack.want)
	}
}

func nameOf(op *fortest.Op) string {
	if op == nil {
		return ""
	}
	return op.Name
}

// ping makes a call in the honest session beside the attack, or in a new one
// when it has spent its budget.
func (a *arena) ping(t testing.TB) {
	t.Helper()
	if len(a.phase.Permits) == 0 {
		return
	}
	c, op := a.canary, a.phase.Permits[0].Op
	if op.Calls >= 0 && int(c.number) >= op.Calls {
		if err := c.hangUp(); err != nil {
			t.Errorf("the honest session beside it ended with %v", err)
		}
		*c = *a.open(c.TB, a.stubs(a.policy.Phase, nil))
	}
	if err := c.call(op); err != nil {
		t.Errorf("the honest session beside it: %v", err)
	}
	if got, err := c.conn.get(patience); err != nil || got.verdict() != "reply" || got.call != c.number {
		t.Errorf("the honest session beside it got %v to call %d (%v)", got.verdict(), got.call, err)
	}
}

// good is a frame of the next call of op, lawful as far as form goes.
func (x *attacker) good(op *fortest.Op) frame {
	return frame{
		kind: request, files: byte(len(op.Request.Files())), call: x.number + 1, value: 60_000, op: op.Number,
		body: x.samples[op].body,
	}
}

// put sends a frame with the descriptors that op declares. That the other side
// is gone already is no failure: it had reason.
func (x *attacker) put(op *fortest.Op, f frame) error {
	files, err := x.objects.of(op.Request.Files()...)
	if err != nil {
		x.Fatal(err)
	}
	defer closeAll(files)
	return x.conn.send(f, files...)
}

// call makes a lawful call.
func (x *attacker) call(op *fortest.Op) error {
	err := x.put(op, x.good(op))
	x.number++
	return err
}

// allocated returns how many bytes this process has allocated so far. Large
// objects, which are what a claim would make, are counted at once.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// isFile reports whether the operation's requests bring files.
func isFile(op *fortest.Op) bool { return len(op.Request.Files()) > 0 }

// hasFields reports whether they have fields on the wire.
func hasFields(op *fortest.Op) bool { return op.RequestType.NumField() > len(op.Request.Files()) }

// attacks are all that can be derived.
func (a *arena) attacks() (all []attack) {
	ops := make([]*fortest.Op, 0, len(a.phase.Permits))
	for _, p := range a.phase.Permits {
		ops = append(ops, p.Op)
	}
	any := a.policy.Ops[0]
	if len(ops) > 0 {
		any = ops[0]
	}
	all = append(all, a.packetAttacks(any)...)
	all = append(all, a.policyAttacks(ops)...)
	all = append(all, a.fileAttacks(ops, any)...)
	for _, op := range ops {
		all = append(all, a.bodyAttacks(op)...)
	}
	if len(ops) > 0 {
		all = append(all, a.flowAttacks(ops)...)
	}
	names := make(map[string]bool)
	for _, x := range all {
		if names[x.name] {
			panic(fmt.Sprintf("privseptest: BUG: two attacks are called %s", x.name))
		}
		names[x.name] = true
	}
	return all
}
