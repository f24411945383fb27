package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
)

// few are users of the workers of both processes of an upgrade.
var few = privsep.IDs{First: 90000, Last: 90002}

// beNeighbour is a successor that starts workers while its predecessor has one,
// whose user is few.First, and then none.
func beNeighbour(ctx context.Context, careless bool) error {
	p, m, err := succeedBy(ctx, privsep.Config{WorkerIDs: few}, careless)
	if err != nil {
		return err
	}
	defer m.Close()
	user := func() (uint32, error) {
		posture, _, err := m.Posture(ctx, launch("nothing"))
		if err != nil {
			return 0, err
		}
		return uint32(posture.Threads[0].UID[0]), nil
	}
	for range 7 {
		id, err := user()
		if err != nil {
			return err
		}
		if id == few.First {
			return fmt.Errorf("user %d is another's", id)
		}
	}
	if _, err := p.Halt(ctx); err != nil {
		return err
	}
	if err := p.Serve(ctx); err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		id, err := user()
		if err != nil {
			return err
		}
		if id == few.First {
			break
		}
		if time.Now().After(deadline) {
			return errors.New("the predecessor's user is never free")
		}
	}
	l, err := net.FileListener(p.Listeners[0].File)
	if err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("served"))
	return errors.Join(err, conn.Close())
}

// TestWorkerIDsOverAnUpgrade: two processes with one range have no user in common.
func TestWorkerIDsOverAnUpgrade(t *testing.T) {
	testenv.NeedRoot(t)
	for _, careless := range []bool{false, true} {
		t.Run(fmt.Sprintf("careless=%v", careless), func(t *testing.T) {
			noLeaks(t)
			kind := "neighbour"
			if careless {
				kind = "careless neighbour" // the control
			}
			policy, phase := innPolicy()
			m, err := privsep.NewMonitor(policy, privsep.Config{
				WorkerIDs: few,
				Upgrade:   &privsep.Upgrade{Path: "/proc/self/exe", Args: []string{"privsep-test", successorArgument, kind}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { m.Close() })
			i := &inn{t, m, phase}
			guest, pid := i.checkIn("", 1)
			if uid, _ := userOf(t, pid); uid != fmt.Sprint(few.First) {
				t.Fatalf("the first worker's user is %s", uid)
			}
			for id := few.First; id <= few.Last; id++ { // other numbers than users
				if ok, err := m.Claim(id); !ok || err != nil {
					t.Fatal(ok, err)
				}
			}
			l, one := listen(t, "one")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err = m.Upgrade(ctx, privsep.Handover{
				Listeners: []privsep.Listener{one},
				Halt:      func() ([]byte, error) { return nil, nil },
			})
			if careless {
				var exit *privsep.ExitError
				if !errors.As(err, &exit) || exit.Status.ExitStatus() != 1 {
					t.Errorf("got %v", err)
				}
				i.well(guest)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			i.well(guest)
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			b := make([]byte, 10)
			if n, err := conn.Read(b); err != nil || string(b[:n]) != "served" {
				t.Errorf("got %q, %v", b[:n], err)
			}
		})
	}
}
