package main

import (
	"net/netip"
	"sync"
)

// A portShare keeps one address from using up the passive ports.
type portShare struct {
	limit int // ports that one address may hold at once; 0: any number

	mu   sync.Mutex
	held map[netip.Addr]int
}

func (p *portShare) setLimit(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = n
}

func (p *portShare) take(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && p.held[a] >= p.limit {
		return false
	}
	if p.held == nil {
		p.held = make(map[netip.Addr]int)
	}
	p.held[a]++
	return true
}

func (p *portShare) give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held[a]--; p.held[a] <= 0 {
		delete(p.held, a)
	}
}
