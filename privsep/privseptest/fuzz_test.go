package privseptest

import "testing"

func FuzzHouse(f *testing.F) {
	p, _, _ := newHouse()
	Fuzz(f, p)
}
