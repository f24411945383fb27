package privseptest

import "testing"

func TestHostile(t *testing.T) {
	_, outside, inside := newHouse()
	t.Run("porch", func(t *testing.T) { Hostile(t, outside, func() (*porch, func()) { return new(porch), nil }) })
	t.Run("room", func(t *testing.T) { Hostile(t, inside, func() (*room, func()) { return &room{new(porch)}, nil }) })
}
