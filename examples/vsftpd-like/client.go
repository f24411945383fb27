package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
	"github.com/go-privsep/sallyport/sandbox"
	"github.com/go-privsep/sallyport/seccomp"
)

// failedLoginDelay slows guessing down, as vsftpd's delay_failed_login.
const failedLoginDelay = time.Second

// A client is a peer that has proved nothing: the state of phase preauth.
type client struct {
	server  *server
	log     *slog.Logger
	slot    *admission.Slot
	control *net.TCPConn
	local   netip.AddrPort // of the control connection, as the monitor saw it
	remote  netip.AddrPort
	passive *os.File // the port that waits for a data connection, or nil
	lent    *pooled  // whose it is; nil: it was opened for this
}

// launchSession gives the control connection to a worker that has nothing else.
func (c *client) launchSession() privsep.Launch {
	l := privsep.Launch{
		Role:    &sessionRole,
		Sandbox: c.server.sessionSandbox(),
		Message: &SessionConfig{
			Banner:      c.server.config.Banner,
			Local:       c.local.String(),
			Remote:      c.remote.String(),
			Active:      c.server.config.Active,
			IdleSeconds: seconds(c.server.config.IdleTimeout),
			DataSeconds: seconds(c.server.config.DataTimeout),
			TLS:         c.server.keys != nil,
			TLSLogin:    c.server.keys != nil && !c.server.config.PlainLogin,
			TLSData:     c.server.keys != nil && !c.server.config.PlainData,
			TLSReuse:    c.server.config.TLSReuse,
		},
		Timeout: admission.Jitter(c.server.config.LoginTimeout),
		Spares:  c.server.config.Spares,
		Share:   c.server.shareSession(c.remote.Addr()),
	}
	if control, err := c.control.File(); err == nil {
		l.Files = []*os.File{control}
	}
	return l
}

func seconds(d time.Duration) uint32 { return uint32(min(d/time.Second, math.MaxUint32)) }

// shareSession says with whom a client of an address shares a worker.
func (s *server) shareSession(from netip.Addr) privsep.Share {
	switch s.config.Isolation {
	case config.PerAddress:
		return privsep.Share{Key: from.String(), Sessions: s.config.SessionsPerWorker}
	case config.PerAny:
		return privsep.Share{Sessions: s.config.SessionsPerWorker}
	}
	return privsep.Share{}
}

// shareFiles says with whom a user shares a files worker: with nobody else,
// though the same sandbox may be another's, too.
func (s *server) shareFiles(a *identity) privsep.Share {
	switch {
	case s.config.FilesIsolation != config.PerUser:
		return privsep.Share{}
	case a.anonymous:
		return privsep.Share{Sessions: s.config.SessionsPerWorker}
	}
	return privsep.Share{Key: "user " + a.name, Sessions: s.config.SessionsPerWorker}
}

// sessionSandbox is that of every session worker: no file, no socket of its
// own, and a user of its own out of worker_ids. FileSize is what it may write to descriptors that it was handed.
func (s *server) sessionSandbox() privsep.Sandbox {
	return privsep.Sandbox{
		Promises: seccomp.Streams | seccomp.Transfer | seccomp.Files,
		FileSize: math.MaxInt64,
		Without:  s.without,
	}
}

// login proves who the client is. The account that it returns can be had from
// nowhere else, and with it the session is in phase authed.
func (c *client) login(ctx context.Context, r LoginRequest) (LoginReply, *user, error) {
	who, err := c.server.authenticate(ctx, r)
	if err != nil {
		var refused *loginRefusal
		if errors.As(err, &refused) {
			c.log.Warn("login failed", "user", r.User, "reason", refused.reason)
			c.slot.LoginFailed(r.User, r.Password)
			c.server.metrics.penalty("failed login")
			pause(ctx, failedLoginDelay)
		}
		return LoginReply{}, nil, err
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		return LoginReply{}, nil, err
	}
	c.slot.LoggedIn()
	c.log.Info("login", "user", who.name, "anonymous", who.anonymous)
	return LoginReply{
		Files: mine, UID: who.uid, GIDs: gids(who), Writable: who.writable, HideIDs: c.hideIDs(who),
	}, &user{client: c, account: who, channel: theirs}, nil
}

func gids(a *identity) []uint32 { return append([]uint32{a.gid}, a.groups...) }

func (c *client) hideIDs(a *identity) bool { return c.server.config.HideIDs || a.anonymous }

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// A user is a client that has logged in: the state of phase authed.
type user struct {
	*client
	account *identity
	channel *os.File // the files worker's end

	unsigned bool // there was a data connection since the last signature for one
}

// launchFiles starts the worker that has the user's files, and nothing else.
func (u *user) launchFiles() privsep.Launch {
	l := privsep.Launch{
		Role:    &filesRole,
		Sandbox: u.server.filesSandbox(u.account),
		Files:   []*os.File{u.channel},
		Message: &FilesConfig{
			Writable: u.account.writable,
			Beneath:  u.server.without.Has(sandbox.Root),
			Perm:     0o666 &^ u.server.config.Umask,
			HideIDs:  u.hideIDs(u.account),
			UID:      u.account.uid,
			GIDs:     gids(u.account),
		},
		Share: u.server.shareFiles(u.account),
	}
	if u.account.anonymous {
		l.Spares = u.server.config.Spares // the same for all of them
	}
	return l
}

func (s *server) filesSandbox(a *identity) privsep.Sandbox {
	return s.treeSandbox(a.uid, a.gid, a.groups, a.home, a.writable)
}

// treeSandbox is that of a files worker: one user, one tree.
func (s *server) treeSandbox(uid, gid uint32, groups []uint32, root string, write bool) privsep.Sandbox {
	p := privsep.Sandbox{
		UID:      uid,
		GID:      gid,
		Groups:   groups,
		Root:     root,
		Read:     []string{"/"},
		Promises: seccomp.ReadPaths | seccomp.Files,
		Umask:    s.config.Umask,
		Without:  s.without,
	}
	if write {
		p.Read, p.Write = nil, []string{"/"}
		p.Promises |= seccomp.WritePaths
		p.FileSize = math.MaxInt64
	}
	return p
}

// errNoListener is the answer to an AcceptData without a ListenData.
var errNoListener = os.NewSyscallError("accept", syscall.EINVAL)

// Peer is whom the monitor's log and audit name.
func (c *client) Peer() string { return c.remote.String() }
