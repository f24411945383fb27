package sandbox

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/caps"
)

// status is that of a worker's thread, as Linux 6.18 prints it.
const status = `Name:	daemon: session
Umask:	0077
State:	S (sleeping)
Tgid:	100
Ngid:	0
Pid:	101
PPid:	99
TracerPid:	0
Uid:	1000	1001	1002	1003
Gid:	100	101	102	103
FDSize:	64
Groups:	20 30 
NStgid:	100
VmPeak:	 1234567 kB
Threads:	5
SigQ:	0/15723
CapInh:	0000000000000001
CapPrm:	0000000000000003
CapEff:	0000000000000002
CapBnd:	000001ffffffffff
CapAmb:	0000000000000400
NoNewPrivs:	1
Seccomp:	2
Seccomp_filters:	1
Cpus_allowed:	3
`

func TestParseStatus(t *testing.T) {
	got, err := parseStatus(status)
	want := Thread{
		TID: 101, UID: [4]int{1000, 1001, 1002, 1003}, GID: [4]int{100, 101, 102, 103}, Groups: []int{20, 30},
		Inheritable: caps.Of(caps.Chown), Permitted: caps.Of(caps.Chown, caps.DACOverride), Effective: caps.Of(caps.DACOverride),
		Ambient: caps.Of(caps.NetBindService), NoNewPrivs: true, Seccomp: 2, Filters: 1,
	}
	want.Bounding, _ = caps.ParseHex("000001ffffffffff")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}

