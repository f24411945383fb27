package privsep

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"text/tabwriter"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/ipc"
)

// A Policy is what workers may ask and when: phases, and in each the
// operations that are permitted. It is declared once, at start, and is the
// same on every host; the zero Policy permits nothing. Whatever is wrong with
// a declaration panics where it is made, naming the operation and the remedy.
//
// Printing a Policy gives one line a permit. Keep that as a golden file in
// the daemon's tests: a change of who may ask what then shows in review.
//
// With the first session the whole is judged, too: each phase can be reached, no
// operation is permitted where its Calls are spent for certain, and none runs
// behind an edge with a capability that it did not have before it. Sessions only
// go forward, so there is no cycle. What a worker keeps only its launch can say,
// and a launch is of a new process: a phase without one gives the worker more to
// ask and nothing to have.
type Policy struct {
	phases []*phase
	ops    map[uint32]*operation
	size   int // of the largest request, and at least defaultSize
	frozen atomic.Bool
}

// A Phase is a stage of a session. S is what the monitor knows of a session in
// this phase; handlers have it as their receiver. Different phases have
// different types, so that a handler cannot be attached where it does not
// belong, and a session that never reached a phase has no value of its type.
type Phase[S any] struct{ *phase }

type phase struct {
	policy  *Policy
	index   int
	name    string
	state   reflect.Type
	launch  func(state any) Launch // nil: the worker goes on
	beside  []beside               // further workers
	permits map[uint32]*permit
	order   []*permit
	reached bool
}

// A beside is a worker that is started on entry, or when it is first needed.
type beside struct {
	launch   func(state any) Launch
	onDemand bool
}

// A permit is "this op may be called in this phase".
type permit struct {
	op      *operation
	caps    caps.Set
	next    *phase // where the op may lead; nil: nowhere
	perform func(ctx context.Context, state, request any) (reply, next any, err error)
}

// NewPhase adds a phase to a policy. The first is where sessions begin.
// launch gives the worker that serves the phase, which replaces the one
// before; nil: the same worker goes on, confined as it is.
func NewPhase[S any](p *Policy, name string, launch func(*S) Launch) *Phase[S] {
	p.mutable("phase " + name)
	ph := &phase{policy: p, index: len(p.phases), name: name, state: reflect.TypeFor[S](), permits: make(map[uint32]*permit)}
	for _, other := range p.phases {
		if other.name == name || other.state == ph.state {
			panic(fmt.Sprintf("privsep: phase %s (of %v): phase %s has the same name or state type: the type is what proves the phase",
				name, ph.state, other.name))
		}
	}
	if name == "" || strings.ContainsAny(name, " \t\n") {
		panic(fmt.Sprintf("privsep: phase %q: a name is one word", name))
	}
	if launch != nil {
		ph.launch = func(state any) Launch { return launch(state.(*S)) }
	} else if ph.index == 0 {
		panic("privsep: phase " + name + ": the first phase needs a launch: no worker is there to go on")
	}
	ph.reached = ph.index == 0
	p.phases = append(p.phases, ph)
	return &Phase[S]{ph}
}

// Beside starts a further worker whenever a session enters the phase. It ends
// with the session, and the session with it unless its Main returned nil. It may
// ask the monitor nothing.
func Beside[S any](ph *Phase[S], launch func(*S) Launch) {
	ph.startBeside(func(state any) Launch { return launch(state.(*S)) }, false)
}

// OnDemand is [Beside] for a worker that may never be needed. What launch returns
// when the session enters the phase is started when something was first sent
// to the first of its files, an end of an [ipc.Pair], whose other end the worker
// that asks got in a reply: what it sent is there when the new one reads. If that
// end is closed before, nothing is started. Whoever holds it waits meanwhile, and
// finds it closed if the start fails, which is the end of the session.
func OnDemand[S any](ph *Phase[S], launch func(*S) Launch) {
	ph.startBeside(func(state any) Launch { return launch(state.(*S)) }, true)
}

func (ph *phase) startBeside(launch func(state any) Launch, onDemand bool) {
	ph.policy.mutable("phase " + ph.name)
	ph.beside = append(ph.beside, beside{launch, onDemand})
}

// Permit lets workers call op in the phase. handler runs with just the named
// capabilities effective; without a name it runs with none, once the monitor is
// confined ([Monitor.Confine]), and before with all that the process has. It owns
// no file of the request after it returned, and gives up the files of its reply.
//
// An error of the handler that holds a [syscall.Errno] is a refusal: the
// number, and nothing else, goes to the worker. Any other error is the
// monitor's own trouble: EIO to the worker, the text to the monitor's log.
func Permit[S, Request, Reply any](ph *Phase[S], op Op[Request, Reply],
	handler func(*S, context.Context, Request) (Reply, error), with ...caps.Cap) {
	ph.permit(handler != nil, &permit{
		op:   ph.policy.register(op.operation()),
		caps: caps.Of(with...),
		perform: func(ctx context.Context, state, request any) (any, any, error) {
			reply, err := handler(state.(*S), ctx, *request.(*Request))
			return &reply, nil, err
		},
	})
}

