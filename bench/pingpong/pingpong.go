// Package pingpong is the floor under a call: two C processes that send each
// other 64-byte packets over a SOCK_SEQPACKET socketpair and do nothing else.
// They run on whatever processors the caller may run on.
package pingpong

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

//go:embed testdata/pingpong.c
var source []byte

// A Program is the compiled ping-pong.
type Program struct{ path string }

// Build compiles the program into dir with "gcc -O2".
func Build(dir string) (*Program, error) {
	file, path := filepath.Join(dir, "pingpong.c"), filepath.Join(dir, "pingpong")
	if err := os.WriteFile(file, source, 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("gcc", "-O2", "-Wall", "-Werror", "-o", path, file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pingpong: gcc: %w\n%s", err, out)
	}
	return &Program{path}, nil
}

// Run does n round trips, after 1000 that don't count, and returns how long
// they took.
func (p *Program) Run(n int) (time.Duration, error) {
	out, err := exec.Command(p.path, strconv.Itoa(n)).Output()
	if err != nil {
		return 0, fmt.Errorf("pingpong: %w", err)
	}
	ns, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return time.Duration(ns), err
}
