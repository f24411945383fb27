package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// A listener is a testing.TB that a test fails in place of itself.
type listener struct {
	testing.TB
	said     strings.Builder
	cleanups []func()
}

func (l *listener) Helper()                   {}
func (l *listener) Failed() bool              { return l.said.Len() > 0 }
func (l *listener) Cleanup(f func())          { l.cleanups = append(l.cleanups, f) }
func (l *listener) Errorf(f string, a ...any) { fmt.Fprintf(&l.said, f, a...) }
func (l *listener) end() {
	for _, f := range l.cleanups {
		f()
	}
}

// What is left behind is found, and what is gone in time is not.
func TestNoLeaksFinds(t *testing.T) {
	NoLeaks(t) // for the sake of what this test itself leaves
	held, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		do   func() (undo func())
		want string
	}{
		{"a descriptor", func() func() {
			f, _ := os.Open(os.DevNull)
			return func() { f.Close() }
		}, "/dev/null"},
		{"a descriptor of the poller's", func() func() {
			r, w, _ := os.Pipe()
			return func() { r.Close(); w.Close() }
		}, "pipe:"},
		{"another's descriptor closed", func() func() { held.Close(); return func() {} }, "left behind"},
		{"a goroutine", func() func() {
			stop := make(chan bool)
			go func() { <-stop }()
			return func() { close(stop) }
		}, "TestNoLeaksFinds"},
		{"a process", func() func() {
			cmd := exec.Command("sleep", "60")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { cmd.Process.Kill(); cmd.Wait() }
		}, "children [\""},
		{"what ends by itself", func() func() {
			go time.Sleep(50 * time.Millisecond)
			return func() {}
		}, ""},
	} {
		l := &listener{TB: t}
		noLeaks(l, 300*time.Millisecond)
		undo := tt.do()
		l.end()
		if got := l.said.String(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		undo()
	}
}
