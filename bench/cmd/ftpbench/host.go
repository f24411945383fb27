package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/bench/peer"
)

// machine names what the figures were measured on.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%s, %d cores, Linux %s, %s %s",
		model, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), runtime.GOARCH)
}

func versions(servers []*peer.Server) string {
	var v []string
	for _, s := range servers {
		v = append(v, s.Name+" "+s.Version)
	}
	return strings.Join(v, ", ")
}

// rest waits until the whole machine is nearly idle, and reports whether it
// became so in time. Not only the servers count: what the kernel does after
// them, such as freeing network namespaces, would be charged to the next.
func rest(atMost time.Duration) bool {
	time.Sleep(100 * time.Millisecond)
	for deadline := time.Now().Add(atMost); ; {
		busy0, all0 := ticks()
		time.Sleep(200 * time.Millisecond)
		busy1, all1 := ticks()
		if float64(busy1-busy0) <= 0.05*float64(all1-all0) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// ticks returns the processors' busy time and all of their time so far.
func ticks() (busy, all uint64) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(line) {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil || i > 8 { // the name; guest time, which user time has already
			continue
		}
		all += v
		if i != 4 && i != 5 { // idle, waiting for a disk
			busy += v
		}
	}
	return busy, all
}
