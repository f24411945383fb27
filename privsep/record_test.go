package privsep_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// A page is a log that a test can read.
type page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// records are the lines whose message is msg.
func (p *page) records(t testing.TB, msg string) (all []map[string]any) {
	t.Helper()
	for line := range strings.Lines(p.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if r["msg"] == msg {
			all = append(all, r)
		}
	}
	return all
}

func (h *hall) Peer() string { return "192.0.2.7:2121\nforged" }

// logged serves a session of the hall, and returns its log.
func logged(t testing.TB, script, beside string, config privsep.Config) (*page, error) {
	t.Helper()
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "hall", func(*hall) privsep.Launch { return launch(script) })
	b := privsep.NewPhase[cellar](p, "cellar", nil)
	if beside != "" {
		privsep.Beside(b, func(c *cellar) privsep.Launch { return launch(beside) })
	}
	privsep.Advance(a, moveTo, b, func(h *hall, _ context.Context, _ wordRequest) (wordReply, *cellar, error) {
		return wordReply{}, &cellar{h}, nil
	})
	privsep.Permit(b, secondOp, func(*cellar, context.Context, empty) (empty, error) { return empty{}, nil })
	log := new(page)
	if config.Log == nil {
		config.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	m, err := privsep.NewMonitor(p, config)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return log, privsep.Serve(t.Context(), m, a, new(hall))
}

