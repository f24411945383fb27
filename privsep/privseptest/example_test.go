package privseptest_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/privseptest"
)

// A stranger may say a word three times. Who said the right one holds a key,
// once.
type (
	stranger struct{ word string }
	friend   struct{}

	WordRequest struct {
		Word string `privsep:"max=16"`
	}
	WordReply  struct{}
	KeyRequest struct{}
	KeyReply   struct{ Number uint32 }
)

func (r *WordRequest) Check() error {
	if r.Word == "" {
		return errors.New("no word")
	}
	return nil
}

func (s *stranger) say(_ context.Context, r WordRequest) (WordReply, *friend, error) {
	if r.Word != s.word {
		return WordReply{}, nil, fmt.Errorf("not the word: %w", syscall.EACCES)
	}
	return WordReply{}, &friend{}, nil
}

func (*friend) key(context.Context, KeyRequest) (KeyReply, error) { return KeyReply{Number: 42}, nil }

// newPolicy is what the daemon calls, too. Its tests need no second one.
func newPolicy() (*privsep.Policy, *privsep.Phase[stranger]) {
	policy := new(privsep.Policy)
	outside := privsep.NewPhase(policy, "outside", func(*stranger) privsep.Launch { return privsep.Launch{} })
	inside := privsep.NewPhase[friend](policy, "inside", nil)
	privsep.Advance(outside, privsep.Op[WordRequest, WordReply]{Name: "say", Calls: 3}, inside, (*stranger).say)
	privsep.Permit(inside, privsep.Op[KeyRequest, KeyReply]{Name: "key", Calls: 1}, (*friend).key)
	return policy, outside
}

// A test of a daemon:
//
//	func TestPolicyWalk(t *testing.T) {
//		policy, _ := newPolicy()
//		privseptest.Walk(t, policy)
//	}
func ExampleWalk() {
	fmt.Println(passes(func(t *testing.T) {
		policy, _ := newPolicy()
		privseptest.Walk(t, policy)
	}))
	// Output: true
}

// A phase is attacked with a state that its handlers can have. What a state
// opened is released by the second value.
//
//	func TestBoundary(t *testing.T) {
//		_, outside := newPolicy()
//		privseptest.Hostile(t, outside, func() (*stranger, func()) { return &stranger{"swordfish"}, nil })
//	}
func ExampleHostile() {
	fmt.Println(passes(func(t *testing.T) {
		_, outside := newPolicy()
		privseptest.Hostile(t, outside, func() (*stranger, func()) { return &stranger{"swordfish"}, nil })
	}))
	// Output: true
}

// go test -fuzz FuzzBoundary looks for a script of packets that a monitor of
// this policy does not survive, or judges otherwise than the policy says.
func ExampleFuzz() {
	target := func(f *testing.F) { // func FuzzBoundary(f *testing.F)
		policy, _ := newPolicy()
		privseptest.Fuzz(f, policy)
	}
	_ = target
}

// In a daemon's tests this is compared with a file that reviewers read.
func ExampleMessages() {
	policy, _ := newPolicy()
	fmt.Print(privseptest.Messages(policy))
	// Output:
	// say asks privseptest_test.WordRequest
	// 	Word string max=16
	// say answers privseptest_test.WordReply
	// key asks privseptest_test.KeyRequest
	// key answers privseptest_test.KeyReply
	// 	Number uint32
}

// passes runs a test as go test does, without a word: what it printed would be
// taken for the example's.
func passes(test func(*testing.T)) bool {
	verbose := flag.Lookup("test.v").Value
	said := verbose.String()
	defer verbose.Set(said)
	verbose.Set("false")
	all := func(pattern, name string) (bool, error) { return true, nil }
	return testing.RunTests(all, []testing.InternalTest{{Name: "Test", F: test}})
}
