package privsep

import (
	"context"
	"log/slog"
	"maps"
	"slices"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// ForTest is for package privseptest. Nobody else can name what it takes.
func (ph *phase) ForTest(into *fortest.Policy) {
	ph.policy.ForTest(into)
	into.Phase = ph.index
}

// ForTest is for package privseptest. Nobody else can name what it takes.
func (p *Policy) ForTest(into *fortest.Policy) {
	p.freeze()
	known := make(map[*operation]*fortest.Op)
	*into = fortest.Policy{Size: p.size}
	for _, ph := range p.phases {
		described := fortest.Phase{Name: ph.name, State: ph.state, Launch: ph.launch != nil}
		for _, permit := range ph.order {
			op := permit.op
			if known[op] == nil {
				known[op] = &fortest.Op{
					Name: op.name, Number: op.number, Calls: op.calls, Timeout: op.timeout, Parallel: op.parallel,
					Request: op.request, Reply: op.reply, RequestType: op.requestType, ReplyType: op.replyType,
				}
				into.Ops = append(into.Ops, known[op])
			}
			next := -1
			if permit.next != nil {
				next = permit.next.index
			}
			described.Permits = append(described.Permits, fortest.Permit{Op: known[op], Next: next})
		}
		into.Phases = append(into.Phases, described)
	}
	into.Serve = func(o fortest.Options) fortest.Begin {
		q := p
		if o.Perform != nil {
			q = p.performedBy(o, func(op *operation) int { return slices.Index(into.Ops, known[op]) })
		}
		return func(phase int, state any) *fortest.Session {
			return newDispatcher(q.phases[phase], state, slog.New(slog.DiscardHandler)).forTest()
		}
	}
}

func (d *dispatcher) forTest() *fortest.Session {
	return &fortest.Session{
		Handler: d,
		Phase:   func() int { return d.phase.index },
		Used:    func(op *fortest.Op) int { return d.used[d.policy.ops[op.Number]] },
		Ended:   d.ended,
		Fork: func() *fortest.Session {
			fork := newDispatcher(d.phase, d.state, d.log)
			maps.Copy(fork.used, d.used)
			return fork.forTest()
		},
	}
}

// performedBy returns a copy of p with other handlers.
func (p *Policy) performedBy(o fortest.Options, index func(*operation) int) *Policy {
	q := &Policy{ops: p.ops, size: p.size}
	for _, ph := range p.phases {
		c := *ph
		c.policy, c.permits, c.order = q, make(map[uint32]*permit), nil
		q.phases = append(q.phases, &c)
	}
	for i, ph := range p.phases {
		for _, old := range ph.order {
			c := *old
			if c.next != nil {
				c.next = q.phases[c.next.index]
			}
			if o.Bare {
				c.caps = caps.Set{}
			}
			op := index(c.op)
			c.perform = func(ctx context.Context, state, request any) (any, any, error) {
				return o.Perform(ctx, fortest.Call{Phase: i, Op: op, State: state, Request: request,
					Handler: func() (any, any, error) { return old.perform(ctx, state, request) }})
			}
			q.phases[i].permits[c.op.number], q.phases[i].order = &c, append(q.phases[i].order, &c)
		}
	}
	return q
}
