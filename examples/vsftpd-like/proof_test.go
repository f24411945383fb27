//go:build linux

package main

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What proves a login is a *user, and a handler that refuses has none: no answer
// may be taken for a proof because it is no error, or has nothing in it.
func TestNoUserWithoutProof(t *testing.T) {
	newClient := clients(t)
	for _, r := range []LoginRequest{
		{}, {User: "anonymous"}, {User: "root"}, {User: "root", Password: "x"}, {User: "nobody"}, {User: "a"}, {User: "a", Password: "a"},
	} {
		if r.User == "anonymous" {
			continue // asks for no password
		}
		c, _ := newClient()
		// A login that is refused waits a second, unless its caller is gone.
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		reply, next, err := c.login(ctx, r)
		cancel()
		if err == nil || next != nil || reply.Files != nil {
			t.Errorf("%+v: got %+v, %v, error %v", r, reply, next, err)
		}
	}
}

// A port that was used is gone, whatever became of its use (CVE-2015-6564 was a
// context that was used once more after it was freed).
func TestNoPortAfterItsUse(t *testing.T) {
	c, done := clients(t)()
	defer done()
	u := &user{client: c}
	for range 2 {
		if _, err := u.listenData(t.Context(), ListenDataRequest{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		_, err := u.acceptData(ctx, AcceptDataRequest{})
		cancel()
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a timeout", err)
		}
		if _, err := u.acceptData(t.Context(), AcceptDataRequest{}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("got %v, want EINVAL: no port is open", err)
		}
	}
}

// "active = no" is the monitor's to keep: a worker that was taken over asks all the
// same.
func TestNoActiveConnection(t *testing.T) {
	newClient := clients(t)
	for _, active := range []bool{true, false} { // the first is the control
		c, done := newClient()
		defer done()
		c.server.config.Active = active
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		reply, err := (&user{client: c}).connectData(t.Context(), ConnectDataRequest{uint16(l.Addr().(*net.TCPAddr).Port)})
		if reply.Data != nil {
			reply.Data.Close()
		}
		if active != (err == nil) || !active && !errors.Is(err, syscall.EPERM) {
			t.Errorf("active %v: %v", active, err)
		}
		l.SetDeadline(time.Now().Add(50 * time.Millisecond))
		conn, err := l.Accept()
		if active != (err == nil) {
			t.Errorf("active %v: accepted: %v", active, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}
