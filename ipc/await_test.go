package ipc

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// Who waits for a packet leaves it, and its descriptors, to whoever receives it.
func TestAwait(t *testing.T) {
	testenv.NoLeaks(t)
	for _, blocking := range []bool{false, true} {
		a, b, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		from, err := NewConn(a, NewBuffers(64))
		if err != nil {
			t.Fatal(err)
		}
		if blocking {
			raw, _ := b.SyscallConn()
			_ = raw.Control(func(fd uintptr) { err = syscall.SetNonblock(int(fd), false) })
			if err != nil {
				t.Fatal(err)
			}
		}
		came := make(chan error, 1)
		go func() {
			wanted, err := Await(t.Context(), b)
			if err == nil && !wanted {
				err = errors.New("nothing came")
			}
			came <- err
		}()
		select {
		case err := <-came:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		if err := from.Send(t.Context(), time.Second, &Packet{Type: Request, Call: 7, Files: []*os.File{os.Stdin}}); err != nil {
			t.Fatal(err)
		}
		if err := <-came; err != nil {
			t.Fatal(err)
		}
		if wanted, err := Await(t.Context(), b); !wanted || err != nil {
			t.Errorf("asked again: got %t, %v", wanted, err)
		}
		from.Close()
		if wanted, err := Await(t.Context(), b); !wanted || err != nil {
			t.Errorf("after the end, with a packet left: got %t, %v", wanted, err)
		}
		to, err := NewConn(b, NewBuffers(64))
		if err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := to.Receive(&p); err != nil || p.Call != 7 || len(p.bare) != 1 {
			t.Errorf("received call %d with %d descriptors, %v", p.Call, len(p.bare), err)
		}
		p.CloseFiles()
		p.Release()
		to.Close()
	}
}

func TestAwaitEnds(t *testing.T) {
	testenv.NoLeaks(t)
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if wanted, err := Await(ctx, b); wanted || err != why {
		t.Errorf("got %t, %v, want the context's cause", wanted, err)
	}
	time.AfterFunc(10*time.Millisecond, func() { a.Close() })
	if wanted, err := Await(t.Context(), b); wanted || err != nil {
		t.Errorf("got %t, %v, want false at the other end's close", wanted, err)
	}
	b.Close()
	if wanted, err := Await(t.Context(), b); wanted || !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %t, %v, want os.ErrClosed", wanted, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if wanted, err := Await(t.Context(), null); wanted || err == nil {
		t.Errorf("of no socket: got %t, %v", wanted, err)
	}
}
