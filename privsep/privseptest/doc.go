// Package privseptest tests the boundary of a daemon that is built on package
// privsep, as a worker that has been taken over would: from the daemon's own
// policy it derives what to try. A test is one line:
//
//	privseptest.Walk(t, policy)
//
// # What it does not show
//
// It runs in the test's process, over a real socketpair and against the real
// dispatcher, but without workers: it says nothing of sandboxes, of what a
// launch hands over or of how a worker is killed. It knows the form of requests
// and not their meaning: that a handler trusts what it should not is for the
// daemon's own tests.
//
// It is for tests alone. Its functions take a [testing.TB], and the door to
// package privsep that they use is closed to other packages.
package privseptest
