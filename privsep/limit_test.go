package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"testing"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/sandbox"
)

// limitedArgument makes this program a monitor that gives up its capabilities,
// in a process of its own: what is given up is gone for all tests after it.
const limitedArgument = "limited-monitor"

func TestHandlersRunWithTheirCapabilitiesOnly(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", limitedArgument)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "good\n" {
		t.Errorf("%v:\n%s", err, out)
	}
}

type powers struct{ effective map[string]caps.Set }

type powersRequest = wordRequest

var (
	plainOp = privsep.Op[powersRequest, wordReply]{Name: "plain", Calls: privsep.Unlimited}
	bindOp  = privsep.Op[powersRequest, wordReply]{Name: "bind", Calls: privsep.Unlimited}
)

// note keeps what is effective on the thread that runs it.
func (p *powers) note(ctx context.Context, r powersRequest) (wordReply, error) {
	state, err := caps.Current() // of this thread, as the handler is
	if err != nil {
		return wordReply{}, err
	}
	p.effective[r.Word] = state.Effective
	return wordReply{}, answer(ctx, r.Word)
}

func limitedMonitor() int {
	if err := runLimitedMonitor(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("good")
	return 0
}

func runLimitedMonitor() error {
	p := new(privsep.Policy)
	ph := privsep.NewPhase(p, "powers", func(*powers) privsep.Launch { return launch("powers") })
	privsep.Permit(ph, plainOp, (*powers).note)
	privsep.Permit(ph, bindOp, (*powers).note, caps.NetBindService)
	m, err := privsep.NewMonitor(p, privsep.Config{})
	if err != nil {
		return err
	}
	defer m.Close()

	// Before Confine everything is effective, so nothing can be just this.
	state := &powers{make(map[string]caps.Set)}
	var remains *caps.RemainsError
	if err := privsep.Serve(context.Background(), m, ph, state); !errors.As(err, &remains) {
		return fmt.Errorf("without Confine: got %v, want a RemainsError", err)
	}
	if _, err := m.Confine(privsep.Confinement{}); err != nil {
		return err
	}
	want := map[string]caps.Set{
		"before": {}, "bind": caps.Of(caps.NetBindService), "ENOENT": caps.Of(caps.NetBindService), "after": {},
		"panic": caps.Of(caps.NetBindService),
	}
	var sessions sync.WaitGroup
	failures := make(chan error, 8)
	for range 4 {
		sessions.Go(func() {
			state := &powers{make(map[string]caps.Set)}
			var panicked *privsep.PanicError
			if err := privsep.Serve(context.Background(), m, ph, state); !errors.As(err, &panicked) {
				failures <- fmt.Errorf("got %v, want a panic", err)
			} else if fmt.Sprint(state.effective) != fmt.Sprint(want) {
				failures <- fmt.Errorf("got %v, want %v", state.effective, want)
			}
		})
	}
	sessions.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	posture, _, _, err := m.Postures() // with the threads that the sessions took
	if err != nil {
		return err
	}
	c := privsep.Confinement{}
	return c.Check(&posture, new(sandbox.Posture), p.Caps(), 0)
}
