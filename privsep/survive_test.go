package privsep_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// held is a session whose worker is in the middle of a request.
type held struct{ asked chan string }

var holdOp = privsep.Op[wordRequest, wordReply]{Name: "hold", Calls: 1, Timeout: time.Minute}

// hold never answers.
func (h *held) hold(ctx context.Context, r wordRequest) (wordReply, error) {
	h.asked <- r.Word
	<-ctx.Done()
	return wordReply{}, ctx.Err()
}

func holdScript(ctx context.Context, w *privsep.Worker) error {
	_, err := holdOp.Call(ctx, w, wordRequest{fmt.Sprint(os.Getpid())})
	return err
}

func newHeld() (*privsep.Policy, *privsep.Phase[held]) {
	p := new(privsep.Policy)
	ph := privsep.NewPhase(p, "held", func(*held) privsep.Launch { return launch("hold") })
	privsep.Permit(ph, holdOp, (*held).hold)
	return p, ph
}

// spareIDs are just as many as there are sessions at once, so that one that is not
// given back is missed. An ordinary user has none to give.
func spareIDs(n int) (ids privsep.IDs) {
	if os.Geteuid() == 0 {
		ids = privsep.IDs{First: 71000, Last: 71000 + uint32(n) - 1}
	}
	return ids
}

// survivorArgument makes the test binary a daemon with as many sessions as
// survivorSessions, all of them in the middle of a request.
const (
	survivorArgument = "privsep-test-survivor"
	survivorSessions = 3
	survivorEnd      = 3 // its exit status when it has lost its launcher
)

func survive() error {
	p, ph := newHeld()
	m, err := privsep.NewMonitor(p, privsep.Config{WorkerIDs: spareIDs(survivorSessions + 1)})
	if err != nil {
		return err
	}
	if _, err := m.Confine(privsep.Confinement{Without: without()}); err != nil {
		return err
	}
	asked, failed := make(chan string), make(chan error)
	for range survivorSessions {
		go func() { failed <- privsep.Serve(context.Background(), m, ph, &held{asked}) }()
	}
	for range survivorSessions {
		select {
		case <-asked:
		case err := <-failed:
			return err
		}
	}
	fmt.Println("held")
	return m.Wait()
}
