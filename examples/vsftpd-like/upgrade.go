package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/privsep"
)

// What a door is called on its way to a successor, before its address.
const (
	ownDoor     = "listen "
	managerDoor = "socket "      // the service manager's
	poolDoor    = poolName + " " // one of its passive ports
)

// upgrade puts the program that is on disk now in this one's place, and returns
// its process number; 0 if it could not. Until the other is ready to serve,
// this one accepts, and if it never is, it goes on.
func (i *instance) upgrade(ctx context.Context, from *source) (pid int) {
	h := privsep.Handover{Halt: func() ([]byte, error) {
		i.doors.halt()
		return i.gate.AppendBinary(nil)
	}}
	var err error
	if h.Listeners, err = i.handOver(from); err != nil {
		i.log.Error("upgrade failed, this process goes on", "err", err)
		return 0
	}
	i.log.Info("upgrading")
	limited, cancel := context.WithTimeout(ctx, i.current.Load().config.UpgradeTimeout)
	defer cancel()
	pid, err = i.monitor.Upgrade(limited, h)
	if err != nil {
		i.enter(ctx, i.doors)
		i.log.Error("upgrade failed, this process goes on", "err", err)
		return 0
	}
	i.log.Info("replaced; this process finishes its sessions", "by", pid)
	return pid
}

// handOver returns duplicates of doors and passive ports.
func (i *instance) handOver(from *source) (all []privsep.Listener, err error) {
	kind := ownDoor
	if from.managed {
		kind = managerDoor
	}
	for address, d := range i.doors {
		var f *os.File
		if f, err = d.File(); err != nil {
			break
		}
		all = append(all, privsep.Listener{Name: kind + textOf(address), File: f})
	}
	if err == nil {
		all, err = i.pool.handOver(all)
	}
	if err != nil {
		for _, l := range all {
			l.File.Close()
		}
		return nil, err
	}
	return all, nil
}

// inherit returns a predecessor's doors and passive ports.
func inherit(all []privsep.Listener, from *source) (doors, *pool, error) {
	got, ports := doors{}, new(pool)
	for _, l := range all {
		if strings.HasPrefix(l.Name, poolDoor) {
			if err := ports.add(l.File); err != nil {
				return got, ports, fmt.Errorf("inherit %q: %w", l.Name, err)
			}
			continue
		}
		kind, text := ownDoor, ""
		if rest, ok := strings.CutPrefix(l.Name, managerDoor); ok {
			kind, text = managerDoor, rest
		} else {
			text, _ = strings.CutPrefix(l.Name, ownDoor)
		}
		address, err := parseAddress(text)
		if err == nil {
			err = got.take(l.File, address)
		}
		if err != nil {
			return got, ports, fmt.Errorf("inherit %q: %w", l.Name, err)
		}
		if kind == managerDoor {
			from.manage(address)
		}
	}
	return got, ports, nil
}

// activate returns the sockets that the service manager has opened: passive ports,
// and those that are listened on in place of what is configured.
func activate(sockets []*os.File, from *source) (doors, *pool, error) {
	got, ports := doors{}, new(pool)
	for _, f := range sockets {
		if f.Name() == poolName {
			if err := ports.add(f); err != nil {
				return got, ports, fmt.Errorf("passive port of the service manager: %w: use ListenStream= with a port, and no Accept=", err)
			}
			continue
		}
		var address netip.AddrPort
		if l, err := listenerOf(f); err == nil {
			address = addressOf(l)
			l.Close()
		}
		if err := got.take(f, address); err != nil {
			return got, ports, fmt.Errorf("socket %s of the service manager: %w: use ListenStream= with a port, and no Accept=", f.Name(), err)
		}
		from.manage(address)
	}
	return got, ports, nil
}

// take makes f, which it closes, the door for address, if it listens there.
func (all doors) take(f *os.File, address netip.AddrPort) error {
	defer f.Close()
	l, err := listenerOf(f)
	if err != nil {
		return err
	}
	at := addressOf(l)
	port := at.Port() == address.Port() || address.Port() == 0
	here := at.Addr().Unmap() == address.Addr().Unmap() || !address.Addr().IsValid() && at.Addr().IsUnspecified()
	if all[address] != nil || !port || !here {
		l.Close()
		return fmt.Errorf("it listens on %v, or is the second to", at)
	}
	all[address] = &door{TCPListener: l}
	return nil
}

// listenerOf returns what f is a descriptor of, which it leaves open. Package net
// would take any socket for one that listens, and find out at the first client.
func listenerOf(f *os.File) (*net.TCPListener, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	listens, failed := 0, error(nil)
	err = raw.Control(func(fd uintptr) {
		listens, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
	})
	if err = errors.Join(err, os.NewSyscallError("getsockopt", failed)); err != nil {
		return nil, err
	}
	if listens == 0 {
		return nil, errors.New("it does not listen")
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("it is not TCP but %v", l.Addr())
	}
	return tcp, nil
}

func addressOf(l *net.TCPListener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// textOf writes an address as the configuration does.
func textOf(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return ":" + strconv.Itoa(int(a.Port()))
	}
	return a.String()
}

func parseAddress(text string) (netip.AddrPort, error) {
	if port, ok := strings.CutPrefix(text, ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		return netip.AddrPortFrom(netip.Addr{}, uint16(n)), err
	}
	return netip.ParseAddrPort(text)
}
