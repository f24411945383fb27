package ipc

import (
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// Descriptors that a peer does not take stay open in the kernel, whatever
// becomes of the sender's. More than a message's worth must not be.
func TestUnreadDescriptorsAreBounded(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 64)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	send := func(files int) error {
		p := Packet{Type: Reply}
		for range files {
			p.Files = append(p.Files, w)
		}
		return a.Send(t.Context(), 20*time.Millisecond, &p)
	}
	for _, files := range []int{maxFiles - 1, 1, 0, 0} {
		if err := send(files); err != nil {
			t.Fatalf("%d files: %v", files, err)
		}
	}
	if err := send(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d files unread, one more: got %v, want a deadline", maxFiles, err)
	}
	for range 4 {
		var p Packet
		if err := b.Receive(&p); err != nil {
			t.Fatal(err)
		}
		p.CloseFiles()
		p.Release()
	}
	if err := send(maxFiles); err != nil {
		t.Errorf("all read: %v", err)
	}
}

// A worker that takes no files is killed for it, as one that takes no answers.
func TestUnreadFilesAreAViolation(t *testing.T) {
	testenv.NoLeaks(t)
	s, _ := newScript()
	conn, end := serve(t, s)
	for i := range uint32(maxFiles/2 + 1) { // two files each
		request(t, conn, opOpen, i+1)
	}
	time.Sleep(sendLimit) // end waits as long again
	if err := end(); !isProtocolError(err, "answers are not read") {
		t.Errorf("got %v, want a ProtocolError", err)
	}
}

// A mourner looks whether a descriptor is open yet when it is told of the end.
type mourner struct {
	*script
	open func() bool
	was  bool
}

func (m *mourner) Failed(error) { m.was = m.open() }

// The file's server may make its closing wait: the worker is killed before.
func TestKillComesBeforeClose(t *testing.T) {
	for name, p := range map[string]Packet{
		"no request":        {Type: Ready},
		"unknown operation": {Type: Request, Op: 1 << 20, Call: 1},
		"a log record":      {Type: Log},
	} {
		t.Run(name, func(t *testing.T) {
			testenv.NoLeaks(t)
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			open := func() bool {
				r.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				_, err := r.Read(make([]byte, 1))
				return err != io.EOF
			}
			s, _ := newScript()
			m := &mourner{script: s, open: open}
			conn, end := serve(t, m)
			p.Files = []*os.File{w}
			if err := conn.Send(t.Context(), time.Second, &p); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if err := end(); err == nil {
				t.Error("no violation")
			}
			if !m.was {
				t.Error("the descriptor was closed before the handler was told")
			}
			if open() {
				t.Error("the descriptor is still open")
			}
		})
	}
}

// A channel that is not from Pair, or whose peer is slow, is waited for in the
// poller; one that is brisk in the kernel, and that wait ends.
func TestBriskWaitEnds(t *testing.T) {
	testenv.NoLeaks(t)
	a, b := connPair(t, 64)
	for range 1000 { // a busy machine may be late for a few
		if err := a.Send(t.Context(), time.Second, &Packet{Type: Request}); err != nil {
			t.Fatal(err)
		}
		var p Packet
		if err := b.Receive(&p); err != nil {
			t.Fatal(err)
		}
		p.Release()
		if b.brisk {
			break
		}
	}
	if !b.brisk {
		t.Fatal("a thousand packets that waited did not make the receiver brisk")
	}
	b.watch.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	var p Packet
	if err := b.Receive(&p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want a deadline", err)
	}
	if b.brisk {
		t.Error("still brisk")
	}
	b.bounded = false // as one that is not from Pair
	a.Send(t.Context(), time.Second, &Packet{Type: Request})
	b.watch.SetReadDeadline(time.Time{})
	if err := b.Receive(&p); err != nil || b.brisk {
		t.Errorf("got %v, brisk %t", err, b.brisk)
	}
	p.Release()
}

// A brisk receiver holds a thread, and sessions are many: the others wait in
// the poller.
func TestBriskWaitersAreBounded(t *testing.T) {
	b := NewBuffers(64)
	for _, free := range []int{0, 1, 3} {
		for n := range 10 {
			if got, want := b.enterKernel(free), n < max(1, free); got != want {
				t.Errorf("%d Ps to spare, %d wait: the next may %t, want %t", free, n, got, want)
			}
		}
		for range 10 {
			b.leaveKernel()
		}
	}
}

// The bound is asked: they take no thread each.
func TestBriskWaitersTakeFewThreads(t *testing.T) {
	testenv.NoLeaks(t)
	const conns = 64
	buffers := NewBuffers(64)
	var all []*Conn
	for range conns {
		mine, theirs, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		c, err := NewConn(mine, buffers)
		if err != nil {
			t.Fatal(err)
		}
		c.brisk = true
		all = append(all, c)
	}
	before := threads(t)
	var waiting sync.WaitGroup
	for _, c := range all {
		waiting.Go(func() {
			var p Packet
			c.watch.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if err := c.Receive(&p); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v, want a deadline", err)
			}
		})
	}
	waiting.Wait()
	// The runtime keeps its threads, so the most that there were are there still.
	most := max(1, runtime.GOMAXPROCS(0)-1)
	if more := threads(t) - before; more > most+8 {
		t.Errorf("%d that wait took %d threads more, want %d and those of the runtime", conns, more, most)
	}
	for _, c := range all {
		c.Close()
	}
}

func threads(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}
