package privsep_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// A tally is an Observer that counts by kind and what goes with it.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
	events []privsep.Event
}

func (c *tally) Observe(e privsep.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]int)
	}
	c.counts[fmt.Sprint(int(e.Kind), " ", e.Phase, " ", e.Op, " ", e.Outcome)]++
	c.events = append(c.events, e)
}

func TestObserverIsTold(t *testing.T) {
	for script, want := range map[string]map[string]int{
		"guest":     {"3 porch say good": 1, "3 porch enter good": 1, "3 room sit good": 100, "2 porch  none": 1, "2 room  none": 1, "4 room  good": 1},
		"refusals":  {"3 porch say refused": 1, "3 porch say troubled": 1, "4 porch  good": 1},
		"early":     {"3 porch sit violated": 1, "4 porch  violated": 1},
		"violation": {"3 porch say violated": 1, "4 porch  violated": 1},
		"panicker":  {"3 porch say troubled": 1, "4 porch  troubled": 1},
		"socket":    {"4 porch  filtered": 1, "8 porch  none": 1},
		"panic":     {"4 porch  crashed": 1},
		"error":     {"4 porch  failed": 1},
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			seen := new(tally)
			p, ph := newHouse(func(*porch) privsep.Launch { return launch(script) })
			m, err := privsep.NewMonitor(p, privsep.Config{Observer: seen})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			_ = privsep.Serve(t.Context(), m, ph, new(porch))
			want["1   none"], want["5   good"] = 1, 1
			if script != "guest" {
				want["2 porch  none"] = 1
			}
			if got := fmt.Sprint(seen.counts); got != fmt.Sprint(want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			for _, e := range seen.events {
				if e.Kind == privsep.CallEnded && e.Outcome == privsep.Refused && e.Errno != syscall.ENOENT {
					t.Errorf("refused with %v", e.Errno)
				}
				if (e.Kind == privsep.SessionEnded || e.Kind == privsep.WorkerStarted) && e.Duration <= 0 {
					t.Errorf("%+v took no time", e)
				}
			}
		})
	}
}

func TestObserverIsToldOfSpares(t *testing.T) {
	noLeaks(t)
	seen := new(tally)
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("nothing")
		l.Spares = 1
		return l
	})
	m, err := privsep.NewMonitor(p, privsep.Config{Observer: seen})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for range 3 {
		if err := privsep.Serve(t.Context(), m, ph, new(porch)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	seen.mu.Lock()
	defer seen.mu.Unlock()
	missed, taken := seen.counts["7   none"], seen.counts["6   none"]
	if missed < 1 || missed+taken != 3 {
		t.Errorf("%d missed, %d taken, want 3 together, of which the first is missed", missed, taken)
	}
}

// A password is in requests, so nothing of a request is in the audit.
func TestAuditTellsNoSecret(t *testing.T) {
	noLeaks(t)
	for script, secrets := range map[string][]string{
		"guest": {"hello", "friend"}, "violation": {"nobody says"}, "panicker": {"panic"}, "refusals": {"ENOENT"},
	} {
		audit := new(page)
		p, ph := newHouse(func(*porch) privsep.Launch { return launch(script) })
		m, err := privsep.NewMonitor(p, privsep.Config{Audit: slog.New(slog.NewJSONHandler(audit, nil))})
		if err != nil {
			t.Fatal(err)
		}
		_ = privsep.Serve(t.Context(), m, ph, new(porch))
		m.Close()
		if len(audit.records(t, "call")) == 0 {
			t.Errorf("%s: nothing is audited", script)
		}
		for _, secret := range secrets {
			if strings.Contains(audit.String(), secret) {
				t.Errorf("%s: %q in %s", script, secret, audit)
			}
		}
	}
}

func TestAuditRecord(t *testing.T) {
	noLeaks(t)
	audit := new(page)
	_, err := logged(t, "log in each phase", "", privsep.Config{Audit: slog.New(slog.NewJSONHandler(audit, nil))})
	if err != nil {
		t.Fatal(err)
	}
	records := audit.records(t, "call")
	if len(records) != 2 {
		t.Fatalf("got %v", records)
	}
	r := records[0]
	if r["session"] != 1.0 || r["peer"] != `192.0.2.7:2121\nforged` || r["role"] != "script" || r["phase"] != "hall" ||
		r["op"] != "move-to" || r["outcome"] != "good" || r["duration"].(float64) <= 0 || records[1]["phase"] != "cellar" {
		t.Errorf("got %v", records)
	}
}

// A filter's victim is an alarm.
func TestFilteredIsLogged(t *testing.T) {
	noLeaks(t)
	var exit *privsep.ExitError
	counts := new(tally)
	log, err := logged(t, "socket", "", privsep.Config{Observer: counts})
	if !errors.As(err, &exit) || exit.Class != privsep.Filtered {
		t.Fatal(err)
	}
	alarms := log.records(t, "worker made a call that its filter forbids")
	if len(alarms) != 1 || alarms[0]["level"] != "ERROR" || alarms[0]["phase"] != "hall" || alarms[0]["syscall"] != "socket" {
		t.Errorf("got %v", log)
	}
	events := slices.DeleteFunc(counts.events, func(e privsep.Event) bool { return e.Kind != privsep.WorkerFiltered })
	if len(events) != 1 || events[0] != (privsep.Event{Kind: privsep.WorkerFiltered, Session: 1, Role: "script", Phase: "hall", Syscall: "socket"}) {
		t.Errorf("got %+v", events)
	}
}
