//go:build linux

package main

import (
	"context"
	"errors"
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
