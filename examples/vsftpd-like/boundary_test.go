package main

import (
	"testing"

	"github.com/go-privsep/sallyport/privsep/privseptest"
)

// Every sequence of calls that a worker can make ends as an oracle says.
func TestPolicyWalk(t *testing.T) {
	for _, port := range []uint16{0, 20} {
		policy, _, _ := newPolicy(port)
		privseptest.Walk(t, policy, certificateVerify())
	}
}

func TestFilesPolicyWalk(t *testing.T) {
	policy, _ := newFilesPolicy()
	privseptest.Walk(t, policy)
}

func FuzzPolicy(f *testing.F) {
	policy, _, _ := newPolicy(0)
	privseptest.Fuzz(f, policy, certificateVerify())
}

func FuzzFilesPolicy(f *testing.F) {
	policy, _ := newFilesPolicy()
	privseptest.Fuzz(f, policy)
}
