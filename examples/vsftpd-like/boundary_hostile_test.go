//go:build linux

package main

import (
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/store"
	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep/privseptest"
)

// clients makes states of phase preauth, and what releases them.
func clients(t *testing.T) func() (*client, func()) {
	t.Helper()
	c, remove, err := demo(nil)
	t.Cleanup(remove)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(c, newPolicy, new(pool), hostWithout(), slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		if os.Geteuid() != 0 { // a host without user namespaces, or a test built with cgo
			t.Log(err)
			testenv.NeedRoot(t)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { s.monitor.Close() })
	n := byte(0) // a source that fails logins is kept out
	return func() (*client, func()) {
		n++
		slot, err := s.gate.Admit(netip.AddrFrom4([4]byte{192, 0, 2, n}))
		if err != nil {
			t.Fatal(err)
		}
		slot.Close(nil)
		c := &client{
			server: s, log: s.log, slot: slot,
			local: netip.MustParseAddrPort("127.0.0.1:21"), remote: netip.MustParseAddrPort("127.0.0.1:40000"),
		}
		return c, c.closePassive
	}
}

// The kit's attacks on both of the server's policies: the session worker's on the
// monitor, before a login and after, and on a files worker.
func TestBoundaryHostile(t *testing.T) {
	newClient := clients(t)
	c, _ := newClient()
	who, err := c.server.authenticate(t.Context(), LoginRequest{User: "anonymous", Password: "x"})
	if err != nil {
		t.Fatal(err)
	}
	newUser := func() (*user, func()) {
		c, done := newClient()
		return &user{client: c, account: who}, done
	}

	_, preauth, authed := newPolicy(0)
	t.Run("preauth", func(t *testing.T) { privseptest.Hostile(t, preauth, newClient, certificateVerify()) })
	t.Run("authed", func(t *testing.T) {
		privseptest.Hostile(t, authed, newUser, ConnectDataRequest{Port: 1025}, certificateVerify())
	})
	t.Run("files", func(t *testing.T) {
		_, serving := newFilesPolicy()
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		privseptest.Hostile(t, serving, func() (*fileServer, func()) {
			return &fileServer{store.New(root, store.Options{Writable: true, Perm: 0o600})}, nil
		})
	})
}
