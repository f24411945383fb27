package sys

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Listen returns a TCP socket, blocking and close-on-exec, that listens on
// local with room for backlog connections. Its zone, if any, is zone's number.
//
// Package net would make an MPTCP socket, which no FTP client speaks, and would
// have its poller told of every connection.
func Listen(local netip.AddrPort, zone uint32, backlog int) (fd int, err error) {
	var address unix.Sockaddr
	family := unix.AF_INET
	if a := local.Addr(); a.Is4() {
		address = &unix.SockaddrInet4{Port: int(local.Port()), Addr: a.As4()}
	} else {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: int(local.Port()), Addr: a.As16(), ZoneId: zone}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, err
	}
	// A port with connections of before can be bound again.
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Accept takes a connection, which is blocking and close-on-exec, and says who
// made it. It waits only where fd is blocking.
func Accept(fd uintptr) (conn int, from netip.Addr, err error) {
	for {
		conn, address, err := unix.Accept4(int(fd), unix.SOCK_CLOEXEC)
		switch {
		case err == unix.EINTR, err == unix.ECONNABORTED:
			continue
		case err != nil:
			return -1, netip.Addr{}, err
		}
		switch a := address.(type) {
		case *unix.SockaddrInet4:
			from = netip.AddrFrom4(a.Addr)
		case *unix.SockaddrInet6:
			from = netip.AddrFrom16(a.Addr)
		}
		return conn, from, nil
	}
}
