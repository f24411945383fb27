package admission

import (
	"encoding/binary"
	"net/netip"
)

// A source is what pays together: an IPv4 address, an IPv6 /64 or /48. It is
// small, because a million of them are looked at in an attack.
type source struct {
	high uint64 // of IPv6 the first 8 bytes, masked; of IPv4 the address
	bits uint8  // 32, 64 or 48
}

// sourceOf is who pays for what address does. The zero Addr is a source too:
// peers without an address are all one.
func sourceOf(address netip.Addr) source {
	address = address.Unmap()
	if !address.Is6() {
		a := [4]byte{}
		if address.Is4() {
			a = address.As4()
		}
		return source{uint64(binary.BigEndian.Uint32(a[:])), 32}
	}
	a := address.As16()
	return source{binary.BigEndian.Uint64(a[:8]), 64}
}

// wider is the /48 of a /64; ok is false for what has none.
func (s source) wider() (w source, ok bool) {
	return source{s.high &^ 0xffff, 48}, s.bits == 64
}

func (s source) prefix() netip.Prefix {
	if s.bits == 32 {
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], uint32(s.high))
		return netip.PrefixFrom(netip.AddrFrom4(a), 32)
	}
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], s.high)
	return netip.PrefixFrom(netip.AddrFrom16(a), int(s.bits))
}

// valid reports whether s is in the form that sourceOf and wider make.
func (s source) valid() bool {
	switch s.bits {
	case 32:
		return s.high <= 1<<32-1
	case 48:
		return s.high&0xffff == 0
	}
	return s.bits == 64
}
