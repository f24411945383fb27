package privseptest

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// overSocket makes some sequences once more, over a socket and through
// ipc.Serve, all calls sent before the first is answered, and behind them one
// that is not lawful.
func (w *walker) overSocket(start *oracle) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		o, path := start, []step(nil)
		for range 1 + r.IntN(2*depth) {
			steps := w.steps(o, true)
			if len(steps) == 0 {
				break
			}
			s := steps[r.IntN(len(steps))]
			if w.policy.Ops[s.op].Parallel {
				s.do = replies // they run in any order, so no handler knows which it is
			}
			path, o = append(path, s), o.after(s)
		}
		w.burst(o, path, r.IntN(len(w.policy.Ops)), r.IntN(2) == 0)
		if w.wrong > 0 {
			return // each further one could cost all our patience
		}
	}
}

// burst makes one such sequence.
func (w *walker) burst(end *oracle, path []step, op int, waits bool) {
	conn, theirs := newWire(w)
	defer conn.close()
	served, err := ipc.NewConn(theirs, ipc.NewBuffers(w.policy.Size))
	if err != nil {
		w.Fatal(err)
	}
	defer served.Close()

	var mu sync.Mutex
	rest := path
	w.state = &token{0}
	perform := func(ctx context.Context, c fortest.Call) (reply, next any, err error) {
		mu.Lock()
		defer mu.Unlock()
		w.do = replies
		if !w.policy.Ops[c.Op].Parallel {
			for len(rest) > 0 && w.policy.Ops[rest[0].op].Parallel {
				rest = rest[1:]
			}
			if len(rest) == 0 {
				w.mismatch(path, "a handler of %s ran once more", w.policy.Ops[c.Op].Name)
			} else {
				w.do, rest = rest[0].do, rest[1:]
			}
			if waits {
				ctx.Done() // another goroutine reads from here
			}
		}
		return w.perform(ctx, c)
	}
	session := w.policy.Serve(fortest.Options{Perform: perform, Bare: true})(0, w.state)
	ended := make(chan error, 1)
	go func() { ended <- ipc.Serve(context.Background(), served, session) }()

	var number uint32
	call := func(op int) {
		o := w.policy.Ops[op]
		files, err := w.objects.of(o.Request.Files()...)
		if err != nil {
			w.Fatal(err)
		}
		number++
		f := frame{kind: request, files: byte(len(files)), call: number, value: 10_000, op: o.Number, body: w.samples[o].body}
		if err := conn.send(f, files...); err != nil {
			w.mismatch(path, "call %d: %v", number, err)
		}
		closeAll(files)
	}
	for _, s := range path {
		call(s.op)
	}
	for range path {
		a, err := conn.get(patience)
		if err != nil || a.call == 0 || int(a.call) > len(path) {
			w.mismatch(path, "over a socket, answer to %d: %v", a.call, err)
			conn.close()
			<-ended
			return
		}
		if got, want := a.verdict(), answers[path[a.call-1].do]; got != want {
			w.mismatch(path[:a.call], "over a socket, %s, and the oracle says %s", got, want)
		}
	}
	want := "reply" // to nothing: the session ends in peace
	if ok, why := end.lawful(op); !ok {
		call(op)
		want = "violation of " + w.policy.Ops[op].Name + " in " + w.policy.Phases[end.phase].Name + ": " + why
	} else {
		conn.close()
	}
	var last error
	select {
	case last = <-ended:
	case <-time.After(patience):
		w.mismatch(path, "over a socket, the session goes on, and the oracle says %s", want)
		conn.close()
		last = <-ended
	}
	if got := verdictOf(session.Ended(last)); got != want {
		w.mismatch(path, "over a socket, at its end: %s, and the oracle says %s", got, want)
	}
	w.compare(session, end, path)
}
