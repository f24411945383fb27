package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/caps"
)

// A Posture is what the kernel says is in force for a process.
type Posture struct {
	PID     int
	Threads []Thread

	// Root, Namespaces and Files are known only to a reader with
	// CAP_SYS_PTRACE over the process; Hidden says that this one had none.
	// Files is also nil for the owner of the process's user namespace.
	Root       string            // where its root directory is, as the reader sees it
	Namespaces map[string]string // by kind: "net" and so on
	Files      []string          // what each open descriptor is
	Hidden     bool
}

// A Thread is one thread's part of a [Posture].
type Thread struct {
	TID                                                  int
	UID, GID                                             [4]int // real, effective, saved, file system
	Groups                                               []int
	Inheritable, Permitted, Effective, Bounding, Ambient caps.Set
	Tracer                                               int // process that traces it; 0: none
	NoNewPrivs                                           bool
	Seccomp                                              int // 2: filtered
	Filters                                              int // how many; since Linux 5.9
}

// Evidence is what the kernel says of a process, as it says it. Who reads it
// needs a right over the process that who judges it need not have.
type Evidence struct {
	Status     []string // of each thread, the lines that count
	Root       string
	Namespaces []string // as "net:[4026531840]"
	Files      []string // number and name
	Hidden     bool
}

// ReadPosture reads the posture of every thread of a process from /proc.
func ReadPosture(pid int) (Posture, error) {
	e, err := ReadEvidence("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return Posture{PID: pid}, err
	}
	return e.Posture(pid)
}

// ReadEvidence reads what there is in dir, the process's directory in a /proc.
func ReadEvidence(dir string) (e Evidence, err error) {
	tasks, err := os.ReadDir(dir + "/task")
	if err != nil {
		return e, fmt.Errorf("sandbox: posture: %w", err)
	}
	for _, task := range tasks {
		text, err := readStatus(dir + "/task/" + task.Name() + "/status")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it ended meanwhile
		}
		if err != nil {
			return e, fmt.Errorf("sandbox: posture: %w", err)
		}
		e.Status = append(e.Status, text)
	}
	e.Hidden = e.readLinks(dir) != nil
	return e, nil
}

// Posture is what e means. The error is about evidence that says too little:
// silence never counts as a good posture.
func (e *Evidence) Posture(pid int) (Posture, error) {
	p := Posture{PID: pid, Root: e.Root, Namespaces: make(map[string]string), Files: e.Files, Hidden: e.Hidden}
	for _, text := range e.Status {
		t, err := parseStatus(text)
		if err != nil {
			return p, fmt.Errorf("sandbox: posture: %w", err)
		}
		p.Threads = append(p.Threads, t)
	}
	for _, name := range e.Namespaces {
		kind, _, _ := strings.Cut(name, ":")
		p.Namespaces[kind] = name
	}
	if len(p.Threads) == 0 {
		return p, fmt.Errorf("sandbox: posture: process %d has no thread", pid)
	}
	return p, nil
}

// readStatus reads a status file, which is never longer than a page, at once:
// os.ReadFile would try the poller first, for each thread of each launch.
func readStatus(path string) (string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	var page [4096]byte
	n, err := syscall.Read(fd, page[:])
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	var b strings.Builder
	for line := range bytes.Lines(page[:n]) {
		for _, key := range statusKeys {
			if bytes.HasPrefix(line, []byte(key)) {
				b.Write(line)
			}
		}
	}
	return b.String(), nil
}

// statusKeys begin the lines that count.
var statusKeys = [...]string{"Pid:", "TracerPid:", "Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:", "Seccomp_filters:"}

