//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/go-privsep/sallyport/internal/mutation"
	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/sandbox"
)

// The filter alone would stop each attack on a sibling. So that it is seen what
// the other layers do, this file builds a server in which it is missing, as
// after a bug of the kernel's or a promise too wide, and then all layers but one.

// siblingLayers are those that a mutant can leave out.
var siblingLayers = []string{byUser, byDumpable, byLandlock, byRoot, byNamespaces}

// keptVariable tells a mutant which of them it has kept.
const keptVariable = "VSFTPD_LIKE_KEPT"

// TestSiblingsWithoutFilter: with no filter, other layers still keep workers from
// each other. Each layer by itself stops what the table says, and with all of
// them gone every attack succeeds: so the table is the whole of it.
func TestSiblingsWithoutFilter(t *testing.T) {
	testenv.NeedRoot(t)
	if testing.Short() {
		return // it is a build; the full suite has it
	}
	dir := t.TempDir()
	leftOut := filepath.Join(dir, "left-out") // read by each process of the mutant when it starts
	program := mutation.Build(t, ".", []mutation.Change{
		{File: "../../sandbox/enter_linux.go", Old: "		if err := step.do(); err != nil {\n",
			New: "		if leftOut(step.name) {\n			continue\n		}\n		if err := step.do(); err != nil {\n"},
		{File: "../../sandbox/enter_linux.go", Old: "	return e.missing, nil\n}\n", New: "	if leftOut(\"dumpable\") {\n" +
			"		syscall.RawSyscall6(syscall.SYS_PRCTL, 4, 1, 0, 0, 0, 0) // PR_SET_DUMPABLE\n" +
			"		syscall.RawSyscall6(syscall.SYS_PRCTL, 0x59616d61, ^uintptr(0), 0, 0, 0, 0) // PR_SET_PTRACER, for Yama\n" +
			"	}\n	return e.missing, nil\n}\n\n" +
			"var leftOutHere, _ = os.ReadFile(" + fmt.Sprintf("%q", leftOut) + ")\n\n" +
			"func leftOut(layer string) bool { return strings.Contains(string(leftOutHere), layer+\"\\n\") }\n"},
		{File: "../../sandbox/enter_linux.go", Old: "	if e.missing.Has(Root) {\n		return nil // it", New: "	if leftOut(\"root directory\") {\n		return nil // it"},
		{File: "../../sandbox/profile.go", Old: "func (p *Profile) uid() int { return", New: "func (p *Profile) uid() int {\n" +
			"	if leftOut(\"user 0\") {\n		return 0\n	}\n	if leftOut(\"user 65534\") {\n		return nobody\n	}\n	return"},
		{File: "../../sandbox/profile.go", Old: "orDefault(int(p.UID), nobody) }", New: "orDefault(int(p.UID), nobody)\n}"},
		{File: "../../sandbox/profile.go", Old: "return orDefault(int(p.GID), nobody) }", New: "\n" +
			"	if leftOut(\"user 0\") || leftOut(\"user 65534\") {\n		return p.uid()\n	}\n	return orDefault(int(p.GID), nobody)\n}"},
		{File: "../../sandbox/ground_linux.go", Old: "		return []Ground{groundHost, groundFlat}, nil\n", New: "		if leftOut(\"namespaces\") {\n" +
			"			return []Ground{groundFlat}, nil\n		}\n		return []Ground{groundHost, groundFlat}, nil\n"},
		// Workers inherit what their launcher is under.
		{File: "../../sandbox/ground_linux.go", Old: "	return missing, filter.Install()\n", New: "	if leftOut(\"filter\") {\n" +
			"		return missing, nil\n	}\n	return missing, filter.Install()\n"},
		{File: "../../sandbox/ground_linux.go", Old: "	if restrictPrograms() != nil {", New: "	if !leftOut(\"landlock\") && restrictPrograms() != nil {"},
		{File: "../../sandbox/posture.go", Old: "	if p.Hidden && !missing.Has(Proof) {", New: "	if leftOut(\"filter\") {\n		return nil\n	}\n	if p.Hidden && !missing.Has(Proof) {"},
	})
	words := map[string]string{byDumpable: "dumpable\ndumpable again\n", byLandlock: "landlock\n", byRoot: "root directory\n", byNamespaces: "namespaces\n"}
	run := func(kept []string, user string) {
		t.Run(fmt.Sprintf("%v %s", kept, user), func(t *testing.T) {
			text := "filter\n"
			for _, layer := range siblingLayers {
				if !slices.Contains(kept, layer) {
					text += words[layer]
				}
			}
			if user != "" {
				text += "user " + user + "\n"
			}
			if err := os.WriteFile(leftOut, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program, "-test.run=^TestSiblingsKept$", "-test.v")
			cmd.Env = append(os.Environ(), keptVariable+"="+user+":"+strings.Join(kept, " "))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "compared ") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	run(siblingLayers, "")
	for _, layer := range siblingLayers {
		if layer == byUser {
			run([]string{layer}, "")
			continue
		}
		run([]string{layer}, "65534")
		if layer != byRoot { // where, with cgo, user 0 could not drop its capabilities (sandbox's changeUser)
			run([]string{layer}, "0") // the monitor's
		}
	}
	run(nil, "65534")
	run(nil, "0")
}

// TestSiblingsKept is no test but the inside of the one above: it runs in a
// mutant. The user before the colon is whom all of its workers are, if anybody.
func TestSiblingsKept(t *testing.T) {
	list, ok := os.LookupEnv(keptVariable)
	if !ok {
		return
	}
	user, list, _ := strings.Cut(list, ":")
	kept := strings.Fields(list)
	without := hostWithout()
	if !slices.Contains(kept, byRoot) {
		without |= sandbox.Root // so that the honest files worker stays in its directory
	}
	if !slices.Contains(kept, byNamespaces) {
		without |= sandbox.Namespaces
	}
	a := newArenaWithout(t, without)
	arg := a.exposeHost(t)
	honest := login(t, a.address, "anonymous")
	defer honest.Close()
	victims := victims(t)
	a.bringAccomplice(t, arg)
	n := 0
	for _, r := range relations() {
		if (user == "0") == r.worker() && user != "" {
			continue
		}
		in := trial{victim: victims[r.victim], arg: arg, user: r.user, session: "siblings, from a session worker"}
		if r.files != "" {
			in.session, in.files = "log in and hold", "siblings, from a files worker"
		}
		got := a.try(t, in)
		words := strings.Fields(got.result)
		if len(words) != len(siblingCases()) {
			t.Fatalf("%s: %v", r.name, got)
		}
		for i, c := range siblingCases() {
			if c.third && !r.worker() || slices.Contains(kept, byNamespaces) && r.victim == "monitor" && strings.HasPrefix(c.name, "open ") {
				continue // the latter is there or not as /proc is (see shown)
			}
			n++
			if stopped := c.stopped(r, kept); stopped != (words[i] != "ok") {
				t.Errorf("%s: %s: got %s, want stopped %t: %s", r.name, c.name, words[i], stopped, c.why)
			}
		}
	}
	honest.say(t, "NOOP", "200")
	honest.say(t, "PWD", "257")
	t.Logf("compared %d attacks", n)
}

// exposeHost makes what a host may have: shared memory of both sorts and an
// abstract socket, for everybody. It returns the number in their names.
func (a *arena) exposeHost(t *testing.T) int {
	t.Helper()
	arg := os.Getpid()
	id, errno := raw(unix.SYS_SHMGET, hostKey(arg), 4096, unix.IPC_CREAT|0o666)
	if errno != 0 {
		t.Fatal(errno)
	}
	t.Cleanup(func() {
		raw(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0)
		if id, errno := raw(unix.SYS_SHMGET, hostKey(arg)+1, 0, 0); errno == 0 { // the accomplice's, where there is no namespace
			raw(unix.SYS_SHMCTL, id, unix.IPC_RMID, 0)
		}
	})
	name := fmt.Sprintf("/dev/shm/sallyport-%d", arg)
	mustWrite(t, name, "x", 0o666)
	t.Cleanup(func() { os.Remove(name) })
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := listenAbstract(abstract("host", arg)); err != nil {
		t.Fatal(err)
	}
	return arg
}

// bringAccomplice logs in a session whose worker has made what a filter lets no
// worker make.
func (a *arena) bringAccomplice(t *testing.T, arg int) {
	t.Helper()
	before := childRoles()
	ended := make(chan end)
	hungUp := make(chan struct{})
	go func() {
		ended <- a.try(t, trial{session: "accomplice", arg: arg, client: func(c *net.TCPConn) { <-hungUp; c.Close() }})
	}()
	t.Cleanup(func() {
		close(hungUp)
		if got := <-ended; got.result != "hung up" {
			t.Error("accomplice:", got)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for pid, role := range childRoles() {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", pid))
			if before[pid] == "" && role == "session" && strings.Contains(string(text), abstract("worker", arg)) {
				return
			}
		}
	}
	t.Fatal("no accomplice")
}
