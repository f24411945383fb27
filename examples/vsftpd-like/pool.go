package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/privsep"
)

const (
	// poolName is what the service manager calls passive ports.
	poolName = "passive"

	// maxPool fits into a handover beside all the doors.
	maxPool = 128

	// stale is how many connections a port that is to be lent may have waiting:
	// more than a queue of passiveBacklog. With more it is being flooded.
	stale = 2 * passiveBacklog
)

// A pool is passive ports that the service manager has opened, for a server that
// has no network to open one in. They listen all the time, so whoever connects to
// one that is not lent waits in its queue: each is emptied before it is lent, and
// after that.
type pool struct {
	claims // of ports that a predecessor or a successor has lent
	mu     sync.Mutex
	ports  []*pooled
}

// Claims are the monitor's.
type claims interface {
	Claim(uint32) (bool, error)
	Unclaim(uint32)
}

type pooled struct {
	fd      int // nonblocking; as long as the process lives
	address netip.AddrPort
	only6   bool
	lent    bool
}

// add makes f, which it closes, one of the pool.
func (p *pool) add(f *os.File) error {
	defer f.Close()
	if len(p.ports) == maxPool {
		return fmt.Errorf("it is one more than %d", maxPool)
	}
	one, err := newPooled(f)
	if err != nil {
		return err
	}
	for _, other := range p.ports {
		if other.address.Port() == one.address.Port() {
			syscall.Close(one.fd)
			return fmt.Errorf("another one listens on port %d", one.address.Port())
		}
	}
	p.ports = append(p.ports, one)
	return nil
}

// has reports whether there is any port in it.
func (p *pool) has() bool { return len(p.ports) > 0 }

// handOver adds duplicates of all ports to what a successor takes over.
func (p *pool) handOver(all []privsep.Listener) ([]privsep.Listener, error) {
	for _, one := range p.ports {
		fd, err := sys.Duplicate(uintptr(one.fd))
		if err != nil {
			return all, os.NewSyscallError("fcntl", err)
		}
		all = append(all, privsep.Listener{Name: poolDoor + textOf(one.address), File: os.NewFile(uintptr(fd), poolName)})
	}
	return all, nil
}

func newPooled(f *os.File) (*pooled, error) {
	l, err := listenerOf(f)
	if err != nil {
		return nil, err
	}
	l.Close()
	one := &pooled{address: addressOf(l)}
	// A number and no os.File: its Fd may set the socket blocking, for the other
	// process of an upgrade, too.
	if one.fd, err = sys.Duplicate(f.Fd()); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err = sys.SetNonblock(one.fd); err == nil && one.address.Addr().Is6() {
		var n int
		n, err = syscall.GetsockoptInt(one.fd, syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY)
		one.only6 = n != 0
	}
	if err != nil {
		syscall.Close(one.fd)
		return nil, os.NewSyscallError("getsockopt", err)
	}
	return one, nil
}

// reachable reports whether who connects to local's address and this port comes here.
func (one *pooled) reachable(local netip.Addr) bool {
	at := one.address.Addr()
	if at.IsUnspecified() {
		return local.Is4() && !one.only6 || local.Is6() && at.Is6()
	}
	return at.WithZone("") == local.WithZone("")
}

// lend returns a port that nobody has, drawn at random, and a descriptor of it
// that is the caller's, who gives the port back. Nobody waits in its queue who had
// connected before.
func (p *pool) lend(local netip.Addr) (*pooled, *os.File, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range rand.Perm(len(p.ports)) {
		one := p.ports[i]
		if one.lent || !one.reachable(local) {
			continue
		}
		ok, err := p.Claim(uint32(one.address.Port()))
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		if !one.empty() {
			p.Unclaim(uint32(one.address.Port()))
			continue
		}
		fd, err := sys.Duplicate(uintptr(one.fd))
		if err != nil {
			p.Unclaim(uint32(one.address.Port()))
			return nil, nil, os.NewSyscallError("fcntl", err)
		}
		one.lent = true
		return one, os.NewFile(uintptr(fd), poolName), nil
	}
	return nil, nil, os.NewSyscallError("listen", syscall.EADDRINUSE)
}

// give takes a port back, and hangs up on who still waits there.
func (p *pool) give(one *pooled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one.empty()
	one.lent = false
	p.Unclaim(uint32(one.address.Port()))
}

// empty hangs up on all who wait at a port, and reports whether nobody is left.
func (one *pooled) empty() bool {
	for range stale {
		conn, _, err := sys.Accept(uintptr(one.fd))
		if errors.Is(err, syscall.EAGAIN) {
			return true
		}
		if err != nil {
			return false
		}
		syscall.Close(conn)
	}
	return false
}
