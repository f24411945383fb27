package ipc

import (
	"context"
	"runtime"
	"testing"
	"time"
)

// A packet that comes while the receiver is about to wait wakes it.
func TestNoPacketIsSleptOver(t *testing.T) {
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	buffers := NewBuffers(64)
	from, err := NewConn(a, buffers)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := NewConn(b, buffers)
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	const packets = 20000
	received := make(chan error)
	go func() {
		for range packets {
			var p Packet
			_ = to.watch.SetReadDeadline(time.Now().Add(20 * time.Second))
			err := to.receivePatiently(&p)
			p.Release()
			if received <- err; err != nil {
				return
			}
		}
	}()
	for i := range packets {
		for range i % 500 { // somewhere in the receiver's way to its wait
			runtime.KeepAlive(i)
		}
		if err := from.Send(context.Background(), time.Second, &Packet{Type: Request, Call: 1}); err != nil {
			t.Fatal(err)
		}
		if err := <-received; err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
}
