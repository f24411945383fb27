//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
)

// confined is what /proc must say of a worker.
type confined struct {
	parent int
	id     int    // uid and gid; 0: one of worker_ids
	groups string // of status
	root   string // "": a directory that was removed
	files  []string
}

// idle is what every worker has: its standard descriptors, the channel to its
// monitor, and what the runtime polls with. Each channel has an epoll instance
// of its own.
var idle = []string{"/dev/null", "/dev/null", "[eventfd]", "[eventpoll]", "[eventpoll]", "unix seqpacket", "unix stream"}

func having(more ...string) []string {
	return slices.Sorted(slices.Values(append(more, idle...)))
}

// check reads all that the kernel tells root about a process and each of its
// threads. It knows nothing of package sandbox. Each problem begins with the
// word for what is wrong.
func (w confined) check(pid int) (problems []string) {
	proc := fmt.Sprint("/proc/", pid)
	differ := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			problems = append(problems, fmt.Sprintf("%s: %s is %v, want %v", proc, what, got, want))
		}
	}
	const none = "0000000000000000"
	if w.id == 0 {
		first, _, _ := strings.Cut(statusOf(proc)["Uid"], " ")
		w.id, _ = strconv.Atoi(first)
		differ("Uid", config.Default().WorkerIDs.Has(uint32(w.id)), true)
	}
	id := strings.TrimSuffix(strings.Repeat(fmt.Sprint(w.id, " "), 4), " ")
	tasks, err := filepath.Glob(proc + "/task/*")
	if err != nil || len(tasks) == 0 {
		return []string{"no threads"}
	}
	for _, task := range tasks {
		status := statusOf(task)
		for field, want := range map[string]string{
			"PPid": fmt.Sprint(w.parent), "Uid": id, "Gid": id, "Groups": w.groups,
			"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
			"NoNewPrivs": "1", "Seccomp": "2",
		} {
			differ(field, status[field], want)
		}
	}
	for _, kind := range []string{"net", "ipc", "uts", "pid"} {
		mine, _ := os.Readlink("/proc/self/ns/" + kind)
		its, err := os.Readlink(proc + "/ns/" + kind)
		differ(kind, err == nil && its != mine, true)
	}
	for _, place := range []string{"root", "cwd"} {
		got, _ := os.Readlink(proc + "/" + place)
		if w.root == "" {
			differ(place, strings.Contains(got, "/privsep-empty-") && strings.HasSuffix(got, " (deleted)"), true)
			entries, err := os.ReadDir(proc + "/" + place) // ENOENT: it is no directory's any more
			differ(place, len(entries) == 0 && errors.Is(err, fs.ErrNotExist), true)
		} else {
			differ(place, got, w.root)
		}
	}
	environ, err := os.ReadFile(proc + "/environ")
	differ("environ", fmt.Sprintf("%q %v", environ, err), `"GOMAXPROCS=1\x00" <nil>`)
	info, err := os.Stat(proc + "/environ")
	differ("dumpable", err == nil && info.Sys().(*syscall.Stat_t).Uid != 0, false)
	limits, _ := os.ReadFile(proc + "/limits")
	differ("core", strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0 bytes"), true)
	differ("files", strings.Join(filesOf(pid), ", "), strings.Join(w.files, ", "))
	return problems
}

// statusOf are the lines of a thread's status, with single blanks.
func statusOf(task string) map[string]string {
	fields := make(map[string]string)
	b, _ := os.ReadFile(task + "/status")
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// filesOf says what each descriptor of a process is, sorted.
func filesOf(pid int) (all []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	sockets := sockets()
	for _, link := range links {
		what, err := os.Readlink(link)
		switch {
		case err != nil:
			what = err.Error()
		case strings.HasPrefix(what, "anon_inode:"):
			what = strings.TrimPrefix(what, "anon_inode:")
		case sockets[what] != "":
			what = sockets[what]
		}
		all = append(all, what)
	}
	slices.Sort(all)
	return all
}

// sockets are those of this network namespace, in which the monitor is, by the
// names that they have as descriptors.
func sockets() map[string]string {
	all := make(map[string]string)
	for file, inode := range map[string]int{"tcp": 9, "tcp6": 9, "unix": 6} {
		b, _ := os.ReadFile("/proc/self/net/" + file)
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) <= inode {
				continue
			}
			kind := "tcp " + map[string]string{"01": "connected", "0A": "listening"}[f[3]]
			if file == "unix" {
				kind = "unix " + map[string]string{"0001": "stream", "0005": "seqpacket"}[f[4]]
			}
			all["socket:["+f[inode]+"]"] = kind
		}
	}
	return all
}

// matches finds for each worker what of want it is, which its role and its files
// tell; nothing may be left over, nor anything be different.
func matches(workers []worker, want map[string]confined) (problems []string) {
	left := maps.Clone(want)
	for _, w := range workers {
		var closest []string
		for name, c := range left {
			if !strings.HasPrefix(name, w.role) {
				continue
			}
			differ := c.check(w.pid)
			if differ == nil {
				delete(left, name)
				closest = nil
				break
			}
			if closest == nil || len(differ) < len(closest) {
				closest = differ
			}
		}
		for _, d := range closest {
			problems = append(problems, w.role+" "+d)
		}
	}
	if len(left) > 0 {
		problems = append(problems, fmt.Sprintf("no worker is as %v", slices.Sorted(maps.Keys(left))))
	}
	return problems
}

