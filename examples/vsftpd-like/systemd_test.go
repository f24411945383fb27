//go:build linux

package main

import (
	"log/slog"
	"net"
	"testing"
	"time"
)

// TestDeafManager: a service manager that reads nothing keeps nobody waiting.
func TestDeafManager(t *testing.T) {
	path := t.TempDir() + "/notify"
	deaf, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	m, err := newManager(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	full := false
	for range 10_000 {
		m.socket.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := m.socket.Write([]byte("WATCHDOG=1")); err != nil {
			full = true
			break
		}
	}
	if !full {
		t.Fatal("it holds 10,000 messages")
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		for range 12 {
			m.tell("WATCHDOG=1")
		}
	}()
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("12 messages took 10 s")
	}
}
