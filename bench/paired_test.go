package bench

import (
	"slices"
	"testing"
	"time"
)

// An operation does something n times and returns how long that took, without
// what it had to prepare.
type operation func(n int) (time.Duration, error)

// benchmark reports an operation's own time instead of the loop's.
func benchmark(b *testing.B, op operation) {
	b.Helper()
	d, err := op(b.N)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(d.Nanoseconds())/float64(b.N), "ns/op")
}

// pairs is how many times both sides of a ratio are measured.
const pairs = 11

// benchmarkRatio measures an operation and its peer in turn, in batches as
// large as a share of b.N, and reports the medians of both and of the pairs'
// ratios. ns/op is the operation's.
func benchmarkRatio(b *testing.B, op, peer operation) {
	b.Helper()
	n := max(1, b.N/pairs)
	var ours, theirs, ratios []float64
	for range min(pairs, b.N) {
		d, err := peer(n)
		if err != nil {
			b.Fatal("peer:", err)
		}
		t := float64(d.Nanoseconds()) / float64(n)
		if d, err = op(n); err != nil {
			b.Fatal(err)
		}
		o := float64(d.Nanoseconds()) / float64(n)
		ours, theirs, ratios = append(ours, o), append(theirs, t), append(ratios, o/t)
	}
	b.ReportMetric(median(ours), "ns/op")
	b.ReportMetric(median(theirs), "peer-ns/op")
	b.ReportMetric(median(ratios), "ratio")
}

// each makes an operation of something that times itself once. The slowest
// percent is worth a figure of its own: see percentile.
func each(once func() (time.Duration, error), times *[]time.Duration) operation {
	return func(n int) (time.Duration, error) {
		var total time.Duration
		for range n {
			d, err := once()
			if err != nil {
				return total, err
			}
			total += d
			if times != nil {
				*times = append(*times, d)
			}
		}
		return total, nil
	}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// percentile returns the time that the given share (0.99) of times is within.
func percentile(times []time.Duration, share float64) time.Duration {
	s := slices.Sorted(slices.Values(times))
	return s[min(len(s)-1, int(share*float64(len(s))))]
}

func TestPercentile(t *testing.T) {
	var times []time.Duration
	for i := range 100 {
		times = append(times, time.Duration(100-i))
	}
	for share, want := range map[float64]time.Duration{0: 1, 0.5: 51, 0.99: 100, 1: 100} {
		if got := percentile(times, share); got != want {
			t.Errorf("percentile(1 to 100, %v) = %d, want %d", share, got, want)
		}
	}
}