// TestPosture looks at every process of two logged-in sessions, at rest and in
// the middle of a transfer.
func TestPosture(t *testing.T) {
	s := startSite(t, map[string]string{"spares": "1", "connect_from_port": "20"})
	alice := login(t, s.address[0], "alice")
	ftp := login(t, s.address[0], "ftp")
	for _, c := range []*control{alice, ftp} {
		c.say(t, "PWD", "257")
	}
	s.settled(t, map[string]int{"session": 3, "files": 3})

	launcher := s.launcher().pid
	session := confined{parent: launcher, files: having("tcp connected", "unix seqpacket", "[eventpoll]")}
	sessionSpare := confined{parent: launcher, files: having()}
	ofAlice := confined{launcher, aliceID, fmt.Sprint(sharedGID), s.alice, having("unix seqpacket", "[eventpoll]")}
	ofAnyone := confined{launcher, anyoneID, "", s.anon, having("unix seqpacket", "[eventpoll]")}
	filesSpare := confined{launcher, anyoneID, "", s.anon, having()}
	look := func(want map[string]confined) {
		t.Helper()
		var problems []string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if problems = matches(s.workers(), want); problems == nil {
				return // until then the last spare may be closing its sandbox
			}
		}
		for _, p := range problems {
			t.Error(p)
		}
	}
	look(map[string]confined{
		"session 1": session, "session 2": session, "session spare": sessionSpare,
		"files alice": ofAlice, "files ftp": ofAnyone, "files spare": filesSpare,
	})

	data := slowly(t, s, alice)
	if _, err := io.ReadFull(data, make([]byte, 1)); err != nil { // 150 comes before the connection
		t.Fatal(err)
	}
	busy := session
	busy.files = slices.Sorted(slices.Values(append([]string{"tcp connected", s.alice + "/big"}, session.files...)))
	look(map[string]confined{
		"session 1": busy, "session 2": session, "session spare": sessionSpare,
		"files alice": ofAlice, "files ftp": ofAnyone, "files spare": filesSpare,
	})
	data.Close()

	// The monitor: a user of its own, nothing effective, and permitted only the
	// policy's. Its launcher: what starting, proving and killing workers takes,
	// effective on one thread.
	const bind = 1 << 10                              // NET_BIND_SERVICE
	const launch = 1<<5 | 1<<6 | 1<<7 | 1<<18 | 1<<19 // KILL SETGID SETUID SYS_CHROOT SYS_PTRACE
	const inherit = 1<<7 | 1<<18                      // SETUID SYS_CHROOT
	privileges(t, s.Pid, int(config.Default().WorkerIDs.Last), bind, 0, 0)
	privileges(t, launcher, 0, launch, inherit, 1)
	for _, pid := range []int{s.Pid, launcher} {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err != nil || strings.Trim(string(environ), "\x00") != "" {
			t.Errorf("process %d has the environment %q, %v", pid, environ, err)
		}
	}
}

// privileges checks the user and the capability sets of a process's threads, of
// which some have all that is permitted effective, and what they hand on ambient.
func privileges(t *testing.T, pid, uid int, permitted, inheritable uint64, active int) {
	t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	actives := 0
	for _, task := range tasks {
		status := statusOf(task)
		want := map[string]uint64{"CapInh": inheritable, "CapPrm": permitted, "CapEff": 0, "CapBnd": 0, "CapAmb": 0}
		if status["CapEff"] != fmt.Sprintf("%016x", 0) {
			actives++
			want["CapEff"], want["CapAmb"] = permitted, inheritable
		}
		id := strings.TrimSuffix(strings.Repeat(fmt.Sprint(uid, " "), 4), " ")
		for field, want := range map[string]string{"Uid": id, "Gid": id, "Groups": "", "NoNewPrivs": "1", "Seccomp": "2"} {
			if got := status[field]; got != want && !(field == "Groups" && uid == 0) {
				t.Errorf("%s: %s is %s, want %s", task, field, got, want)
			}
		}
		for field, want := range want {
			if got := status[field]; got != fmt.Sprintf("%016x", want) {
				t.Errorf("%s: %s is %s, want %016x", task, field, got, want)
			}
		}
	}
	if actives != active || len(tasks) == 0 {
		t.Errorf("process %d: %d of %d threads have something effective, want %d", pid, actives, len(tasks), active)
	}
}

// TestPostureControl: of a process that is not confined, the check finds all
// that a worker's must have.
func TestPostureControl(t *testing.T) {
	startSite(t, nil) // needs what TestPosture needs
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	problems := strings.Join(confined{parent: 1, id: 65534, groups: "1", files: having()}.check(cmd.Process.Pid), "\n")
	for _, word := range []string{"PPid", "Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp",
		"net", "ipc", "uts", "pid", "root", "cwd", "environ", "core", "files"} {
		if !strings.Contains(problems, ": "+word+" is ") {
			t.Errorf("%s was not missed", word)
		}
	}
	if t.Failed() {
		t.Log(problems)
	}
}