func (e *Evidence) readLinks(dir string) (err error) {
	if e.Root, err = os.Readlink(dir + "/root"); err != nil {
		return err
	}
	for _, kind := range []string{"net", "ipc", "uts", "user", "mnt", "pid"} {
		name, err := os.Readlink(dir + "/ns/" + kind)
		if err != nil {
			return err
		}
		e.Namespaces = append(e.Namespaces, name)
	}
	files, err := os.ReadDir(dir + "/fd")
	if errors.Is(err, os.ErrPermission) {
		return nil // the owner of the worker's user namespace may read all but this
	}
	for _, f := range files {
		name, err := os.Readlink(dir + "/fd/" + f.Name())
		if err == nil {
			e.Files = append(e.Files, f.Name()+" "+name)
		} else if !errors.Is(err, os.ErrNotExist) { // closed meanwhile
			return err
		}
	}
	return err
}

// parseStatus reads /proc/PID/task/TID/status (proc_pid_status(5)). A missing
// line is an error: silence never counts as a good posture.
func parseStatus(text string) (t Thread, err error) {
	fields := make(map[string][]string)
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok {
			fields[key] = strings.Fields(value)
		}
	}
	number := func(key string) int {
		n, e := strconv.Atoi(strings.Join(fields[key], " "))
		if e != nil && err == nil {
			err = fmt.Errorf("status line %q: %w", key, e)
		}
		return n
	}
	numbers := func(key string) (list []int) {
		if _, ok := fields[key]; !ok && err == nil {
			err = fmt.Errorf("no status line %q", key)
		}
		for _, word := range fields[key] {
			n, e := strconv.Atoi(word)
			if e != nil && err == nil {
				err = fmt.Errorf("status line %q: %w", key, e)
			}
			list = append(list, n)
		}
		return list
	}
	set := func(key string) caps.Set {
		s, e := caps.ParseHex(strings.Join(fields[key], " "))
		if e != nil && err == nil {
			err = fmt.Errorf("status line %q: %w", key, e)
		}
		return s
	}
	t.TID = number("Pid")
	if n := copy(t.UID[:], numbers("Uid")) + copy(t.GID[:], numbers("Gid")); n != 8 && err == nil {
		err = errors.New("status lines Uid and Gid: want four numbers each")
	}
	t.Groups = numbers("Groups")
	t.Tracer = number("TracerPid")
	t.Inheritable, t.Permitted, t.Effective = set("CapInh"), set("CapPrm"), set("CapEff")
	t.Bounding, t.Ambient = set("CapBnd"), set("CapAmb")
	t.NoNewPrivs = number("NoNewPrivs") == 1
	t.Seccomp, t.Filters = number("Seccomp"), number("Seccomp_filters")
	return t, err
}

// A PostureError names the first thing in which a posture is less than its
// profile demands.
type PostureError struct {
	PID, TID int
	What     string
}

func (e *PostureError) Error() string {
	return fmt.Sprintf("sandbox: process %d thread %d: %s", e.PID, e.TID, e.What)
}

// Check returns a [PostureError] unless every thread of the process has all
// that profile demands, but for the missing mechanisms. It must differ from host:
// in its namespaces, and in a filter more than any thread of host has, because
// filters are inherited (seccomp(2)), and no_new_privs with them.
func (p *Posture) Check(profile *Profile, missing Mechanisms, host *Posture) error {
	if p.Hidden && !missing.Has(Proof) {
		return &PostureError{p.PID, 0, "root, namespaces and files can't be read"}
	}
	for i := range p.Threads {
		if what := p.Threads[i].lacks(profile, missing, host); what != "" {
			return &PostureError{p.PID, p.Threads[i].TID, what}
		}
	}
	if p.Hidden {
		return nil
	}
	opened := 0
	for _, f := range p.Files {
		if _, name, _ := strings.Cut(f, " "); !bornWith(f) && strings.HasPrefix(name, "/") && opened < len(profile.Open) {
			opened++ // a link's name may be another than the path's
		} else if !bornWith(f) {
			return &PostureError{p.PID, 0, "it has the descriptor " + f}
		}
	}
	if !missing.Has(Root) {
		if want := profile.Root; want != "" && p.Root != want {
			return &PostureError{p.PID, 0, fmt.Sprintf("root is %q, want %q", p.Root, want)}
		} else if want == "" && !strings.HasSuffix(p.Root, " (deleted)") {
			return &PostureError{p.PID, 0, fmt.Sprintf("root is %q, want none", p.Root)}
		}
	}
	if !missing.Has(Namespaces) {
		for _, kind := range []string{"net", "ipc", "uts", "pid"} {
			if p.Namespaces[kind] == host.Namespaces[kind] {
				return &PostureError{p.PID, 0, "it shares the monitor's namespace " + kind}
			}
		}
	}
	return nil
}

