package privsep

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-privsep/sallyport/ipc"
)

// Log is the worker's way to the monitor's log. A record never waits: beyond 64
// at once and 16 a second, and while the monitor is behind, records are dropped,
// and the next one that is written says how many ("unsent").
//
// The monitor writes a record as the message "worker", at the worker's level
// between Debug and Error, with the session, peer, role and phase as the
// monitor knows them, "text" for the message, and the attributes in a group
// "worker". Text is at most 512 bytes, an attribute at most 48 and 192, and 12
// of them; what is longer is cut, what is more is counted ("more"). Levels that
// the monitor does not log are not sent. A pointer to a secret is as good as
// the secret here: whoever reads the log reads it.
func (w *Worker) Log() *slog.Logger { return slog.New(&recordHandler{sender: w.records}) }

// A recordSender sends the records of all handlers of one worker.
type recordSender struct {
	client *ipc.Client
	plan   *ipc.Plan
	level  uint32 // the monitor's, as of lowestLevel

	mu     sync.Mutex
	bucket bucket
	unsent uint32
}

func newRecordSender(client *ipc.Client, level uint32) (*recordSender, error) {
	plan, err := ipc.PlanFor[logRecord]()
	return &recordSender{client: client, plan: plan, level: min(level, uint32(len(recordLevels)))}, err
}

// send sends a record, or counts it. The lock is held over a system call that
// does not wait, so that the count is told once.
func (s *recordSender) send(r *logRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bucket.take(time.Now()) {
		if body, _, err := s.plan.Encode(nil, r); err == nil && s.client.Log(s.unsent, body) == nil {
			s.unsent = 0
			return
		}
	}
	if s.unsent < math.MaxUint32 {
		s.unsent++
	}
}

// A recordHandler is a slog.Handler that flattens what it gets: nothing but
// strings crosses to the monitor.
type recordHandler struct {
	sender *recordSender
	prefix string // of open groups
	attrs  []recordAttr
	more   uint16
}

func (h *recordHandler) Enabled(_ context.Context, level slog.Level) bool {
	return h.sender.level > 0 && level >= recordLevels[h.sender.level-1]
}

func (h *recordHandler) Handle(_ context.Context, r slog.Record) error {
	all := h.clone()
	r.Attrs(func(a slog.Attr) bool {
		all.add(h.prefix, a)
		return true
	})
	h.sender.send(&logRecord{
		Level: int8(min(max(r.Level, math.MinInt8), math.MaxInt8)),
		Text:  cut(r.Message, 512), Attrs: all.attrs, More: all.more,
	})
	return nil
}

func (h *recordHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := h.clone()
	for _, a := range attrs {
		c.add(h.prefix, a)
	}
	return c
}

func (h *recordHandler) WithGroup(name string) slog.Handler {
	c := h.clone()
	if name != "" {
		c.prefix += name + "."
	}
	return c
}

func (h *recordHandler) clone() *recordHandler {
	c := *h
	c.attrs = slices.Clone(h.attrs)
	return &c
}

// add adds an attribute, a group's one by one, or counts it.
func (h *recordHandler) add(prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	switch {
	case value.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range value.Group() {
			h.add(prefix, inner)
		}
	case a.Equal(slog.Attr{}):
	case len(h.attrs) == 12:
		h.more = min(h.more, math.MaxUint16-1) + 1
	default:
		h.attrs = append(h.attrs, recordAttr{cut(prefix+a.Key, 48), cut(value.String(), 192)})
	}
}

// cut shortens s to at most n bytes, with a mark, and splits no character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	n -= len("…")
	for back := 0; back < utf8.UTFMax && !utf8.RuneStart(s[n]); back++ {
		n--
	}
	return s[:n] + "…"
}
