package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
	"github.com/go-privsep/sallyport/sandbox"
)

// A server is one configuration and all that was made of it. It is never
// changed: a reload makes another, and a session keeps the one that it began
// with.
type server struct {
	*instance
	config   config.Config
	settings account.Settings // of who may log in
	accounts *accounts
	keys     *keys // nil: no TLS

	using   sync.Mutex
	users   int  // sessions that have it
	retired bool // another has taken its place
}

// An instance is what all configurations of one process share: it accepts
// connections and gives each to a session. It reads and writes no byte of any.
type instance struct {
	without  sandbox.Mechanisms // what may be missing on this host
	missing  sandbox.Mechanisms // what of these the monitor itself is without
	log      *slog.Logger
	monitor  *privsep.Monitor
	preauth  *privsep.Phase[client]
	lowPorts bool // the policy declares CAP_NET_BIND_SERVICE
	ports    portShare
	pool     *pool    // has no port: each is opened when it is asked for
	metrics  *metrics // nil: nobody asks for them
	scrape   string   // the socket where they are
	doors    doors
	draining sync.WaitGroup // doors that are given up

	current  atomic.Pointer[server]
	gate     *admission.Gate
	turned   seldom // connections turned away
	stranger seldom // data connections of strangers
	sessions sync.WaitGroup
}

// newServer makes an instance and its first configuration. The caller closes
// its monitor.
func newServer(c config.Config, policyOf policyMaker, ports *pool, without sandbox.Mechanisms, log *slog.Logger, u *privsep.Upgrade, before *privsep.Predecessor) (*server, error) {
	i := &instance{pool: ports, without: without, log: log, scrape: c.MetricsSocket, doors: doors{}, gate: admission.NewGate(admission.Limits{}, admission.Penalties{})}
	policy, preauth, _ := policyOf(c.ConnectFrom)
	i.preauth = preauth
	i.lowPorts = policy.Caps().Has(caps.NetBindService)
	watched := privsep.Config{Log: log, WorkerIDs: c.WorkerIDs, Upgrade: u, Predecessor: before}
	if i.scrape != "" {
		i.metrics = new(metrics)
		watched.Observer = i.metrics
	}
	var err error
	if i.monitor, err = privsep.NewMonitor(policy, watched); err != nil {
		return nil, err
	}
	i.pool.claims = i.monitor
	s, err := i.configure(c)
	if err != nil {
		i.monitor.Close()
		return nil, err
	}
	i.adopt(s)
	return s, nil
}

// configure makes a server of c. Nothing uses it before adopt.
func (i *instance) configure(c config.Config) (*server, error) {
	if port := c.ConnectFrom; 0 < port && port < 1024 && !i.lowPorts {
		return nil, c.Mistake("connect_from_port", "the monitor has given up CAP_NET_BIND_SERVICE, because it was started without this: restart it")
	}
	if c.MetricsSocket != i.scrape {
		return nil, c.Mistake("metrics_socket", "it is the one of the start as long as the server runs: restart it")
	}
	if now := i.current.Load(); now != nil && now.config.WorkerIDs != c.WorkerIDs {
		return nil, c.Mistake("worker_ids", "workers have those of the start: restart it")
	} else if now != nil && now.config.MonitorUser != c.MonitorUser {
		return nil, c.Mistake("monitor_user", "the monitor has left root and can't change its user: restart it")
	}
	settings, err := c.Accounts()
	if err != nil {
		return nil, err
	}
	s := &server{instance: i, config: c, settings: settings}
	if s.accounts, err = i.keepAccounts(newAccountsConfig(&settings), settings.Paths()); err != nil {
		return nil, err
	}
	if c.TLSKey != "" {
		if s.keys, err = i.keepKeys(c.TLSKey, c.TLSCertificate); err != nil {
			s.close()
			return nil, c.Mistake("tls_key", err.Error())
		}
	}
	return s, nil
}

// use begins a session with s, unless another has taken its place meanwhile.
func (s *server) use() bool {
	s.using.Lock()
	defer s.using.Unlock()
	if !s.retired {
		s.users++
	}
	return !s.retired
}

