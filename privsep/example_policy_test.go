package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// The handler's receiver says in which phase it belongs, and the capability
// after it is the only one that is effective while it runs.
func ExamplePermit() {
	type session struct{ peer string }
	type Request struct{}
	type Reply struct{ Port uint16 }
	listen := privsep.Op[Request, Reply]{Name: "listen", Calls: 1}

	policy := new(privsep.Policy)
	only := privsep.NewPhase(policy, "only", func(*session) privsep.Launch { return privsep.Launch{Role: &visitorRole} })
	privsep.Permit(only, listen, func(s *session, ctx context.Context, _ Request) (Reply, error) {
		return Reply{Port: 20}, nil // a socket on a port below 1024, for s.peer
	}, caps.NetBindService)
	fmt.Print(policy)
	fmt.Println(policy.Caps())
	// Output:
	// only  listen  1  cap_net_bind_service  -  privsep_test.Request -> privsep_test.Reply
	// cap_net_bind_service
}

// The handler returns the state of the next phase, or nil to stay. Nobody else
// can make a session advance.
func ExampleAdvance() {
	policy := new(privsep.Policy)
	outside := privsep.NewPhase(policy, "outside", (*visitor).launch)
	inside := privsep.NewPhase[guest](policy, "inside", nil)
	privsep.Advance(outside, Introduce, inside, func(_ *visitor, _ context.Context, r IntroduceRequest) (IntroduceReply, *guest, error) {
		if r.Name != "Bob" {
			return IntroduceReply{}, nil, fs.ErrPermission // no errno: the worker hears EIO
		}
		return IntroduceReply{}, &guest{r.Name}, nil
	})
	privsep.Permit(inside, Greet, (*guest).greet)

	// In place of a worker, this process asks.
	mine, theirs, err := ipc.Pair()
	if err != nil {
		panic(err)
	}
	go privsep.ServeConn(context.Background(), outside, new(visitor), theirs)
	asker, err := privsep.NewConn(mine)
	if err != nil {
		panic(err)
	}
	defer asker.Close()

	_, err = Introduce.Call(context.Background(), asker, IntroduceRequest{"Eve"})
	fmt.Println(err)
	_, err = Introduce.Call(context.Background(), asker, IntroduceRequest{"Bob"})
	fmt.Println(err)
	reply, err := Greet.Call(context.Background(), asker, GreetRequest{})
	fmt.Println(reply.Text, err)
	// Output:
	// privsep: introduce: input/output error
	// <nil>
	// Good day, Bob <nil>
}

// Refusals compare as the errors of package os do.
func ExampleOpError() {
	err := error(&privsep.OpError{Op: "open", Err: fs.ErrNotExist})
	fmt.Println(err, errors.Is(err, fs.ErrNotExist))
	// Output:
	// privsep: open: file does not exist true
}
