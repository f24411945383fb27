package privsep

import (
	"log/slog"
	"strings"
	"testing"
	"unicode"

	"github.com/go-privsep/sallyport/ipc"
)

// Whatever a worker sends is refused, or is one line that steers no terminal.
func FuzzRecord(f *testing.F) {
	plan, err := ipc.PlanFor[logRecord]()
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []logRecord{
		{},
		{Level: 8, Text: "a\nb\x1b[0m\xff", Attrs: []recordAttr{{"session", "1"}, {"", "\u202e"}, {"a=b c\n", `"`}}, More: 9},
	} {
		body, _, err := plan.Encode(nil, &r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint32(0), body)
		f.Add(uint32(1<<32-1), body[:len(body)-1])
	}
	f.Fuzz(func(t *testing.T, unsent uint32, body []byte) {
		for _, json := range []bool{false, true} {
			var text strings.Builder
			var handler slog.Handler = slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})
			if json {
				handler = slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug})
			}
			s := newScribe(slog.New(handler), "role")
			if s.record(plan, &ipc.Packet{Type: ipc.Log, Value: unsent, Body: body}, "phase") != nil {
				if text.Len() > 0 {
					t.Errorf("refused and written: %q", text.String())
				}
				return
			}
			line, end, _ := strings.Cut(text.String(), "\n")
			if line == "" || end != "" {
				t.Errorf("not one line: %q", text.String())
			}
			for _, r := range line {
				if !unicode.IsPrint(r) || r == unicode.ReplacementChar && !strings.Contains(string(body), "\ufffd") {
					t.Errorf("%U in %q", r, line)
				}
			}
			if !json && strings.Count(line, " phase=") != 1 && !strings.Contains(string(body), "phase") {
				t.Errorf("the phase stands %d times: %q", strings.Count(line, " phase="), line)
			}
		}
	})
}