// unuse ends a session. The keepers of a retired server end with its last.
func (s *server) unuse() {
	s.using.Lock()
	s.users--
	last := s.retired && s.users == 0
	s.using.Unlock()
	if last {
		s.close()
	}
}

func (s *server) retire() {
	s.using.Lock()
	s.retired = true
	last := s.users == 0
	s.using.Unlock()
	if last {
		s.close()
	}
}

// close ends what s alone has.
func (s *server) close() {
	s.accounts.keeper.Close()
	if s.keys != nil {
		s.keys.keeper.Close()
	}
}

// adopt makes s what new sessions get.
func (i *instance) adopt(s *server) {
	// Half of the ports, so that one client can't keep them from others.
	ports := int(s.config.PassivePorts.Max) - int(s.config.PassivePorts.Min) + 1
	if i.pool.has() {
		ports = len(i.pool.ports)
	}
	i.ports.setLimit(max(1, ports/2))
	i.gate.SetLimits(s.config.Limits(), s.config.Penalized())
	if old := i.current.Swap(s); old != nil {
		old.retire()
	}
}

// serve accepts at all until control returns, and returns itself when no session
// is left. When ctx ends, sessions do.
func (i *instance) serve(ctx context.Context, all doors, control func()) {
	i.enter(ctx, all)
	control()
	i.doors.close()
	i.draining.Wait()
	i.sessions.Wait()
}

// welcome begins a session with who has connected, or turns it away.
func (i *instance) welcome(ctx context.Context, conn *net.TCPConn) {
	s := i.current.Load()
	for !s.use() {
		s = i.current.Load()
	}
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	slot, err := s.gate.Admit(remote.Addr())
	if err != nil {
		s.metrics.turnedAway(err)
		if silent, now := s.turned.line(); now {
			s.log.Warn("turned away", "peer", remote, "err", err, "others", silent)
		}
		turnAway(conn)
		s.unuse()
		return
	}
	s.sessions.Go(func() {
		defer s.unuse()
		s.session(ctx, conn, slot, unmap(local), unmap(remote))
	})
}

func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// turnAway tells a client that there is no room. A new socket's buffer takes
// the line at once; a deadline sees to it that nothing waits here.
func turnAway(conn *net.TCPConn) {
	defer conn.Close()
	if conn.SetWriteDeadline(time.Now().Add(time.Millisecond)) == nil {
		_, _ = conn.Write([]byte("421 Too many sessions, try again later.\r\n"))
	}
}

// session serves one client from its first byte to its last worker's end.
func (s *server) session(ctx context.Context, conn *net.TCPConn, slot *admission.Slot, local, remote netip.AddrPort) {
	defer hangUp(conn)
	log := s.log.With("peer", remote)
	c := &client{server: s, log: log, slot: slot, control: conn, local: local, remote: remote}
	defer c.closePassive()
	err := inlineUrgent(conn)
	if err == nil {
		log.Debug("session")
		err = privsep.Serve(ctx, s.monitor, s.preauth, c)
	}
	if ctx.Err() != nil {
		slot.Close(ctx.Err()) // how a session ends with its daemon is nobody's offence
		return
	}
	offence := slot.Close(err)
	if offence != admission.NoOffence {
		s.metrics.penalty(offence.String())
	}
	switch {
	case offence == admission.Suspect:
		// The filter is wrong, or the worker is somebody else's: a human
		// has to look. No client is made to pay for the first.
		log.Error("ALARM: a worker made a system call that it has no use for", "err", err)
	case err != nil:
		log.Warn("session ended", "err", err, "offence", offence.String())
	}
}

// hangUp ends the connection for whoever else has it: a worker that serves on,
// and was taken over, could have kept it.
func hangUp(conn *net.TCPConn) {
	_ = conn.CloseRead() // both fail if the client was first
	_ = conn.CloseWrite()
	conn.Close()
}

// inlineUrgent keeps the last byte of an ABOR that is sent as urgent data,
// which the worker may not ask for itself.
func inlineUrgent(conn *net.TCPConn) (err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	e := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_OOBINLINE, 1)
	})
	return errors.Join(e, err)
}
