package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
)

const (
	// passiveTries is how many ports are tried at random, which keeps
	// strangers from guessing, before all of the range are tried in turn.
	passiveTries = 9

	// passiveBacklog is more than the one connection that is awaited, so that
	// strangers can't keep the client out.
	passiveBacklog = 32
)

// listenData opens a port on the address that the client already talks to.
func (u *user) listenData(_ context.Context, _ ListenDataRequest) (ListenDataReply, error) {
	u.closePassive()
	if !u.server.ports.take(u.remote.Addr()) {
		return ListenDataReply{}, os.NewSyscallError("listen", syscall.EADDRINUSE)
	}
	l, port, err := u.listen()
	if err != nil {
		u.server.ports.give(u.remote.Addr())
		return ListenDataReply{}, err
	}
	u.passive = l
	address := u.local.Addr().Unmap()
	if told := u.server.config.PassiveAddress; told.IsValid() && address.Is4() {
		address = told
	}
	return ListenDataReply{Address: address.String(), Port: port}, nil
}

// listen returns a socket that the runtime's poller doesn't know, unless it is
// the service manager's: it would wake the monitor when the client connects, and
// again when the worker asks.
func (u *user) listen() (l *os.File, port uint16, err error) {
	if pool := u.server.pool; pool.has() {
		if u.lent, l, err = pool.lend(u.local.Addr().Unmap()); err != nil {
			return nil, 0, err
		}
		return l, u.lent.address.Port(), nil
	}
	first, last := u.server.config.PassivePorts.Min, u.server.config.PassivePorts.Max
	ports := int(last) - int(first) + 1
	zone, err := zoneIndex(u.local.Addr().Zone())
	if err != nil {
		return nil, 0, err
	}
	fd := -1
	for try := range passiveTries + ports {
		at := try - passiveTries
		if at < 0 {
			at = rand.N(ports)
		}
		port = first + uint16(at)
		fd, err = sys.Listen(netip.AddrPortFrom(u.local.Addr(), port), zone, passiveBacklog)
		if err != syscall.EADDRINUSE {
			break
		}
	}
	if err != nil {
		return nil, 0, os.NewSyscallError("listen", err)
	}
	return unpolled(fd, "passive"), port, nil
}

// unpolled makes a file of a blocking descriptor and then the descriptor
// nonblocking, for whoever gets it next.
func unpolled(fd int, name string) *os.File {
	f := os.NewFile(uintptr(fd), name)
	_ = sys.SetNonblock(fd) // can't fail: the descriptor is open
	return f
}

// zoneIndex is the number of a link-local address's interface.
func zoneIndex(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	i, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(i.Index), nil
}

func (c *client) closePassive() {
	if c.passive != nil {
		c.passive.Close()
		c.passive = nil
		if c.lent != nil {
			c.server.pool.give(c.lent)
			c.lent = nil
		}
		c.server.ports.give(c.remote.Addr())
	}
}

// acceptData takes the first connection that comes from the client's own
// address. Others are closed without a byte: with predictable ports a
// stranger could else fetch, or forge, what the client asked for.
func (u *user) acceptData(ctx context.Context, _ AcceptDataRequest) (DataReply, error) {
	if u.passive == nil {
		return DataReply{}, errNoListener
	}
	defer u.closePassive()
	var data *os.File
	var failed error
	take := func(l uintptr) (done bool) {
		for {
			conn, from, err := sys.Accept(l)
			if err != nil {
				failed = os.NewSyscallError("accept", err)
				return err != syscall.EAGAIN
			}
			data, failed = unpolled(conn, "data"), nil
			if from.Unmap() == u.remote.Addr().Unmap().WithZone("") {
				return true
			}
			if others, now := u.server.stranger.line(); now {
				u.log.Warn("data connection from a stranger", "from", from, "others", others)
			}
			data.Close()
			data = nil
		}
	}
	// A client has mostly connected before it says for what.
	if take(u.passive.Fd()) {
		u.unsigned = failed == nil
		return DataReply{data}, failed
	}
	l, err := polled(u.passive)
	if err != nil {
		return DataReply{}, err
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := l.SyscallConn()
	if err == nil {
		err = raw.Read(take)
	}
	if err == nil {
		err = failed
	}
	if err != nil && ctx.Err() != nil {
		err = ctx.Err()
	}
	u.unsigned = err == nil
	return DataReply{data}, err
}

// polled returns a file of the same socket that can be waited for.
func polled(f *os.File) (*os.File, error) {
	fd, err := sys.Duplicate(f.Fd())
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// connectData connects from the control connection's address to its peer.
func (u *user) connectData(ctx context.Context, r ConnectDataRequest) (DataReply, error) {
	if !u.server.config.Active { // which the worker was told, and may have forgotten
		return DataReply{}, os.NewSyscallError("connect", syscall.EPERM)
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(u.local.Addr(), u.server.config.ConnectFrom))}
	if u.server.config.ConnectFrom != 0 {
		// Many sessions share the one port, to different peers.
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			e := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
			})
			return errors.Join(e, err)
		}
	}
	conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(u.remote.Addr(), r.Port).String())
	if err != nil {
		return DataReply{}, err
	}
	// From here no one in the monitor has it.
	defer conn.Close()
	f, err := conn.(*net.TCPConn).File()
	u.unsigned = err == nil
	return DataReply{f}, err
}
