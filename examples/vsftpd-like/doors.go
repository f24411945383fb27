package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// drainTime is how long a port that is to be closed waits for clients whose
// connection was under way, and drainMost bounds it all.
const (
	drainTime = 200 * time.Millisecond
	drainMost = 5 * time.Second
)

// A door is a port that clients come in by.
type door struct {
	*net.TCPListener
	accepting chan struct{} // closed when nobody accepts on it any more
}

// doors are those of an instance, by the address that its configuration names
// (which port 0 is of another than it gets). One goroutine has them.
type doors map[netip.AddrPort]*door

// bind returns the doors that s needs: those that are open stay what they are,
// and the others are bound. An error leaves all as it was.
func (s *server) bind() (doors, error) {
	all, made := doors{}, doors{}
	for _, address := range s.config.Listen {
		d := s.doors[address]
		if d == nil {
			s.draining.Wait() // it may be one that was given up just now
			l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
			if err != nil {
				made.close()
				return nil, s.config.Mistake("listen", fmt.Sprintf("%v: %v", address, hint(err)))
			}
			d = &door{TCPListener: l}
			made[address] = d
		}
		all[address] = d
	}
	return all, nil
}

// hint adds to an error of listening what can be done about it.
func hint(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: a running monitor has given up CAP_NET_BIND_SERVICE: restart it to bind a port below 1024", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: by another program, or by an address in use here that includes it: free it, or restart", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w: give this host the address first", err)
	}
	return err
}

// enter makes all the doors of this instance, and accepts on those that nobody
// accepts on. Who is already queued at one that is given up is still served.
func (i *instance) enter(ctx context.Context, all doors) {
	for address, d := range i.doors {
		if all[address] != d {
			i.draining.Go(func() { i.drain(ctx, d) })
		}
	}
	i.doors = all
	for _, d := range all {
		if d.accepting == nil {
			d.accepting = make(chan struct{})
			_ = d.SetDeadline(time.Time{})
			i.sessions.Go(func() {
				defer close(d.accepting)
				i.accept(ctx, d)
			})
		}
	}
}

// halt returns when nobody accepts on d any more. Clients queue.
func (d *door) halt() {
	_ = d.SetDeadline(time.Unix(1, 0))
	if d.accepting != nil {
		<-d.accepting
		d.accepting = nil
	}
}

// accept begins sessions until d is closed or halted.
func (i *instance) accept(ctx context.Context, d *door) {
	for {
		conn, err := d.AcceptTCP()
		switch {
		case err == nil:
			i.welcome(ctx, conn)
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			// Out of descriptors, or a client gone before we looked: the
			// next accept may work, and a loop without pause may not.
			i.log.Error("accept", "err", err)
			pause(ctx, 50*time.Millisecond)
		}
	}
}

// drain closes d when the kernel holds nobody more who has connected to it:
// closing a port resets all of them. Who connects in the last moment is reset
// all the same; a filter that refuses them first would take CAP_NET_ADMIN.
func (i *instance) drain(ctx context.Context, d *door) {
	defer d.Close()
	d.halt()
	for end := time.Now().Add(drainMost); time.Now().Before(end) && ctx.Err() == nil; {
		_ = d.SetDeadline(time.Now().Add(drainTime))
		conn, err := d.AcceptTCP()
		if err != nil {
			return
		}
		i.welcome(ctx, conn)
	}
}

// addresses are where clients come in, as they see it, in the configuration's
// order. It must not run beside enter.
func (s *server) addresses() (list []string) {
	for _, address := range s.config.Listen {
		if d := s.doors[address]; d != nil {
			list = append(list, d.Addr().String())
		}
	}
	return list
}

func (all doors) close() {
	for _, d := range all {
		d.Close()
	}
}

// halt stops accepting everywhere, until enter.
func (all doors) halt() {
	for _, d := range all {
		_ = d.SetDeadline(time.Unix(1, 0)) // all at once
	}
	for _, d := range all {
		d.halt()
	}
}
