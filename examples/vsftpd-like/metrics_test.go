//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// scrape reads the counters as an operator would, and checks their format.
func scrape(t *testing.T, socket string) map[string]float64 {
	t.Helper()
	out, err := exec.Command("curl", "--silent", "--show-error", "--fail", "--max-time", "10", "--unix-socket", socket, "http://localhost/metrics").CombinedOutput()
	if err != nil {
		t.Fatalf("curl: %v: %s", err, out)
	}
	return parseMetrics(t, string(out))
}

var (
	metricHelp = regexp.MustCompile(`^# HELP ([a-z_]+) [A-Z].*\.$`)
	metricType = regexp.MustCompile(`^# TYPE ([a-z_]+) (counter|gauge)$`)
	metricLine = regexp.MustCompile(`^([a-z_]+)(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? (-?[0-9.e+-]+)$`)
)

func parseMetrics(t *testing.T, text string) map[string]float64 {
	t.Helper()
	values, family, kind := map[string]float64{}, "", ""
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line, ok := strings.CutSuffix(line, "\n")
		if !ok {
			t.Errorf("no line end after %q", line)
		}
		if m := metricHelp.FindStringSubmatch(line); m != nil {
			if seen[m[1]] {
				t.Errorf("%s is there twice", m[1])
			}
			family, kind, seen[m[1]] = m[1], "", true
		} else if m := metricType.FindStringSubmatch(line); m != nil && m[1] == family {
			kind = m[2]
			if (kind == "counter") != strings.HasSuffix(family, "_total") {
				t.Errorf("%s is a %s", family, kind)
			}
		} else if m := metricLine.FindStringSubmatch(line); m != nil && m[1] == family && kind != "" {
			v, err := strconv.ParseFloat(m[5], 64)
			if _, twice := values[m[1]+m[2]]; err != nil || twice {
				t.Errorf("%q: %v, twice %t", line, err, twice)
			}
			values[m[1]+m[2]] = v
		} else {
			t.Errorf("not the text format: %q", line)
		}
	}
	return values
}

func TestMetricsSocket(t *testing.T) {
	s := startSite(t, map[string]string{"metrics_socket": "SITE/metrics"})
	socket := filepath.Join(s.dir, "metrics")
	info, err := os.Stat(socket)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != 0 {
		t.Errorf("it is uid %d's", owner)
	}
	before := scrape(t, socket)
	if out, err := exec.Command("curl", "--silent", "--show-error", "--list-only", "ftp://"+s.address[0]+"/").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var after map[string]float64
	for range 100 { // until the session has ended
		after = scrape(t, socket)
		if after["sallyport_sessions"] == 0 && after["sallyport_sessions_started_total"] == 1 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	for name, n := range before {
		if after[name] < n && name != "sallyport_sessions" {
			t.Errorf("%s fell from %v to %v", name, n, after[name])
		}
	}
	for name, want := range map[string]float64{
		"sallyport_sessions_started_total":                                                        1,
		`sallyport_phases_entered_total{phase="authed"}`:                                          1,
		`sallyport_calls_total{role="session",phase="preauth",op="login",outcome="good"}`:         1,
		`sallyport_sessions_ended_total{role="session",phase="authed",outcome="good",syscall=""}`: 1,
	} {
		if after[name] != want {
			t.Errorf("%s is %v, want %v in %v", name, after[name], want, after)
		}
	}
}

// Whoever connects and does nothing, or sends what is no request, or reads
// nothing, keeps the next one waiting for a second at most.
func TestMetricsLookAtNothing(t *testing.T) {
	m, path := new(metrics), filepath.Join(t.TempDir(), "metrics")
	l, err := listenMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { m.serve(l, nil) })
	defer serving.Wait()
	defer l.Close()
	for _, says := range []string{"", "\x00\xff", strings.Repeat("x", 200_000)} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second / 2))
		fmt.Fprint(conn, says)
	}
	scrape(t, path)
}

func TestMetricsSocketThatIsLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics")
	first, err := listenMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := listenMetrics(path); err == nil {
		l.Close()
		t.Error("one that is in use was taken over")
	}
	first.SetUnlinkOnClose(false)
	first.Close()
	l, err := listenMetrics(path)
	if err != nil {
		t.Fatalf("one that was left: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenMetrics(path); err == nil {
		t.Error("a file was replaced")
	}
}

func TestMetricsEscape(t *testing.T) {
	m := new(metrics)
	m.Observe(privsep.Event{Kind: privsep.PhaseEntered, Phase: "a\"b\\c\nd"})
	if got := parseMetrics(t, m.String()); got[`sallyport_phases_entered_total{phase="a\"b\\c\nd"}`] != 1 {
		t.Errorf("got %v", got)
	}
}
