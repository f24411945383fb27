package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// Numbers that a predecessor has, and has not, while its successor starts.
const taken, free = 50_000, 50_001

// beClaimer is a successor that takes free at once, and taken when it can.
func beClaimer(ctx context.Context, careless bool) error {
	orders := make(chan os.Signal, 1)
	signal.Notify(orders, syscall.SIGHUP)
	p, m, err := succeedBy(ctx, privsep.Config{}, careless)
	if err != nil {
		return err
	}
	defer m.Close()
	for range 2 { // what it has, it may take again
		if ok, err := m.Claim(free); !ok || err != nil {
			return fmt.Errorf("%d: %v, %v", free, ok, err)
		}
	}
	if ok, err := m.Claim(taken); ok || err != nil {
		return fmt.Errorf("%d is another's: %v, %v", taken, ok, err)
	}
	if _, err := p.Halt(ctx); err != nil {
		return err
	}
	if err := p.Serve(ctx); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if ok, err := m.Claim(taken); ok || err != nil {
			m.Unclaim(free)
			<-orders
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("the predecessor's number is never free")
		}
	}
}

// TestClaimsOverAnUpgrade: no number is two processes', and each is free when who
// had it has given it back.
func TestClaimsOverAnUpgrade(t *testing.T) {
	for _, careless := range []bool{false, true} {
		t.Run(fmt.Sprintf("careless=%v", careless), func(t *testing.T) {
			noLeaks(t)
			kind := "claimer"
			if careless {
				kind = "careless claimer" // the control
			}
			m, err := privsep.NewMonitor(freshPolicy(), privsep.Config{
				Upgrade: &privsep.Upgrade{Path: "/proc/self/exe", Args: []string{"privsep-test", successorArgument, kind}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close() })
			if ok, err := m.Claim(taken); !ok || err != nil {
				t.Fatal(ok, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			pid, err := m.Upgrade(ctx, privsep.Handover{Halt: func() ([]byte, error) { return nil, nil }})
			if careless {
				var exit *privsep.ExitError
				if !errors.As(err, &exit) || exit.Status.ExitStatus() != 1 {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := m.Claim(free); ok || err != nil {
				t.Errorf("%d is the successor's: %v, %v", free, ok, err)
			}
			m.Unclaim(taken)
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
				if ok, err := m.Claim(free); err != nil {
					t.Fatal(err)
				} else if ok {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the successor never had what was given back, or never gave its own")
				}
			}
			if ok, err := m.Claim(taken); ok || err != nil {
				t.Errorf("%d is the successor's by now: %v, %v", taken, ok, err)
			}
			if err := m.HangUpSuccessor(ctx); err != nil { // for which it waits
				t.Error(err)
			}
			for deadline := time.Now().Add(20 * time.Second); syscall.Kill(pid, 0) == nil && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		})
	}
}