// needed are the lines without which nothing is known.
var needed = []string{"Pid", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"}

// withLine is status with another value of a line; none: without the line.
func withLine(key string, value ...string) string {
	var b strings.Builder
	for line := range strings.Lines(status) {
		if !strings.HasPrefix(line, key+":") {
			b.WriteString(line)
		} else if len(value) > 0 {
			b.WriteString(key + ":\t" + value[0] + "\n")
		}
	}
	return b.String()
}

// Silence never counts as a good posture.
func TestParseStatusFails(t *testing.T) {
	for _, key := range needed {
		if _, err := parseStatus(withLine(key)); err == nil {
			t.Errorf("no line %s: no error", key)
		} else if !strings.Contains(err.Error(), key) {
			t.Errorf("no line %s: the error is %v", key, err)
		}
		for _, value := range []string{"x", "1 x", "-", "0x1", "99999999999999999999"} {
			if _, err := parseStatus(withLine(key, value)); err == nil {
				t.Errorf("%s: %s: no error", key, value)
			}
		}
		if key != "Groups" {
			if _, err := parseStatus(withLine(key, "")); err == nil {
				t.Errorf("%s is empty: no error", key)
			}
		}
	}
	for _, value := range []string{"1", "1 2 3"} {
		for _, key := range []string{"Uid", "Gid"} {
			if _, err := parseStatus(withLine(key, value)); err == nil {
				t.Errorf("%s: %s: no error", key, value)
			}
		}
	}
	for _, text := range []string{"", "\n", "Pid", ":", status[:len(status)/2]} {
		if _, err := parseStatus(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
	got, err := parseStatus(withLine("NoNewPrivs", "2"))
	if err == nil && got.NoNewPrivs {
		t.Error("NoNewPrivs: 2 is taken for 1")
	}
}

// A name that a process gives itself can hold no line of its own: the kernel
// escapes it. But should it, then nothing better than the truth is believed.
func FuzzParseStatus(f *testing.F) {
	f.Add(status)
	for _, key := range needed {
		f.Add(withLine(key))
		f.Add(withLine(key, "1"))
	}
	f.Fuzz(func(t *testing.T, text string) {
		thread, err := parseStatus(text)
		if err != nil {
			return
		}
		for _, key := range needed {
			if !strings.Contains(text, key+":") {
				t.Errorf("no line %s, and no error: %+v", key, thread)
			}
		}
	})
}

// posture returns a profile and what is good for it.
func good() (Profile, Posture, Posture) {
	profile := Profile{UID: 1000, GID: 100, Groups: []uint32{30, 20, 30}, Root: "/srv"}
	thread := Thread{
		TID: 101, UID: [4]int{1000, 1000, 1000, 1000}, GID: [4]int{100, 100, 100, 100}, Groups: []int{20, 30},
		NoNewPrivs: true, Seccomp: 2, Filters: 2,
	}
	namespaces := func(n string) map[string]string {
		m := make(map[string]string)
		for _, kind := range []string{"net", "ipc", "uts", "user", "mnt", "pid"} {
			m[kind] = kind + ":[" + n + "]"
		}
		return m
	}
	last := thread
	last.TID = 102
	worker := Posture{
		PID: 101, Threads: []Thread{thread, last}, Root: "/srv", Namespaces: namespaces("2"),
		Files: []string{"0 /dev/null", "1 /dev/null", "2 pipe:[1]", "3 socket:[2]", "4 anon_inode:[eventpoll]", "7 anon_inode:[eventfd]"},
	}
	host := Posture{PID: 1, Threads: []Thread{{TID: 1}, {TID: 2, NoNewPrivs: true, Seccomp: 2, Filters: 1}}, Root: "/", Namespaces: namespaces("1")}
	for _, shared := range []string{"user", "mnt"} {
		worker.Namespaces[shared] = host.Namespaces[shared]
	}
	return profile, worker, host
}

func TestGoodPosture(t *testing.T) {
	profile, worker, host := good()
	if err := worker.Check(&profile, 0, &host); err != nil {
		t.Error(err)
	}
	profile.Root, worker.Root = "", "/tmp/x (deleted)"
	if err := worker.Check(&profile, 0, &host); err != nil {
		t.Error(err)
	}
}

// Each thing that could be less than is demanded is found, on the last thread
// as on the first, and named.
func TestPostureCheck(t *testing.T) {
	all := caps.Of(caps.SysAdmin)
	one := caps.Of(caps.Chown)
	thread := func(change func(t *Thread)) func(*Posture) {
		return func(p *Posture) { change(&p.Threads[1]) }
	}
	for _, tt := range []struct {
		name, want string
		missing    Mechanisms // which makes it good
		change     func(p *Posture)
	}{
		{"inheritable", "the inheritable set has cap_chown", 0, thread(func(t *Thread) { t.Inheritable = one })},
		{"permitted", "the permitted set has cap_chown", 0, thread(func(t *Thread) { t.Permitted = one })},
		{"effective", "the effective set has cap_sys_admin", 0, thread(func(t *Thread) { t.Effective = all })},
		{"ambient", "the ambient set has cap_chown", 0, thread(func(t *Thread) { t.Ambient = one })},
		{"bounding", "the bounding set has cap_chown", Identity | Namespaces, thread(func(t *Thread) { t.Bounding = one })},
		{"no_new_privs", "no_new_privs is not set", 0, thread(func(t *Thread) { t.NoNewPrivs = false })},
		{"no filter", "seccomp mode is 0", 0, thread(func(t *Thread) { t.Seccomp = 0 })},
		{"strict mode", "seccomp mode is 1", 0, thread(func(t *Thread) { t.Seccomp = 1 })},
		{"an inherited filter", "no filter of its own: 1 in all", 0, thread(func(t *Thread) { t.Filters = 1 })},
		{"real uid", "uids are [0 1000 1000 1000]", Identity, thread(func(t *Thread) { t.UID[0] = 0 })},
		{"effective uid", "uids are", Identity, thread(func(t *Thread) { t.UID[1] = 0 })},
		{"saved uid", "uids are", Identity, thread(func(t *Thread) { t.UID[2] = 0 })},
		{"file system uid", "uids are", Identity, thread(func(t *Thread) { t.UID[3] = 0 })},
		{"real gid", "gids are", Identity, thread(func(t *Thread) { t.GID[0] = 0 })},
		{"effective gid", "gids are", Identity, thread(func(t *Thread) { t.GID[1] = 0 })},
		{"saved gid", "gids are", Identity, thread(func(t *Thread) { t.GID[2] = 0 })},
		{"file system gid", "gids are", Identity, thread(func(t *Thread) { t.GID[3] = 0 })},
		{"one group more", "groups are [0 20 30]", Identity, thread(func(t *Thread) { t.Groups = []int{0, 20, 30} })},
		{"one group less", "groups are [20]", Identity, thread(func(t *Thread) { t.Groups = []int{20} })},
		{"another root", `root is "/", want "/srv"`, Root, func(p *Posture) { p.Root = "/" }},
		{"root beside", `root is "/srv2"`, Root, func(p *Posture) { p.Root = "/srv2" }},
		{"network", "shares the monitor's namespace net", Namespaces, func(p *Posture) { p.Namespaces["net"] = "net:[1]" }},
		{"IPC", "shares the monitor's namespace ipc", Namespaces, func(p *Posture) { p.Namespaces["ipc"] = "ipc:[1]" }},
		{"host name", "shares the monitor's namespace uts", Namespaces, func(p *Posture) { p.Namespaces["uts"] = "uts:[1]" }},
		{"processes", "shares the monitor's namespace pid", Namespaces, func(p *Posture) { p.Namespaces["pid"] = "pid:[1]" }},
		{"hidden", "can't be read", Proof, func(p *Posture) { *p = Posture{PID: 1, Threads: p.Threads, Hidden: true} }},
		{"a file", "descriptor 5 /etc/shadow", 0, func(p *Posture) { p.Files = append(p.Files, "5 /etc/shadow") }},
		{"a socket more", "descriptor 5 socket:[9]", 0, func(p *Posture) { p.Files = append(p.Files, "5 socket:[9]") }},
		{"a pipe more", "descriptor 5 pipe:[9]", 0, func(p *Posture) { p.Files = append(p.Files, "5 pipe:[9]") }},
		{"an inotify", "descriptor 5 anon_inode:inotify", 0, func(p *Posture) { p.Files = append(p.Files, "5 anon_inode:inotify") }},
		{"standard input", "descriptor 0 /dev/tty", 0, func(p *Posture) { p.Files[0] = "0 /dev/tty" }},
		{"standard error", "descriptor 2 /var/log/x", 0, func(p *Posture) { p.Files[2] = "2 /var/log/x" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			profile, worker, host := good()
			tt.change(&worker)
			var e *PostureError
			if err := worker.Check(&profile, 0, &host); !errors.As(err, &e) || !strings.Contains(e.What, tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.missing == 0 {
				everything := Mechanisms(1<<len(mechanismNames) - 1)
				err := worker.Check(&profile, everything&^(Identity|Namespaces), &host)
				if !errors.As(err, &e) {
					t.Errorf("a mechanism that is missing excuses it: %v", err)
				}
				return
			}
			if err := worker.Check(&profile, tt.missing, &host); err != nil {
				t.Errorf("%v is missing, and still: %v", tt.missing, err)
			}
			for i := range mechanismNames {
				if m := Mechanisms(1 << i); !tt.missing.Has(m) && worker.Check(&profile, m, &host) == nil {
					t.Errorf("%v excuses it", m)
				}
			}
		})
	}
	profile, worker, host := good()
	profile.Root = ""
	if err := worker.Check(&profile, 0, &host); err == nil || !strings.Contains(err.Error(), "want none") {
		t.Errorf("a root where none is wanted: got %v", err)
	}
}

func TestPostureString(t *testing.T) {
	_, worker, _ := good()
	worker.Threads = worker.Threads[:1]
	want := `pid 101 thread 101 uid 1000 gid 100 caps inh= prm= eff= bnd= amb= NoNewPrivs true Seccomp 2
pid 101 root "/srv" files ["0 /dev/null" "1 /dev/null" "2 pipe:[1]" "3 socket:[2]" "4 anon_inode:[eventpoll]" "7 anon_inode:[eventfd]"]
`
	if got := worker.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	worker.Hidden = true
	if got := worker.String(); strings.Contains(got, "root") {
		t.Errorf("what is hidden is printed: %s", got)
	}
	if !slices.Equal(worker.Threads[0].Groups, []int{20, 30}) {
		t.Error("String changed it")
	}
}
