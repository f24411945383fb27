package privseptest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// depth is how long the sequences are of which Walk tries all.
const depth = 6

// What a handler does with a call. The zero outcome is none.
type outcome int

const (
	replies    outcome = iota + 1
	refuses            // an errno
	fails              // any other error: EIO to the worker
	careless           // an errno, beside a state that must count for nothing
	unsendable         // a reply without its files: EIO to the worker, and no advance
	moves              // a reply, and the next phase's state
	violates           // finds a violation
	panics
)

var outcomes = [...]string{
	replies: "replies", refuses: "refuses", fails: "fails", careless: "refuses with a state",
	unsendable: "replies what can't be sent", moves: "advances",
	violates: "finds a violation", panics: "panics",
}

// answers are what the worker hears of each that does not end the session.
var answers = [...]string{
	replies: "reply", moves: "reply", refuses: "refusal EACCES", careless: "refusal EACCES",
	fails: "refusal EIO", unsendable: "refusal EIO", violates: "", panics: "",
}

// A step is a call and what its handler does.
type step struct {
	op int // index
	do outcome
}

// A token is the state of a phase in a walk.
type token struct{ phase int }

var errFailed = errors.New("some trouble of the handler's own")

// A walker makes calls on dispatchers of one policy.
type walker struct {
	testing.TB
	policy  *fortest.Policy
	objects *objects
	samples map[*fortest.Op]sample
	begin   fortest.Begin
	budget  int // of lawful calls

	do      outcome // of the next handler
	state   any     // that the next handler must have
	handled int     // handlers that ran
	op      int     // of the last

	calls int // made
	runs  int
	wrong int
}

// Walk makes every sequence of calls that a session can make, six calls long,
// on the policy's real dispatcher, with each thing that a handler can do: reply,
// refuse, fail, advance, advance in spite of an error. After each call it
// compares the verdict, the phase, the state that the handler had and what is
// left of each budget with an oracle of some forty lines. Wherever a sequence
// passes it also makes each call that is not lawful there, one with a body of
// bad form and one of no operation, which must be violations, reach no handler
// and change nothing.
//
// The daemon's own handlers do not run: nothing of the daemon needs to be
// there, and no privilege. What is walked is the policy as the monitor holds it
// in memory, so a change of one line in its declaration is judged whole.
//
// If a policy has so many operations that all sequences are too many, what
// handlers of operations that don't advance do is no longer tried in each
// combination, and then sequences get shorter; Walk logs what it did. Longer
// ones are tried at random, and a part of all once more over a socket.
//
// requests are examples, by type, for operations for which Walk finds no
// request that Check accepts. It says so when it needs one.
func Walk(t testing.TB, policy *privsep.Policy, requests ...any) {
	t.Helper()
	var p fortest.Policy
	policy.ForTest(&p)
	walk(t, &p, requests)
}

func walk(t testing.TB, p *fortest.Policy, requests []any) {
	t.Helper()
	o := newObjects(t)
	w := &walker{TB: t, policy: p, objects: o, samples: samples(t, p, o, requests), budget: 400_000}
	if testing.Short() {
		w.budget /= 10
	}
	w.begin = p.Serve(fortest.Options{Perform: w.perform, Bare: true})
	before := testenv.UsageNow(t)
	start := &oracle{policy: p, phase: 0}
	long, all := depth, true
	for n := w.count(start, long, all); n > w.budget; n = w.count(start, long, all) {
		if all {
			all = false
		} else {
			long--
		}
	}
	w.state = &token{0}
	w.visit(w.begin(0, w.state), w.state, start, nil, long, all)
	w.Logf("%d operations, %d phases: all %d sequences of %d calls (%t: with all that handlers can do), %d calls",
		len(p.Ops), len(p.Phases), w.runs, long, all, w.calls)
	w.wander(start)
	if w.wrong == 0 {
		w.overSocket(start)
	}
	before.Settled(t)
}

// steps are those that are lawful now.
func (w *walker) steps(o *oracle, all bool) (steps []step) {
	for op := range w.policy.Ops {
		if ok, _ := o.lawful(op); !ok {
			continue
		}
		switch {
		case o.permit(op).Next >= 0:
			for _, do := range []outcome{replies, refuses, fails, careless, moves} {
				steps = append(steps, step{op, do})
			}
			if len(w.policy.Ops[op].Reply.Files()) > 0 {
				steps = append(steps, step{op, unsendable})
			}
		case all:
			for _, do := range []outcome{replies, refuses, fails} {
				steps = append(steps, step{op, do})
			}
		default:
			turn := outcome((op + len(o.called)) % 3)
			steps = append(steps, step{op, replies + turn})
		}
	}
	return steps
}

// count returns how many calls visit makes, or something above the budget.
func (w *walker) count(o *oracle, long int, all bool) int {
	n := 1
	if len(o.called) == long {
		return n
	}
	for _, s := range w.steps(o, all) {
		if n += w.count(o.after(s), long, all); n > w.budget {
			break
		}
	}
	return n
}

// visit makes all sequences that go on from a session, where path has led. It
// tries what is not lawful there, too.
func (w *walker) visit(session *fortest.Session, state any, o *oracle, path []step, long int, all bool) {
	w.unlawful(session, o, path)
	steps := w.steps(o, all)
	if len(path) == long || len(steps) == 0 {
		w.runs++
		w.state = state
		w.endings(session, o, path)
		return
	}
	for _, s := range steps {
		if w.wrong >= 10 {
			return
		}
		fork, path := session.Fork(), append(path, s)
		w.state = state
		w.make(fork, o, s, path)
		w.visit(fork, w.state, o.after(s), path, long, all)
	}
}

