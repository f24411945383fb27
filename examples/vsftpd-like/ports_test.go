package main

import (
	"net/netip"
	"testing"
)

// Who has a /64 of IPv6 has no more passive ports than who has one address.
func TestPortShare(t *testing.T) {
	at := netip.MustParseAddr
	for _, test := range []struct {
		first, second string
		same          bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		var p portShare
		p.setLimit(1)
		if !p.take(at(test.first)) {
			t.Fatalf("%s gets none", test.first)
		}
		if got := !p.take(at(test.second)); got != test.same {
			t.Errorf("%s and %s: one client %t, want %t", test.first, test.second, got, test.same)
		}
		p.give(at(test.first))
		if p.take(at(test.first)); len(p.held) > 2 {
			t.Errorf("%s is held as %v", test.first, p.held)
		}
	}
}
