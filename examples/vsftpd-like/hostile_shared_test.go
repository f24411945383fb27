//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// sharedAttacks are by one session's part of a worker that others share.
func sharedAttacks() map[string]attack {
	return map[string]attack{
		"shared: call too early": func(a *attacker) string {
			_, err := AcceptData.Call(context.Background(), a.worker, AcceptDataRequest{})
			return err.Error()
		},
		"shared: forbidden call": func(a *attacker) string { return a.call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0) },
	}
}

// A diary is a log that a test reads while it is written.
type diary struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (d *diary) Write(b []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text.Write(b)
}

// lines are those with all of the words in them.
func (d *diary) lines(words ...string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
next:
	for line := range strings.Lines(d.text.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		n++
	}
	return n
}

// TestSharedWorkerTakenOver: what one session does in a worker that it shares
// ends the others, who do not pay for it. The next have a new worker.
func TestSharedWorkerTakenOver(t *testing.T) {
	testenv.NeedRoot(t)
	for _, tt := range []struct {
		attack  string
		guilty  string // what its session's end is booked as
		refused bool   // the guilty client, from then on
		alarms  int    // whatever the number of sessions
	}{
		{"shared: call too early", "offence=violation", true, 0},
		{"shared: forbidden call", "offence=none", false, 1}, // nobody knows whose call it was
	} {
		t.Run(tt.attack, func(t *testing.T) {
			s, address, log := startInProcess(t, func(c *config.Config) {
				c.Isolation, c.SessionsPerWorker, c.Spares = config.PerAny, 10, 0
				c.MetricsSocket = filepath.Join(t.TempDir(), "metrics")
			})
			in := connect(t, address, "127.0.0.61")
			if err := in.login("anonymous"); err != nil {
				t.Fatal(err)
			}
			outside := connect(t, address, "127.0.0.62")
			before := sessionWorkers()
			if len(before) != 1 {
				t.Fatalf("session workers: %v, want one for both", before)
			}

			honest, taken := s.current.Load(), *s.current.Load()
			taken.config.Banner = order{name: tt.attack}.String()
			s.current.Store(&taken)
			guilty, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 63)}}).Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer guilty.Close()
			guilty.SetReadDeadline(time.Now().Add(20 * time.Second))
			if got, err := io.ReadAll(guilty); err != nil || len(got) > 0 {
				t.Errorf("the guilty client got %q, %v", got, err)
			}
			s.current.Store(honest)

			for name, c := range map[string]*control{"logged in": in, "not logged in": outside} {
				if err := c.ended(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			for deadline := time.Now().Add(10 * time.Second); log.lines("session ended") < 3 && time.Now().Before(deadline); {
				time.Sleep(5 * time.Millisecond)
			}
			for peer, offence := range map[string]string{"127.0.0.61": "offence=none", "127.0.0.62": "offence=none", "127.0.0.63": tt.guilty} {
				if log.lines("session ended", peer+":", offence) != 1 {
					t.Errorf("%s: the log does not say %s", peer, offence)
				}
			}
			if n := log.lines("session ended", "which it shared"); n != 3 && !tt.refused || n != 2 && tt.refused {
				t.Errorf("%d sessions ended with a worker that they shared", n)
			}
			if n, m := log.lines("its filter forbids"), strings.Count(s.metrics.String(), `workers_filtered_total{role="session",syscall="socket"} 1`); n != tt.alarms || m != tt.alarms {
				t.Errorf("%d alarms in the log, %d in the metrics, want %d", n, m, tt.alarms)
			}

			if c, err := dial(address, "127.0.0.63"); (err != nil) != tt.refused {
				t.Errorf("the guilty client again: %v, want turned away %t", err, tt.refused)
			} else if err == nil {
				c.Close()
			}
			for _, from := range []string{"127.0.0.61", "127.0.0.62", "127.0.0.64"} {
				connect(t, address, from).say(t, "NOOP", "200")
			}
			if after := sessionWorkers(); len(after) != 1 || after[0] == before[0] {
				t.Errorf("session workers: %v, before %v; want one, another", after, before)
			}
			if t.Failed() {
				t.Logf("log:\n%s", log.text.String())
			}
		})
	}
}

func sessionWorkers() (all []int) {
	for pid, role := range childRoles() {
		if role == "session" {
			all = append(all, pid)
		}
	}
	return all
}

// startInProcess serves anonymous in this process, whose role can be taken over.
func startInProcess(t *testing.T, edit func(*config.Config)) (*server, string, *diary) {
	t.Helper()
	c := config.Default()
	c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	c.Anonymous, c.AnonymousRoot = true, siteDir(t)
	edit(&c)
	log := new(diary)
	s, err := newServer(c, newPolicy, new(pool), 0, slog.New(slog.NewTextHandler(log, nil)), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.monitor.Close() })
	all, err := s.bind()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve(ctx, all, func() { <-ctx.Done() })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s, all[c.Listen[0]].Addr().String(), log
}
