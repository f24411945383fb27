package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
)

// Metrics count what happens. Every label's value is one of the policy's names
// or of privsep's, so nothing that a client does makes a new series.
type metrics struct {
	mu     sync.Mutex
	series map[series]float64
}

type series struct{ name, labels string }

// families are all that is counted, in the order in which it is shown.
var families = []struct{ name, kind, help string }{
	{"sallyport_sessions_started_total", "counter", "Sessions that began."},
	{"sallyport_sessions_ended_total", "counter", "Sessions that ended, by how."},
	{"sallyport_sessions", "gauge", "Sessions that run."},
	{"sallyport_session_seconds_total", "counter", "How long the sessions that ended took."},
	{"sallyport_phases_entered_total", "counter", "Phases that sessions entered."},
	{"sallyport_calls_total", "counter", "Requests of workers that were judged; op is empty for one that is not in the policy."},
	{"sallyport_call_seconds_total", "counter", "How long the handlers took."},
	{"sallyport_workers_started_total", "counter", "Workers that were started, spares among them."},
	{"sallyport_worker_start_seconds_total", "counter", "How long that took, until their sandboxes were proved."},
	{"sallyport_spares_taken_total", "counter", "Launches that found a spare."},
	{"sallyport_spares_missed_total", "counter", "Launches that found none."},
	{"sallyport_workers_filtered_total", "counter", "Alarms: workers that made a system call which they have no use for."},
	{"sallyport_turned_away_total", "counter", "Connections that got no session, by why."},
	{"sallyport_penalties_total", "counter", "Offences that were booked, by what they were; of a forbidden system call nobody pays for."},
}

// penalty counts what a source has done.
func (m *metrics) penalty(offence string) {
	m.count("sallyport_penalties_total", "offence", offence)
}

// turnedAway counts a connection that was not admitted.
func (m *metrics) turnedAway(err error) {
	var refused *admission.RefusedError
	if errors.As(err, &refused) {
		m.count("sallyport_turned_away_total", "reason", refused.Reason.String())
	}
}

// count adds one, if anybody wants to know.
func (m *metrics) count(name string, labels ...string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(name, 1, labels...)
}

// add is for who has mu.
func (m *metrics) add(name string, n float64, labels ...string) {
	if m.series == nil {
		m.series = make(map[series]float64)
	}
	m.series[series{name, labelled(labels)}] += n
}

// Observe counts an event.
func (m *metrics) Observe(e privsep.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	add := m.add
	outcome := e.Outcome.String()
	switch e.Kind {
	case privsep.SessionStarted:
		add("sallyport_sessions_started_total", 1)
		add("sallyport_sessions", 1)
	case privsep.SessionEnded:
		add("sallyport_sessions", -1)
		add("sallyport_sessions_ended_total", 1, "role", e.Role, "phase", e.Phase, "outcome", outcome, "syscall", e.Syscall)
		add("sallyport_session_seconds_total", e.Duration.Seconds())
	case privsep.PhaseEntered:
		add("sallyport_phases_entered_total", 1, "phase", e.Phase)
	case privsep.CallEnded:
		add("sallyport_calls_total", 1, "role", e.Role, "phase", e.Phase, "op", e.Op, "outcome", outcome)
		add("sallyport_call_seconds_total", e.Duration.Seconds(), "role", e.Role, "phase", e.Phase, "op", e.Op)
	case privsep.WorkerStarted:
		add("sallyport_workers_started_total", 1, "role", e.Role, "outcome", outcome)
		add("sallyport_worker_start_seconds_total", e.Duration.Seconds(), "role", e.Role)
	case privsep.SpareTaken:
		add("sallyport_spares_taken_total", 1, "role", e.Role)
	case privsep.SpareMissed:
		add("sallyport_spares_missed_total", 1, "role", e.Role)
	case privsep.WorkerFiltered:
		add("sallyport_workers_filtered_total", 1, "role", e.Role, "syscall", e.Syscall)
	}
}

// labelled is pairs of names and values as the text format has them.
func labelled(pairs []string) string {
	if len(pairs) == 0 {
		return ""
	}
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		fmt.Fprintf(&b, `,%s="%s"`, pairs[i], escape.Replace(pairs[i+1]))
	}
	return "{" + b.String()[1:] + "}"
}

// String is the text format of Prometheus, version 0.0.4.
func (m *metrics) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []series
	for s := range m.series {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b series) int { return cmp.Compare(a.labels, b.labels) })
	var b strings.Builder
	for _, f := range families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", f.name, f.help, f.kind)
		for _, s := range all {
			if s.name == f.name {
				fmt.Fprintf(&b, "%s%s %g\n", s.name, s.labels, m.series[s])
			}
		}
	}
	return b.String()
}

// listenMetrics makes the socket of path, which only this user may connect to.
// One that an earlier process left there is removed. It is called before
// anything else makes files: the umask is the process's.
func listenMetrics(path string) (*net.UnixListener, error) {
	address := &net.UnixAddr{Name: path, Net: "unix"}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if conn, err := net.DialUnix("unix", nil, address); err == nil {
			conn.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path)
		}
	}
	defer syscall.Umask(syscall.Umask(0o177))
	return net.ListenUnix("unix", address)
}

// serve answers whoever connects, whatever they ask, one after the other and
// within a second each: nothing that comes in is looked at.
func (m *metrics) serve(l *net.UnixListener, log *slog.Logger) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Error("metrics", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		text := m.String()
		_, err = fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"+
			"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
		if err == nil && conn.CloseWrite() == nil {
			// To close with the request unread would look like a reset.
			_, _ = io.CopyN(io.Discard, conn, 64<<10)
		}
		conn.Close()
	}
}
