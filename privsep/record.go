package privsep

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// A worker's records: at most recordBurst at once, and recordRate a second in
// the long run.
const (
	recordBurst = 64
	recordRate  = 16
)

// A logRecord is a worker's record on its way.
type logRecord struct {
	Level int8         // of slog
	Text  string       `privsep:"max=512"`
	Attrs []recordAttr `privsep:"max=12"`
	More  uint16       // attributes that did not fit
}

type recordAttr struct {
	Key   string `privsep:"max=48"`
	Value string `privsep:"max=192"`
}

// A bucket holds at most burst tokens and gets rate a second. The zero bucket
// is full.
type bucket struct {
	spent float64
	last  time.Time
}

func (b *bucket) take(now time.Time) bool {
	b.spent = max(0, b.spent-now.Sub(b.last).Seconds()*recordRate)
	b.last = now
	if b.spent > recordBurst-1 {
		return false
	}
	b.spent++
	return true
}

// A scribe writes one worker's records into the monitor's log. Everything in a
// record is the worker's word; what the monitor knows stands outside of it.
type scribe struct {
	log   *slog.Logger // with the session, its peer and the worker's role
	begun time.Time
	count float64 // of records that came
	lost  uint64  // of those that were not written, with what they said was not sent
	bucket
}

func newScribe(log *slog.Logger, role string) *scribe {
	return &scribe{log: log.With("role", role), begun: time.Now()}
}

// record judges a record and writes it, unless the worker has written too much.
func (s *scribe) record(plan *ipc.Plan, p *ipc.Packet, phase string) error {
	now := time.Now()
	// A lawful worker counts by the same clock and began later, so what it
	// has sent is less, however late it is read. Twice as much is no mistake.
	if s.count++; s.count > 2*(recordBurst+recordRate*now.Sub(s.begun).Seconds()) {
		return &ViolationError{Phase: phase, Reason: "more log records than a worker sends"}
	}
	if !s.take(now) {
		s.lost += 1 + uint64(p.Value)
		if err := plan.Scan(p.Body); err != nil {
			return &ViolationError{Phase: phase, Reason: "log record: " + err.Error()}
		}
		return nil
	}
	var r logRecord
	if err := plan.Decode(p, &r); err != nil {
		return &ViolationError{Phase: phase, Reason: "log record: " + err.Error()}
	}
	attrs := make([]slog.Attr, 0, 6)
	attrs = append(attrs, slog.String("phase", phase), slog.String("text", printable(r.Text)))
	if unsent := uint64(p.Value); unsent > 0 {
		attrs = append(attrs, slog.Uint64("unsent", unsent))
	}
	if s.lost > 0 {
		attrs = append(attrs, slog.Uint64("lost", s.lost))
		s.lost = 0
	}
	said := make([]any, 0, len(r.Attrs)+1)
	for _, a := range r.Attrs {
		said = append(said, slog.String(keyOf(a.Key), printable(a.Value)))
	}
	if r.More > 0 {
		said = append(said, slog.Int("more", int(r.More)))
	}
	attrs = append(attrs, slog.Group("worker", said...))
	level := min(max(slog.Level(r.Level), slog.LevelDebug), slog.LevelError)
	s.log.LogAttrs(context.Background(), level, "worker", attrs...)
	return nil
}

// end reports what was lost since the last record that was written.
func (s *scribe) end(phase string) {
	if s.lost > 0 {
		s.log.Warn("worker wrote too much", "phase", phase, "lost", s.lost)
		s.lost = 0
	}
}

// printable escapes what could end a line, steer a terminal or hide: all that
// is not printable, and what is not UTF-8. A backslash is escaped too, so that
// nothing looks like what it is not.
func printable(s string) string {
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// keyOf is a key that no handler has to quote. It stands in a group of the
// worker's, so it shadows nothing.
func keyOf(s string) string {
	key := []byte(s)
	for i, b := range key {
		if (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && (b < '0' || b > '9') && b != '_' && b != '-' && b != '.' {
			key[i] = '_'
		}
	}
	if len(key) == 0 {
		return "_"
	}
	return string(key)
}

// lowestLevel is what a worker is told of the levels that are logged: 1 from
// Debug on, 2 from Info, 3 from Warn, 4 from Error, 0 none.
func lowestLevel(log *slog.Logger) uint32 {
	for i, level := range recordLevels {
		if log.Enabled(context.Background(), level) {
			return uint32(i + 1)
		}
	}
	return 0
}

var recordLevels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
