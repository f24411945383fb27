package privseptest

import "github.com/go-privsep/sallyport/privsep/internal/fortest"

// An oracle says what must come of a call. It is slow and obvious, and shares
// with the dispatcher that it judges nothing but the declarations: no map, no
// counter, no pointer to a phase. All that it knows is what was called.
type oracle struct {
	policy *fortest.Policy
	phase  int   // index of the phase in which the session is
	called []int // the operations that were permitted and called, by index
}

// permit returns the line of the policy that permits op now, or nil.
func (o *oracle) permit(op int) *fortest.Permit {
	for i, p := range o.policy.Phases[o.phase].Permits {
		if p.Op == o.policy.Ops[op] {
			return &o.policy.Phases[o.phase].Permits[i]
		}
	}
	return nil
}

// spent counts the calls of op.
func (o *oracle) spent(op int) (n int) {
	for _, c := range o.called {
		if c == op {
			n++
		}
	}
	return n
}

// lawful reports whether op may be called now. If not, a call is a violation
// for the reason why.
func (o *oracle) lawful(op int) (ok bool, why string) {
	calls := o.policy.Ops[op].Calls
	switch {
	case o.permit(op) == nil:
		return false, "not permitted in this phase"
	case calls >= 0 && o.spent(op) >= calls:
		return false, "called too often"
	}
	return true, ""
}

// after is the oracle once a lawful step was made.
func (o *oracle) after(s step) *oracle {
	next := &oracle{o.policy, o.phase, append(o.called[:len(o.called):len(o.called)], s.op)}
	if s.do == moves {
		next.phase = o.permit(s.op).Next
	}
	return next
}
