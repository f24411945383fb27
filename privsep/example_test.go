package privsep_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-privsep/sallyport/privsep"
)

// A visitor may ask the time until it has said who it is, and may then be
// greeted by name. Who greets has a *guest, and only introduce makes one.
type (
	visitor struct{}
	guest   struct{ name string }
)

type (
	IntroduceRequest struct {
		Name string `privsep:"max=16"`
	}
	IntroduceReply struct{}
	GreetRequest   struct{}
	GreetReply     struct {
		Text string `privsep:"max=64"`
	}
)

func (r *IntroduceRequest) Check() error {
	if r.Name == "" {
		return errors.New("no name")
	}
	return nil
}

var (
	Introduce = privsep.Op[IntroduceRequest, IntroduceReply]{Name: "introduce", Calls: 3}
	Greet     = privsep.Op[GreetRequest, GreetReply]{Name: "greet", Calls: privsep.Unlimited}
)

func (*visitor) introduce(_ context.Context, r IntroduceRequest) (IntroduceReply, *guest, error) {
	fmt.Println("monitor: here is", r.Name)
	return IntroduceReply{}, &guest{r.Name}, nil
}

func (g *guest) greet(context.Context, GreetRequest) (GreetReply, error) {
	return GreetReply{"Good day, " + g.name}, nil
}

// visitorRole is the worker: it reads what is hostile, and holds nothing.
var visitorRole = privsep.Role{Name: "visitor", Main: func(ctx context.Context, w *privsep.Worker) error {
	if _, err := Introduce.Call(ctx, w, IntroduceRequest{"Bob"}); err != nil {
		return err
	}
	reply, err := Greet.Call(ctx, w, GreetRequest{})
	if err == nil && reply.Text != "Good day, Bob" {
		err = errors.New("greeted as somebody else")
	}
	return err
}}

func (*visitor) launch() privsep.Launch {
	return privsep.Launch{Role: &visitorRole, Sandbox: privsep.Sandbox{Without: without()}}
}

// A main function would be privsep.Main(monitor, &visitorRole); this is its
// monitor.
func Example() {
	policy := new(privsep.Policy)
	outside := privsep.NewPhase(policy, "outside", (*visitor).launch)
	inside := privsep.NewPhase[guest](policy, "inside", nil)
	privsep.Advance(outside, Introduce, inside, (*visitor).introduce)
	privsep.Permit(inside, Greet, (*guest).greet)
	fmt.Print(policy)

	m, err := privsep.NewMonitor(policy, privsep.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	fmt.Println("session:", privsep.Serve(context.Background(), m, outside, new(visitor)))
	// Output:
	// outside  introduce  3          -  inside  privsep_test.IntroduceRequest -> privsep_test.IntroduceReply
	// inside   greet      unlimited  -  -       privsep_test.GreetRequest -> privsep_test.GreetReply
	// monitor: here is Bob
	// session: <nil>
}
