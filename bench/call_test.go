package bench

import (
	"testing"

	"github.com/go-privsep/sallyport/bench/pingpong"
	"github.com/go-privsep/sallyport/internal/testenv"
)

func BenchmarkPingPong(b *testing.B) {
	for _, p := range placements {
		b.Run(p.name, func(b *testing.B) {
			p.place(b)
			benchmark(b, pingPong(b))
		})
	}
}

func BenchmarkNullCall(b *testing.B) {
	for _, p := range placements {
		b.Run(p.name, func(b *testing.B) {
			p.place(b)
			benchmarkRatio(b, nullCall(b), pingPong(b))
		})
	}
}

func pingPong(tb testing.TB) operation {
	tb.Helper()
	testenv.NeedProgram(tb, "gcc")
	p, err := pingpong.Build(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return p.Run
}
