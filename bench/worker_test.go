package bench

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// The daemon that is measured: its worker says that it is there, makes calls
// that do nothing, and says how long they took.
var (
	hello  = privsep.Op[empty, empty]{Name: "hello", Calls: 1}
	null   = privsep.Op[empty, empty]{Name: "null", Calls: privsep.Unlimited}
	result = privsep.Op[taken, empty]{Name: "result", Calls: 1}
)

type (
	empty struct{}
	taken struct{ Nanoseconds int64 }
	count struct{ N int64 }
)

func (*taken) Check() error { return nil }

// A visit is one session.
type visit struct {
	calls    int64
	spares   int
	launched time.Time
	began    time.Duration // from the launch to the worker's first request
	took     time.Duration // of all calls
}

func (v *visit) launch() privsep.Launch {
	v.launched = time.Now()
	return privsep.Launch{Role: &visitor, Message: &count{v.calls}, Spares: v.spares}
}

func (v *visit) hello(context.Context, empty) (empty, error) {
	v.began = time.Since(v.launched)
	return empty{}, nil
}

func (v *visit) null(context.Context, empty) (empty, error) { return empty{}, nil }

func (v *visit) result(_ context.Context, r taken) (empty, error) {
	v.took = time.Duration(r.Nanoseconds)
	return empty{}, nil
}

var visitor = privsep.Role{Name: "visitor", Main: func(ctx context.Context, w *privsep.Worker) error {
	var c count
	_, err := hello.Call(ctx, w, empty{})
	if err = errors.Join(err, w.Message(&c)); err != nil || c.N == 0 {
		return err
	}
	start := time.Now()
	for range c.N {
		if _, err := null.Call(ctx, w, empty{}); err != nil {
			return err
		}
	}
	_, err = result.Call(ctx, w, taken{time.Since(start).Nanoseconds()})
	return err
}}

func newDaemon(tb testing.TB) func(*visit) error {
	tb.Helper()
	policy := new(privsep.Policy)
	phase := privsep.NewPhase(policy, "visit", (*visit).launch)
	privsep.Permit(phase, hello, (*visit).hello)
	privsep.Permit(phase, null, (*visit).null)
	privsep.Permit(phase, result, (*visit).result)
	m, err := privsep.NewMonitor(policy, privsep.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { m.Close() })
	return func(v *visit) error { return privsep.Serve(tb.Context(), m, phase, v) }
}

// nullCall makes n calls of an operation that does nothing, from a confined
// worker to its monitor.
func nullCall(tb testing.TB) operation {
	serve := newDaemon(tb)
	return func(n int) (time.Duration, error) {
		v := &visit{calls: int64(n)}
		err := serve(v)
		return v.took, err
	}
}

// launch starts workers, sandbox and posture included, until each makes its
// first request.
func launch(tb testing.TB, spares int, pause time.Duration) func() (time.Duration, error) {
	serve := newDaemon(tb)
	first := &visit{spares: spares}
	if err := serve(first); err != nil {
		tb.Fatal(err)
	}
	return func() (time.Duration, error) {
		time.Sleep(pause)
		v := &visit{spares: spares}
		err := serve(v)
		return v.began, err
	}
}

// BenchmarkLaunch is a worker's start, from nothing to its first request,
// beside a bare re-exec.
func BenchmarkLaunch(b *testing.B) { benchmarkRatio(b, each(launch(b, 0, 0), nil), each(reexec, nil)) }

// BenchmarkHandOver is the same when a spare waits; between two there is time
// to start another.
func BenchmarkHandOver(b *testing.B) {
	var times []time.Duration
	benchmark(b, each(launch(b, 4, 30*time.Millisecond), &times))
	b.ReportMetric(float64(percentile(times, 0.5)), "p50-ns")
	b.ReportMetric(float64(percentile(times, 0.99)), "p99-ns")
}