// bornWith reports whether a worker that has been handed nothing yet may have
// a descriptor: the null device, its standard error, its channel, and what the
// runtime polls with.
func bornWith(file string) bool {
	number, what, _ := strings.Cut(file, " ")
	switch number {
	case "0", "1":
		return what == os.DevNull
	case "2":
		return strings.HasPrefix(what, "pipe:") || strings.HasPrefix(what, "socket:")
	case "3":
		return strings.HasPrefix(what, "socket:")
	}
	return what == "anon_inode:[eventpoll]" || what == "anon_inode:[eventfd]"
}

func (t *Thread) lacks(profile *Profile, missing Mechanisms, host *Posture) string {
	for _, s := range []struct {
		name string
		set  caps.Set
	}{
		{"inheritable", t.Inheritable}, {"permitted", t.Permitted}, {"effective", t.Effective},
		{"ambient", t.Ambient}, {"bounding", t.Bounding},
	} {
		// An ordinary user can't lower the bounding set but in a user
		// namespace; with no_new_privs and no exec it bounds nothing.
		if s.name == "bounding" && missing.Has(Identity|Namespaces) {
			continue
		}
		if !s.set.Empty() {
			return fmt.Sprintf("the %s set has %v", s.name, s.set)
		}
	}
	switch {
	case t.Tracer != 0:
		return fmt.Sprintf("process %d traces it", t.Tracer)
	case !t.NoNewPrivs:
		return "no_new_privs is not set"
	case t.Seccomp != 2:
		return fmt.Sprintf("seccomp mode is %d, want 2", t.Seccomp)
	case slices.ContainsFunc(host.Threads, func(h Thread) bool { return t.Filters <= h.Filters }):
		return fmt.Sprintf("it has no filter of its own: %d in all, as it was born", t.Filters)
	case missing.Has(Identity):
		return ""
	case t.UID != [4]int{profile.uid(), profile.uid(), profile.uid(), profile.uid()}:
		return fmt.Sprintf("uids are %v, want %d", t.UID, profile.uid())
	case t.GID != [4]int{profile.gid(), profile.gid(), profile.gid(), profile.gid()}:
		return fmt.Sprintf("gids are %v, want %d", t.GID, profile.gid())
	}
	want := make([]int, len(profile.Groups))
	for i, g := range profile.Groups {
		want[i] = int(g)
	}
	slices.Sort(want) // as the kernel keeps them
	if !slices.Equal(t.Groups, slices.Compact(want)) {
		return fmt.Sprintf("groups are %v, want %v", t.Groups, want)
	}
	return ""
}

// String prints one line a thread, and one for the process where it is known.
func (p *Posture) String() string {
	var b strings.Builder
	for i := range p.Threads {
		t := &p.Threads[i]
		fmt.Fprintf(&b, "pid %d thread %d uid %d gid %d caps inh=%v prm=%v eff=%v bnd=%v amb=%v NoNewPrivs %t Seccomp %d\n",
			p.PID, t.TID, t.UID[1], t.GID[1], t.Inheritable, t.Permitted, t.Effective, t.Bounding, t.Ambient,
			t.NoNewPrivs, t.Seccomp)
	}
	if !p.Hidden {
		fmt.Fprintf(&b, "pid %d root %q files %q\n", p.PID, p.Root, p.Files)
	}
	return b.String()
}