func TestRecordsCarryWhatTheMonitorKnows(t *testing.T) {
	noLeaks(t)
	log, err := logged(t, "log in each phase", "", privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	records := log.records(t, "worker")
	if len(records) != 2 {
		t.Fatalf("got %v", records)
	}
	for i, want := range []string{
		`INFO 1 192.0.2.7:2121\nforged script hall first map[n:1]`,
		`ERROR 1 192.0.2.7:2121\nforged script cellar second map[a:b g.h.x:why g.n:2]`,
	} {
		r := records[i]
		if got := fmt.Sprint(r["level"], " ", r["session"], " ", r["peer"], " ", r["role"], " ", r["phase"], " ", r["text"], " ", r["worker"]); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// All that a worker said before it ended well is there.
func TestWorkerThatOnlyLogs(t *testing.T) {
	noLeaks(t)
	log, err := logged(t, "log only", "", privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(log.records(t, "worker")); n != 50 {
		t.Errorf("%d records, want 50", n)
	}
}

func TestWorkerBesideLogs(t *testing.T) {
	noLeaks(t)
	done := make(chan struct{})
	log := new(page)
	go func() { // the session goes on when the worker beside has ended
		defer close(done)
		for range 1000 {
			if strings.Contains(log.String(), `"i":"49"`) {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-done; cancel() }()
	p, ph := newHall(false)
	m, err := privsep.NewMonitor(p, privsep.Config{Log: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := privsep.Serve(ctx, m, ph, &hall{beside: "log only"}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	records := log.records(t, "worker")
	if len(records) != 50 || records[0]["phase"] != "cellar" {
		t.Errorf("got %d records: %v", len(records), records)
	}
}

// A worker beside has nothing to ask; that it asks shows that it was taken over.
func TestWorkerBesideMayNotAsk(t *testing.T) {
	noLeaks(t)
	p, ph := newHall(false)
	var v *privsep.ViolationError
	err := privsep.Serve(t.Context(), newMonitor(t, p), ph, &hall{beside: "ask beside"})
	if !errors.As(err, &v) || v.Phase != "cellar" {
		t.Errorf("got %v, want a violation", err)
	}
}

func TestRecordsCannotForge(t *testing.T) {
	noLeaks(t)
	text := new(page)
	_, err := logged(t, "log injection", "", privsep.Config{Log: slog.New(slog.NewTextHandler(text, nil))})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	if len(lines) != len(injections) {
		t.Fatalf("%d lines of %d records:\n%s", len(lines), len(injections), text)
	}
	for _, line := range lines {
		for _, r := range line {
			if r < ' ' || r == 0x7f || r == 0xfffd || r > 0x7e && r < 0xa0 || r == 0x202e || r == 0x2028 {
				t.Errorf("%U in %q", r, line)
			}
		}
	}
	log, err := logged(t, "log injection", "", privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range log.records(t, "worker") {
		if r["session"] != 1.0 || r["phase"] != "hall" || r["role"] != "script" || r["level"] != "INFO" {
			t.Errorf("forged: %v", r)
		}
		// A key that stands twice could hide the first from a reader.
		for line := range strings.Lines(log.String()) {
			for _, key := range []string{`"session":1,`, `"peer":"192.0.2.7`, `"phase":"hall"`} {
				if strings.Count(line, key) != 1 {
					t.Errorf("%s is not there once: %s", key, line)
				}
			}
		}
	}
}

func TestGiantRecords(t *testing.T) {
	noLeaks(t)
	log, err := logged(t, "log giant", "", privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	records := log.records(t, "worker")
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	for i, r := range records {
		said := r["worker"].(map[string]any)
		if len(said) != 13 || said["more"] == nil {
			t.Errorf("record %d has %d attributes: %v", i, len(said), said["more"])
		}
	}
	if n := len(log.String()); n > 32<<10 {
		t.Errorf("two records take %d bytes", n)
	}
}

func TestRecordLevels(t *testing.T) {
	for _, tt := range []struct {
		level slog.Level
		want  string
	}{
		{slog.LevelDebug, "DEBUG INFO WARN ERROR ERROR "},
		{slog.LevelWarn, "WARN ERROR ERROR "},
		{slog.LevelError + 1, ""},
	} {
		log := new(page)
		config := privsep.Config{Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: tt.level}))}
		if _, err := logged(t, "log levels", "", config); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, r := range log.records(t, "worker") {
			got += fmt.Sprint(r["level"], " ")
		}
		if got != tt.want {
			t.Errorf("at %v: got %s, want %s", tt.level, got, tt.want)
		}
	}
}

func TestMuchIsDroppedAndCounted(t *testing.T) {
	noLeaks(t)
	start := time.Now()
	log, err := logged(t, "log much", "", privsep.Config{})
	if err != nil {
		t.Fatal(err)
	}
	records := log.records(t, "worker")
	most := 64 + 16*time.Since(start).Seconds() + 1
	last := records[len(records)-1]
	if n := float64(len(records)); n < 10 || n > most {
		t.Errorf("%v records, at most %v", n, most)
	}
	if last["text"] != "last" || last["unsent"] == nil {
		t.Errorf("the last record is %v", last)
	}
	counted := float64(len(records))
	for _, r := range append(records, log.records(t, "worker wrote too much")...) {
		for _, key := range []string{"unsent", "lost"} {
			if n, ok := r[key].(float64); ok {
				counted += n
			}
		}
	}
	if counted != 100_001 {
		t.Errorf("%v records are accounted for, of 100001", counted)
	}
}

func TestMalformedRecordsAreViolations(t *testing.T) {
	for _, script := range []string{"log malformed", "log trailing", "log a call", "log a file", "log nothing"} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			var v *privsep.ViolationError
			log, err := logged(t, script, "", privsep.Config{})
			if !errors.As(err, &v) || v.Phase != "hall" || !strings.Contains(v.Reason, "log record") {
				t.Errorf("got %v, want a violation", err)
			}
			if n := len(log.records(t, "worker")); n > 0 {
				t.Errorf("%d records", n)
			}
		})
	}
}

// A worker that sends as fast as it can is no lawful one, and while it lives
// the sessions beside it, and what is audited of them, are as without it.
func TestFloodOfRecords(t *testing.T) {
	noLeaks(t)
	audit, log := new(page), new(page)
	p, ph := newHouse(func(s *porch) privsep.Launch { return launch(s.said[0]) })
	m, err := privsep.NewMonitor(p, privsep.Config{
		Log: slog.New(slog.NewJSONHandler(log, nil)), Audit: slog.New(slog.NewJSONHandler(audit, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var sessions sync.WaitGroup
	for range 4 {
		sessions.Go(func() {
			var v *privsep.ViolationError
			err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"log flood"}})
			if !errors.As(err, &v) || !strings.Contains(v.Reason, "more log records") {
				t.Errorf("got %v, want a violation", err)
			}
		})
		sessions.Go(func() {
			if err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"hundred"}}); err != nil {
				t.Error(err)
			}
		})
	}
	sessions.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
		t.Errorf("the monitor grew by %d bytes", grown)
	}
	if n := len(audit.records(t, "call")); n != 400 {
		t.Errorf("%d calls are audited of 400", n)
	}
	if n := len(log.records(t, "worker")); n > 4*(64+16*20) {
		t.Errorf("%d records are written", n)
	}
}

// A worker that serves another has no log of the monitor's to write to.
func TestNoRecordsBetweenWorkers(t *testing.T) {
	noLeaks(t)
	channel, _, end := serveHouse(t)
	raw, err := channel.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = syscall.Sendmsg(int(fd), logPacket(0, lawfulRecord), nil, nil, 0) })
	if err != nil {
		t.Fatal(err)
	}
	var v *privsep.ViolationError
	if err := end(); !errors.As(err, &v) || !strings.Contains(v.Reason, "not a request: log") {
		t.Errorf("got %v, want a violation", err)
	}
	channel.Close()
}
