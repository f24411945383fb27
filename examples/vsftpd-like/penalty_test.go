//go:build linux

package main

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// turnedAway fails the test unless a client at that address is told at once
// that there is no room.
func (s *site) turnedAway(t *testing.T, address, from string) {
	t.Helper()
	if c, err := dial(address, from); err == nil {
		c.Close()
		t.Errorf("%s is served, want 421", from)
	} else if !strings.Contains(err.Error(), "421") {
		t.Errorf("%s: got %v, want 421", from, err)
	}
}

// guess tries passwords, those of each word in a session of its own, all
// sessions at once: each password takes a second, and what was booked decays.
func guess(t *testing.T, address, from string, sessions ...string) {
	t.Helper()
	var all sync.WaitGroup
	for _, passwords := range sessions {
		c := connect(t, address, from)
		all.Go(func() {
			for p := range strings.SplitSeq(passwords, " ") {
				if err := errors.Join(c.do("USER alice", "331"), c.do("PASS "+p, "530")); err != nil {
					t.Error(err)
					return
				}
			}
			c.Close()
		})
	}
	all.Wait()
}

func TestPenalties(t *testing.T) {
	s := startSite(t, map[string]string{"penalties": "", "spares": "0", "metrics_socket": "SITE/metrics"})
	address := s.listening(t, 2)[0]

	t.Run("guessing", func(t *testing.T) {
		guess(t, address, "127.0.0.11", "a b c", "d e")
		s.turnedAway(t, address, "127.0.0.11")
		connect(t, address, "127.0.0.12").say(t, "QUIT", "221")
	})
	t.Run("forgotten", func(t *testing.T) {
		guess(t, address, "127.0.0.13", "old old old", "old old")
		connect(t, address, "127.0.0.13").say(t, "QUIT", "221")
	})
	t.Run("crash", func(t *testing.T) {
		s.settled(t, map[string]int{})
		client := connect(t, address, "127.0.0.14")
		for _, w := range s.workers() {
			if w.role == "session" {
				syscall.Kill(w.pid, syscall.SIGSEGV)
			}
		}
		if err := client.ended(); err != nil {
			t.Error(err)
		}
		s.awaitLog(t, 1, "offence=crash", "127.0.0.14")
		s.turnedAway(t, address, "127.0.0.14")
	})
	t.Run("counted", func(t *testing.T) {
		got := scrape(t, s.dir+"/metrics")
		for name, want := range map[string]float64{
			`sallyport_penalties_total{offence="failed login"}`:                                           10,
			`sallyport_penalties_total{offence="crash"}`:                                                  1,
			`sallyport_turned_away_total{reason="its source is penalized"}`:                               2,
			`sallyport_sessions_ended_total{role="session",phase="preauth",outcome="crashed",syscall=""}`: 1,
		} {
			if got[name] != want {
				t.Errorf("%s is %v, want %v in %v", name, got[name], want, got)
			}
		}
	})
	t.Run("reload", func(t *testing.T) {
		s.hangUp(t, reloaded)
		s.turnedAway(t, address, "127.0.0.11")
		s.edit(t, map[string]string{"penalties": "no"})
		s.hangUp(t, reloaded)
		s.turnedAway(t, address, "127.0.0.11") // what was booked stays
		guess(t, address, "127.0.0.16", "a b c", "d e")
		connect(t, address, "127.0.0.16").say(t, "QUIT", "221") // the control
	})
}

// Who holds many places without a login keeps no one else out.
func TestStartups(t *testing.T) {
	s := startSite(t, map[string]string{"max_startups": "5:100:6", "spares": "0"})
	address := s.listening(t, 2)[0]
	for range 2 { // half of 5
		connect(t, address, "127.0.0.21")
	}
	s.turnedAway(t, address, "127.0.0.21")
	inside := connect(t, address, "127.0.0.22")
	connect(t, address, "127.0.0.22")
	s.turnedAway(t, address, "127.0.0.22")
	if err := inside.login("anonymous"); err != nil { // gives its place up
		t.Fatal(err)
	}
	connect(t, address, "127.0.0.22")
	connect(t, address, "127.0.0.23")
	s.turnedAway(t, address, "127.0.0.24") // 5 places are taken: every one is refused
}

func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s seldom
		for _, want := range []struct {
			left int
			now  bool
		}{{0, true}, {0, false}, {0, false}} {
			if left, now := s.line(); left != want.left || now != want.now {
				t.Errorf("got %d, %v, want %v", left, now, want)
			}
		}
		time.Sleep(time.Second)
		if left, now := s.line(); left != 2 || !now {
			t.Errorf("a second later: got %d, %v, want 2 that were left out, true", left, now)
		}
	})
}
