package peer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// PIDs returns the server's processes: the one started and all below it.
func (in *Instance) PIDs() []int {
	children := make(map[int][]int)
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := status(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	tree := []int{in.process.Pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree
}

// status returns a process's state letter and its parent; not ok if it's gone.
func status(pid int) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The name in parentheses may hold anything, parentheses too.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// zombie reports whether a process has ended and only its parent doesn't know
// yet. An orphan's parent is init, which may take its time.
func zombie(pid int) bool {
	state, _, ok := status(pid)
	return ok && state == "Z"
}

// Processor returns the time that processes have run so far, with all their
// threads, as the scheduler counts it (/proc/PID/task/TID/schedstat).
func (in *Instance) Processor(pids ...int) (total time.Duration, err error) {
	for _, pid := range pids {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, path := range threads {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			var ns int64
			if _, err := fmt.Sscan(string(text), &ns); err != nil {
				return 0, fmt.Errorf("peer: %s: %w", path, err)
			}
			total += time.Duration(ns)
		}
	}
	return total, nil
}

// Monitor is the process that was started: sallyport's monitor, and of a server
// that forks the one that accepts.
func (in *Instance) Monitor() int { return in.process.Pid }

// PSS returns the proportional set size of all the server's processes, in
// bytes: a page that n processes share counts as an nth in each.
func (in *Instance) PSS() (int64, error) { return in.PSSOf(in.PIDs()...) }

// PSSOf is that of some of them.
func (in *Instance) PSSOf(pids ...int) (int64, error) {
	var total int64
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended
		}
		if err != nil {
			return 0, err
		}
		for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
			var kib int64
			if n, _ := fmt.Sscanf(s.Text(), "Pss: %d kB", &kib); n == 1 {
				total += kib << 10
			}
		}
	}
	return total, nil
}

// Charged returns what the kernel charges the server's processes for, in bytes:
// their pages and the kernel's own memory for them (stacks, page tables,
// sockets, namespaces). The error is errors.ErrUnsupported where no memory
// cgroup could be made.
func (in *Instance) Charged() (int64, error) {
	if in.memory == nil {
		return 0, errors.ErrUnsupported
	}
	b, err := os.ReadFile(in.memory.usage)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// A memoryGroup is a memory cgroup below the bench's own, so that whatever
// limits the bench limits the server too.
type memoryGroup struct{ dir, usage string }

func newMemoryGroup() (*memoryGroup, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(own)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		root, usage := "/sys/fs/cgroup", "memory.current" // version 2
		switch f[1] {
		case "memory":
			root, usage = "/sys/fs/cgroup/memory", "memory.usage_in_bytes" // version 1
		case "":
		default:
			continue
		}
		dir, err := os.MkdirTemp(filepath.Join(root, f[2]), "ftpbench-")
		if err != nil {
			continue
		}
		g := &memoryGroup{dir, filepath.Join(dir, usage)}
		if _, err := os.Stat(g.usage); err == nil {
			return g, nil
		}
		os.Remove(dir) // the hierarchy has no memory controller
	}
	return nil, errors.ErrUnsupported
}

// remove waits for the last process to leave: it does so a moment after it has
// been waited for.
func (g *memoryGroup) remove() error {
	var err error
	for range 100 {
		if err = os.Remove(g.dir); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}
