package privseptest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"syscall"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// verdictOf names what a dispatcher returned.
func verdictOf(err error) string {
	var violation *privsep.ViolationError
	var panicked *privsep.PanicError
	errno, refused := err.(syscall.Errno)
	switch {
	case err == nil:
		return "reply"
	case refused:
		return "refusal " + map[syscall.Errno]string{syscall.EACCES: "EACCES", syscall.EIO: "EIO"}[errno]
	case errors.As(err, &panicked):
		return "panic of " + panicked.Op + " in " + panicked.Phase
	case errors.As(err, &violation) && violation.Op == "":
		return "violation: " + violation.Reason
	case errors.As(err, &violation) && violation.Phase == "":
		return "violation of " + violation.Op + ": form"
	case errors.As(err, &violation):
		return "violation of " + violation.Op + " in " + violation.Phase + ": " + violation.Reason
	}
	return "error " + err.Error()
}

// perform is every handler of a walk.
func (w *walker) perform(_ context.Context, c fortest.Call) (reply, next any, err error) {
	w.handled++
	w.op = c.Op
	op := w.policy.Ops[c.Op]
	if c.State != w.state || w.state.(*token).phase != c.Phase {
		w.Errorf("the handler of %s in phase %s has the state of another phase or session", op.Name, w.policy.Phases[c.Phase].Name)
	}
	next = &token{w.next(c)} // counts for nothing but where the outcome is moves
	switch w.do {
	case moves:
		if w.next(c) >= 0 { // else a script's outcomes are shifted by a packet that the oracle did not foresee
			w.state = next
		}
	case replies:
		if w.next(c) >= 0 {
			next = nil
		}
	case refuses:
		return w.reply(op, false), nil, fmt.Errorf("no: %w", syscall.EACCES)
	case careless:
		return w.reply(op, true), next, fmt.Errorf("no: %w", syscall.EACCES)
	case fails:
		return w.reply(op, true), nil, errFailed
	case unsendable:
		return w.reply(op, false), next, nil
	case violates:
		return w.reply(op, true), next, privsep.Violation("by the handler")
	case panics:
		panic("by the handler")
	}
	return w.reply(op, true), next, nil
}

func (w *walker) next(c fortest.Call) int {
	for _, p := range w.policy.Phases[c.Phase].Permits {
		if p.Op == w.policy.Ops[c.Op] {
			return p.Next
		}
	}
	return -1
}

// reply makes a reply, with the files that belong to it.
func (w *walker) reply(op *fortest.Op, full bool) any {
	v := reflect.New(op.ReplyType)
	if !full {
		return v.Interface()
	}
	files, err := w.objects.of(op.Reply.Files()...)
	if err != nil {
		w.Error(err)
		return v.Interface()
	}
	setFiles(v.Elem(), files)
	return v.Interface()
}
