package main

import (
	"net/netip"
	"sync"
)

// A portShare keeps one client from using up the passive ports: an IPv4 address,
// or an IPv6 /64, in which whoever has one address has them all.
type portShare struct {
	limit int // ports that one client may hold at once; 0: any number

	mu   sync.Mutex
	held map[netip.Prefix]int
}

func (p *portShare) setLimit(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = n
}

func (p *portShare) take(a netip.Addr) bool {
	client := clientOf(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && p.held[client] >= p.limit {
		return false
	}
	if p.held == nil {
		p.held = make(map[netip.Prefix]int)
	}
	p.held[client]++
	return true
}

func (p *portShare) give(a netip.Addr) {
	client := clientOf(a)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[client]--; p.held[client] <= 0 {
		delete(p.held, client)
	}
}

func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	client, _ := a.Prefix(min(a.BitLen(), 64)) // which fits
	return client
}
