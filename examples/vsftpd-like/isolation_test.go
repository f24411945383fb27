//go:build linux

package main

import (
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// uidsOf are the users of a role's processes.
func (d *daemon) uidsOf(role string) (all map[string]int) {
	all = make(map[string]int)
	for _, w := range d.workers() {
		if w.role == role {
			all[strings.Fields(statusOf(fmt.Sprint("/proc/", w.pid))["Uid"])[0]]++
		}
	}
	return all
}

// By default no two session workers have a user in common.
func TestSessionWorkersHaveUsersOfTheirOwn(t *testing.T) {
	s := startSite(t, nil)
	for range 3 {
		login(t, s.address[0], "ftp")
	}
	s.settled(t, map[string]int{"session": 5, "files": 5})
	if uids := s.uidsOf("session"); len(uids) != 5 {
		t.Errorf("users and their workers: %v, want 5 of one", uids)
	}
	if uids := s.uidsOf("files"); len(uids) != 1 || uids[fmt.Sprint(anyoneID)] != 5 {
		t.Errorf("users and their workers: %v, want the anonymous one", uids)
	}
}

// The report says which user that worker has, and that the next has another.
func TestReportTellsTheUser(t *testing.T) {
	testenv.NeedRoot(t)
	s, _, _ := startInProcess(t, func(c *config.Config) { c.Spares = 0 })
	var b strings.Builder
	if err := s.report(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^session: kept: uid (9[0-4]\d{3}) gid (9[0-4]\d{3}) .* \(another uid and gid of 90000-94999 for each worker\)$`)
	if m := want.FindStringSubmatch(b.String()); m == nil || m[1] != m[2] {
		t.Errorf("got\n%s", b.String())
	}
}

// Clients of one worker are served like others, and end with it; those of
// another don't.
func TestSharedIsolation(t *testing.T) {
	for _, tt := range []struct {
		isolation string
		sessions  int // processes, for two clients of one address and one of another
	}{{"shared", 1}, {"address", 2}} {
		t.Run(tt.isolation, func(t *testing.T) {
			s := startSite(t, map[string]string{
				"isolation": tt.isolation, "files_isolation": "user", "spares": "0", "sessions_per_worker": "10",
			})
			a, b := login(t, s.address[0], "ftp"), login(t, s.address[0], "alice")
			var both worker // the session worker of a and b
			for _, w := range s.workers() {
				if w.role == "session" {
					both = w
				}
			}
			far := connect(t, s.address[0], "127.0.0.2")
			if err := far.login("ftp"); err != nil {
				t.Fatal(err)
			}
			s.settled(t, map[string]int{"session": tt.sessions, "files": 2})
			for i, c := range []*control{a, b, far} {
				c.say(t, "PWD", "257")
				if i == 2 {
					break // its data connection would come from another address
				}
				if _, err := c.get("LIST"); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
			a.say(t, "QUIT", "221")
			b.say(t, "NOOP", "200") // a's end is its own

			if err := syscall.Kill(both.pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if err := b.ended(); err != nil {
				t.Error(err)
			}
			if tt.isolation == "address" {
				far.say(t, "NOOP", "200")
			} else if err := far.ended(); err != nil {
				t.Error(err)
			}
			login(t, s.address[0], "ftp").say(t, "PWD", "257")
		})
	}
}

// One user's logins share a files worker, and nobody else's.
func TestFilesPerUser(t *testing.T) {
	s := startSite(t, map[string]string{"files_isolation": "user", "spares": "0"})
	var all []*control
	for _, user := range []string{"ftp", "anonymous", "alice", "alice", "bob"} {
		all = append(all, login(t, s.address[0], user))
	}
	s.settled(t, map[string]int{"session": 5, "files": 3})
	all[2].say(t, "MKD made", "257")
	all[3].say(t, "RMD made", "250")
	all[2].say(t, "QUIT", "221")
	all[3].say(t, "PWD", "257")
	all[3].say(t, "MKD again", "257")
}