// run makes one sequence, in a session of its own.
func (w *walker) run(path []step) {
	w.state = &token{0}
	session := w.begin(0, w.state)
	o := &oracle{policy: w.policy}
	for i, s := range path {
		w.make(session, o, s, path[:i+1])
		o = o.after(s)
		w.compare(session, o, path[:i+1])
	}
	w.unlawful(session, o, path)
}

// make makes one lawful call and compares what comes of it.
func (w *walker) make(session *fortest.Session, o *oracle, s step, path []step) {
	want, place := answers[s.do], w.policy.Ops[s.op].Name+" in "+w.policy.Phases[o.phase].Name
	switch s.do {
	case violates:
		want = "violation of " + place + ": by the handler"
	case panics:
		want = "panic of " + place
	}
	w.do, w.handled = s.do, 0
	got := w.call(session, w.policy.Ops[s.op], w.samples[w.policy.Ops[s.op]].body)
	if got != want {
		w.mismatch(path, "%s, and the oracle says %s", got, want)
	} else if w.handled != 1 || w.op != s.op {
		w.mismatch(path, "%d handlers ran, the last that of %s", w.handled, w.policy.Ops[w.op].Name)
	}
}

// unlawful makes the calls that no honest worker makes here: each operation that
// is not permitted or spent, by turns one whose body is of bad form, and one of
// no operation.
func (w *walker) unlawful(session *fortest.Session, o *oracle, path []step) {
	w.compare(session, o, path)
	try := func(what, want string, op *fortest.Op, body []byte) {
		w.do, w.handled = replies, 0
		if got := w.call(session, op, body); got != want || w.handled > 0 {
			w.mismatch(path, "then %s: %s (%d handlers ran), and the oracle says %s", what, got, w.handled, want)
		}
		w.compare(session, o, path)
	}
	for i, op := range w.policy.Ops {
		if ok, why := o.lawful(i); !ok {
			want := fmt.Sprintf("violation of %s in %s: %s", op.Name, w.policy.Phases[o.phase].Name, why)
			try(op.Name, want, op, w.samples[op].body)
		}
	}
	if len(path) == depth {
		return // there are many such places, and form is the same in all
	}
	op := w.policy.Ops[w.calls%len(w.policy.Ops)]
	body := w.samples[op].body
	try(op.Name+" with a byte too many", "violation of "+op.Name+": form", op, append(body[:len(body):len(body)], 0xc0))
	try("no operation", "violation: unknown operation", &fortest.Op{Number: w.unused(), Request: op.Request}, body)
}

// unused is the number of no operation.
func (w *walker) unused() uint32 {
	for n := uint32(1); ; n++ {
		used := false
		for _, op := range w.policy.Ops {
			used = used || op.Number == n
		}
		if !used {
			return n
		}
	}
}

// endings are what a handler can do to end a session. One of them, by turns.
func (w *walker) endings(session *fortest.Session, o *oracle, path []step) {
	const seldom = 64 // a panic's stack takes as long as ten calls
	steps := w.steps(o, false)
	if len(steps) == 0 || w.runs%seldom > 1 {
		return
	}
	s := step{steps[w.runs/seldom%len(steps)].op, violates + outcome(w.runs%seldom)}
	w.make(session, o, s, append(path[:len(path):len(path)], s))
}

// compare compares a session at rest with the oracle.
func (w *walker) compare(session *fortest.Session, o *oracle, path []step) {
	if got := session.Phase(); got != o.phase {
		w.mismatch(path, "in phase %s, and the oracle says %s", w.policy.Phases[got].Name, w.policy.Phases[o.phase].Name)
	}
	for i, op := range w.policy.Ops {
		if want := o.spent(i); op.Calls >= 0 && session.Used(op) != want {
			w.mismatch(path, "%d calls of %s are spent, and the oracle says %d", session.Used(op), op.Name, want)
		}
	}
}

// call does what ipc.Serve does with a packet, and says what came of it.
func (w *walker) call(session *fortest.Session, op *fortest.Op, body []byte) string {
	w.calls++
	files, err := w.objects.of(op.Request.Files()...)
	if err != nil {
		w.Fatal(err)
	}
	p := &ipc.Packet{Type: ipc.Request, Op: op.Number, Body: body, Files: files}
	call, err := session.Begin(p)
	if err != nil {
		p.CloseFiles()
		return verdictOf(err)
	}
	call.Start()
	reply, files, err := call.Run(context.Background())
	closeAll(files)
	if err == nil && op.Reply.Scan(reply) != nil {
		return "a reply of bad form"
	}
	return verdictOf(err)
}

// wander makes longer sequences at random, so that budgets of more calls than
// a walk has steps end, too.
func (w *walker) wander(start *oracle) {
	r := rand.New(rand.NewPCG(1, 2))
	for range w.budget / 4_000 {
		o, path := start, []step(nil)
		for range 60 {
			steps := w.steps(o, true)
			if len(steps) == 0 {
				break
			}
			s := steps[r.IntN(len(steps))]
			if s.do == moves && r.IntN(4) > 0 {
				continue // or none would stay long in the first phase
			}
			path, o = append(path, s), o.after(s)
		}
		w.run(path)
	}
}

// mismatch reports where dispatcher and oracle part.
func (w *walker) mismatch(path []step, format string, args ...any) {
	w.Helper()
	if w.wrong++; w.wrong > 10 {
		return
	}
	var b strings.Builder
	for _, s := range path {
		fmt.Fprintf(&b, "%s (%s), ", w.policy.Ops[s.op].Name, outcomes[s.do])
	}
	w.Errorf("after %s"+format, append([]any{b.String()}, args...)...)
}
