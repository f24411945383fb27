package privseptest

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// flowAttacks are about when things are sent, and what is read.
func (a *arena) flowAttacks(ops []*fortest.Op) (all []attack) {
	any := ops[0]
	endless := any
	for _, op := range ops {
		if op.Calls < 0 && !op.Parallel {
			endless = op
		}
	}
	all = []attack{
		{name: "flow/silence", explanation: "who says nothing costs a goroutine and no processor time; its phase has a deadline",
			want: peace, do: func(x *attacker) { time.Sleep(50 * time.Millisecond) }},
		{name: "flow/death at once", explanation: "a worker may die before its first word", want: peace, do: func(x *attacker) {}},
		{name: "flow/death before the answer", explanation: "nobody is there to read it", want: peace, runs: true,
			do: func(x *attacker) { _ = x.call(any) }},
		{name: "flow/death in the middle of a call", explanation: "the handler is told, and returns", want: peace, runs: true, waits: true,
			do: func(x *attacker) {
				_ = x.call(any)
				x.awaitHandler()
			}},
		{name: "flow/a cancel ends a handler", explanation: "a call may be cancelled, and its answer says so", want: peace, runs: true, waits: true,
			do: func(x *attacker) {
				_ = x.call(any)
				x.awaitHandler()
				_ = x.conn.send(frame{kind: cancel, call: 1})
				x.refused(syscall.ECANCELED)
			}},
		{name: "flow/a deadline ends a handler", explanation: "the caller's milliseconds count, if they are fewer than the operation's", want: peace, runs: true, waits: true,
			do: func(x *attacker) {
				f := x.good(any)
				f.value = 20
				_ = x.put(any, f)
				x.refused(syscall.ETIMEDOUT)
			}},
		{name: "flow/a call with no time", explanation: "it would be refused before it is judged", want: "a call without time",
			do: func(x *attacker) {
				f := x.good(any)
				f.value = 0
				_ = x.put(any, f)
			}},
		{name: "flow/a call with all the time there is", explanation: "the operation's own limit counts", want: peace, runs: true,
			do: func(x *attacker) {
				f := x.good(any)
				f.value = 1<<32 - 1
				_ = x.put(any, f)
				if got, err := x.conn.get(patience); err != nil || got.verdict() != "reply" {
					x.Errorf("%s (%v)", got.verdict(), err)
				}
			}},
		{name: "flow/more calls than may be outstanding", explanation: "what waits costs memory: there is a bound", want: "too many calls outstanding", runs: true, waits: true,
			do: func(x *attacker) {
				_ = x.call(any)
				x.awaitHandler()
				for range ipc.Outstanding + 1 {
					if x.call(any) != nil {
						return
					}
				}
			}},
	}
	if endless.Calls < 0 {
		all = append(all,
			attack{name: "flow/ten thousand calls", explanation: "who reads its answers may ask on", want: peace, runs: true, do: func(x *attacker) {
				for range 10_000 {
					if err := x.call(endless); err != nil {
						x.Errorf("call %d: %v", x.number, err)
						return
					}
					if got, err := x.conn.get(patience); err != nil || got.verdict() != "reply" || got.call != x.number {
						x.Errorf("call %d: %s to %d (%v)", x.number, got.verdict(), got.call, err)
						return
					}
				}
			}},
			attack{name: "flow/answers that nobody reads", explanation: "an answer waits 10 s for its reader, and holds up nobody else", want: "answers are not read", runs: true,
				do: func(x *attacker) {
					for x.conn.putWithin(patience+5*time.Second, x.good(endless).bytes()) == nil {
						x.number++
					}
				}})
		if isFile(endless) {
			all = all[:len(all)-1] // descriptors under way have a bound of their own
		}
	}
	for _, op := range ops {
		all = append(all, a.handlerAttacks(op)...)
	}
	return all
}

// handlerAttacks call the daemon's own handler of op.
func (a *arena) handlerAttacks(op *fortest.Op) []attack {
	handler := func(name, explanation string, do func(x *attacker)) attack {
		return attack{name: "handler of " + op.Name + "/" + name, explanation: explanation, want: peace, own: true, runs: true, do: do}
	}
	return []attack{
		handler("is called", "a request of good form is answered or refused, and ends nothing", func(x *attacker) {
			f := x.good(op)
			f.value = 5000
			_ = x.put(op, f)
			x.answered()
		}),
		handler("is cancelled at once", "and answers all the same", func(x *attacker) {
			_ = x.call(op)
			_ = x.conn.send(frame{kind: cancel, call: 1})
			x.answered()
		}),
		handler("is given a millisecond", "and answers all the same", func(x *attacker) {
			f := x.good(op)
			f.value = 1
			_ = x.put(op, f)
			x.answered()
		}),
		handler("loses its caller", "and returns", func(x *attacker) { _ = x.call(op) }),
	}
}

// awaitHandler waits until a handler of the kit's runs.
func (x *attacker) awaitHandler() {
	for from := time.Now(); x.ran.Load() == x.before && time.Since(from) < patience; time.Sleep(100 * time.Microsecond) {
	}
}

// refused wants the next answer to be a refusal.
func (x *attacker) refused(want syscall.Errno) {
	x.Helper()
	if got, err := x.conn.get(patience); err != nil || got.kind != 5 || syscall.Errno(got.value) != want {
		x.Errorf("got %s, errno %d (%v), want a refusal: %v", got.verdict(), got.value, err, want)
	}
}

// answered wants an answer, whatever it is.
func (x *attacker) answered() {
	x.Helper()
	if got, err := x.conn.get(patience); err != nil || got.call != 1 {
		if errors.Is(err, io.EOF) {
			return // the session's end says why
		}
		x.Errorf("no answer within %v (%v): does its handler not look at its context?", patience, err)
	}
}
