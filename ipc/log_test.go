package ipc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// A listener is a script that takes log records.
type listener struct {
	*script
	got chan string
	err error
}

func (l *listener) Log(p *Packet) error {
	l.got <- fmt.Sprintf("%d %s", p.Value, p.Body)
	return l.err
}

func newListener() *listener {
	s, _ := newScript()
	return &listener{script: s, got: make(chan string, 10_000)}
}

func TestLogArrivesBeforeWhatFollows(t *testing.T) {
	testenv.NoLeaks(t)
	l := newListener()
	c := startClient(t, l)
	for i := range 100 {
		if err := c.Log(uint32(i), []byte("record")); err != nil {
			t.Fatal(err)
		}
		if got, err := call(t.Context(), c, opEcho, "x"); got != "x" || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
		select {
		case got := <-l.got:
			if want := fmt.Sprintf("%d record", i); got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		default:
			t.Fatal("the call that was sent after the record was answered before it arrived")
		}
	}
}

// Nobody reads while a handler runs that does not ask for its context: the
// queue is full at some time, and the sender does not wait.
func TestLogDoesNotWait(t *testing.T) {
	testenv.NoLeaks(t)
	a, _ := connPair(t, 4096)
	c := NewClient(a)
	defer c.Close()
	body := []byte(strings.Repeat("x", 4000))
	done := make(chan error, 1)
	go func() {
		for {
			if err := c.Log(0, body); err != nil {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		if err != syscall.EAGAIN {
			t.Errorf("got %v, want EAGAIN", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Log waits for a peer that does not read")
	}
}

func TestLogTooLarge(t *testing.T) {
	a, _ := connPair(t, 4096)
	c := NewClient(a)
	defer c.Close()
	if err := c.Log(0, make([]byte, MaxPacket)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("got %v", err)
	}
}

func TestLogOnAClosedConnection(t *testing.T) {
	a, b := connPair(t, 4096)
	c := NewClient(a)
	b.Close()
	if err := c.Log(0, nil); err != ErrClosed {
		t.Errorf("peer gone: got %v, want ErrClosed", err)
	}
	c.Close()
	if err := c.Log(0, nil); err != ErrClosed {
		t.Errorf("closed: got %v, want ErrClosed", err)
	}
}

func TestLogViolations(t *testing.T) {
	refused := errors.New("too long a record")
	for _, tt := range []struct {
		name   string
		packet Packet
		err    error // of Log
		want   string
	}{
		{"a call", Packet{Call: 1}, nil, "a log record with a call"},
		{"an operation", Packet{Op: 1}, nil, "a log record with a call"},
		{"a file", Packet{Files: []*os.File{os.Stdin}}, nil, "a log record with a call"},
		{"refused", Packet{Body: []byte("x")}, refused, "too long a record"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NoLeaks(t)
			l := newListener()
			l.err = tt.err
			conn, end := serve(t, l)
			tt.packet.Type = Log
			if err := conn.Send(t.Context(), time.Second, &tt.packet); err != nil {
				t.Fatal(err)
			}
			if err := end(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if len(l.got) > 0 && tt.err == nil {
				t.Errorf("the handler got %q", <-l.got)
			}
		})
	}
}
