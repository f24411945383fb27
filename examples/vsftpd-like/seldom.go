package main

import (
	"sync"
	"time"
)

// seldom is for a line of the log that a stranger can cause at will: one a
// second, with the number of those that were left out before it.
type seldom struct {
	mu   sync.Mutex
	last time.Time
	left int
}

// line reports whether the line is written now, and how many were not.
func (s *seldom) line() (left int, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := time.Now(); t.Sub(s.last) >= time.Second {
		left, s.last, s.left = s.left, t, 0
		return left, true
	}
	s.left++
	return 0, false
}