// Advance is Permit for an operation that may move the session to another
// phase, declared after this one: handler returns that phase's state, or nil
// to stay. It is the only way to get there. The call runs alone: what was
// sent before has ended, what was sent after is judged in the new phase.
//
// A handler that fails stays, whatever state it returned.
func Advance[S, T, Request, Reply any](from *Phase[S], op Op[Request, Reply], to *Phase[T],
	handler func(*S, context.Context, Request) (Reply, *T, error), with ...caps.Cap) {
	if to.policy != from.policy || to.index <= from.index {
		panic(fmt.Sprintf("privsep: operation %s: a session only goes forward: declare phase %s after %s, in one policy",
			op.Name, to.name, from.name))
	}
	to.reached = true
	from.permit(handler != nil, &permit{
		op:   from.policy.register(op.operation()),
		caps: caps.Of(with...),
		next: to.phase,
		perform: func(ctx context.Context, state, request any) (any, any, error) {
			reply, next, err := handler(state.(*S), ctx, *request.(*Request))
			if err != nil || next == nil {
				return &reply, nil, err // an untyped nil, not a nil *T
			}
			return &reply, next, nil
		},
	})
}

func (ph *phase) permit(handled bool, p *permit) {
	if !handled {
		panic(fmt.Sprintf("privsep: operation %s: phase %s permits it with a nil handler: give it one", p.op.name, ph.name))
	}
	if ph.permits[p.op.number] != nil {
		panic(fmt.Sprintf("privsep: operation %s is permitted twice in phase %s", p.op.name, ph.name))
	}
	if p.next != nil && p.op.parallel {
		panic(fmt.Sprintf("privsep: operation %s: one that advances can't be Parallel", p.op.name))
	}
	ph.permits[p.op.number] = p
	ph.order = append(ph.order, p)
}

// register returns the policy's operation of that name.
func (p *Policy) register(op *operation) *operation {
	p.mutable("operation " + op.name)
	if p.ops == nil {
		p.ops = make(map[uint32]*operation)
	}
	old := p.ops[op.number]
	if old == nil {
		p.ops[op.number] = op
		p.size = max(p.size, op.request.MaxSize(), defaultSize)
		return op
	}
	op.request, op.reply = old.request, old.reply
	if *old != *op {
		panic(fmt.Sprintf("privsep: operation %s: %s has the same name or number and other types or limits: rename one",
			op.name, old.name))
	}
	return old
}

func (p *Policy) mutable(what string) {
	if p.frozen.Load() {
		panic("privsep: " + what + ": the policy is in use: declare everything before the first session")
	}
}

// freeze ends the declarations and panics if the whole makes no sense.
func (p *Policy) freeze() {
	if p.frozen.Load() {
		return
	}
	if len(p.phases) == 0 {
		panic("privsep: a policy needs a phase")
	}
	for _, ph := range p.phases {
		if !ph.reached {
			panic("privsep: phase " + ph.name + ": no Advance leads here")
		}
	}
	for _, op := range p.ops {
		p.prove(op)
	}
	p.frozen.Store(true)
}

// prove panics if a permit of op can't be used, or widens it. Phases are in an
// order in which a session passes them: Advance sees to it, so no cycle is.
func (p *Policy) prove(op *operation) {
	const never = math.MaxInt
	spent := make([]int, len(p.phases)) // the fewest calls of op on a way to the phase
	before := make([][]*phase, len(p.phases))
	for i := range spent[1:] {
		spent[1+i] = never
	}
	for i, ph := range p.phases {
		here := ph.permits[op.number]
		if here != nil && op.calls != Unlimited && spent[i] >= op.calls {
			panic(fmt.Sprintf("privsep: operation %s: no session comes to phase %s with a call of it left: raise its Calls (%d), or remove the permit",
				op.name, ph.name, op.calls))
		}
		for _, was := range before[i] {
			if more := here.more(was.permits[op.number]); !more.Empty() {
				panic(fmt.Sprintf("privsep: operation %s: phase %s permits it with %v, which phase %s before it does not: give what needs more another name",
					op.name, ph.name, more, was.name))
			}
		}
		if here != nil {
			before[i] = []*phase{ph}
		}
		for _, edge := range ph.order {
			if edge.next == nil {
				continue
			}
			to, calls := edge.next.index, spent[i]
			if edge == here {
				calls++
			}
			spent[to] = min(spent[to], calls)
			before[to] = append(before[to], before[i]...)
		}
	}
}

// more is what p's handler runs with and that of a permit before did not.
func (p *permit) more(than *permit) caps.Set {
	if p == nil {
		return caps.Set{}
	}
	return p.caps.Minus(than.caps)
}

// Caps is the union of what the permits' handlers run with.
func (p *Policy) Caps() caps.Set {
	var all caps.Set
	for _, ph := range p.phases {
		for _, permit := range ph.order {
			all = all.Union(permit.caps)
		}
	}
	return all
}

// buffers are for connections on which the policy is served.
func (p *Policy) buffers() *ipc.Buffers { return ipc.NewBuffers(p.size) }

// String prints the policy, one permit a line: phase, op, calls, capabilities,
// next phase, types.
func (p *Policy) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, ph := range p.phases {
		for _, permit := range ph.order {
			calls, set, next := strconv.Itoa(permit.op.calls), permit.caps.String(), "-"
			if permit.op.calls == Unlimited {
				calls = "unlimited"
			}
			if permit.caps.Empty() {
				set = "-"
			}
			if permit.next != nil {
				next = permit.next.name
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%v -> %v\n", ph.name, permit.op.name, calls, set, next,
				permit.op.requestType, permit.op.replyType)
		}
	}
	w.Flush()
	return b.String()
}
