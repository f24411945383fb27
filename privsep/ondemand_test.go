package privsep_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// A patron is asked for a channel to a worker that nobody has started yet.
type (
	patron struct {
		script, beside string
		change         func(*privsep.Launch)
		seen           []int // how many workers there were at each count
	}
	served struct {
		*patron
		channel *os.File
	}
	channelReply struct {
		Channel *os.File `privsep:"kind=channel"`
	}
)

var (
	openOp  = privsep.Op[empty, channelReply]{Name: "open-channel", Calls: 1}
	countOp = privsep.Op[empty, empty]{Name: "count-workers", Calls: 8}
)

func newPatrons() (*privsep.Policy, *privsep.Phase[patron]) {
	p := new(privsep.Policy)
	a := privsep.NewPhase(p, "outside", func(s *patron) privsep.Launch { return launch(s.script) })
	b := privsep.NewPhase[served](p, "inside", nil)
	privsep.OnDemand(b, func(s *served) privsep.Launch {
		l := launch(s.beside)
		l.Files = []*os.File{s.channel}
		if s.change != nil {
			s.change(&l)
		}
		return l
	})
	privsep.Advance(a, openOp, b, func(s *patron, _ context.Context, _ empty) (channelReply, *served, error) {
		mine, theirs, err := ipc.Pair()
		return channelReply{mine}, &served{s, theirs}, err
	})
	privsep.Permit(b, countOp, func(s *served, _ context.Context, _ empty) (empty, error) {
		s.seen = append(s.seen, len(workers()))
		return empty{}, nil
	})
	return p, a
}

var demandScripts = map[string]func(ctx context.Context, w *privsep.Worker) error{
	"asks": func(ctx context.Context, w *privsep.Worker) error {
		reply, err := openOp.Call(ctx, w, empty{})
		if err != nil {
			return err
		}
		if _, err := countOp.Call(ctx, w, empty{}); err != nil {
			return err
		}
		for _, word := range []string{"first", "second"} {
			if _, err := reply.Channel.WriteString(word); err != nil {
				return err
			}
		}
		for _, want := range []string{"first", "second"} {
			got := make([]byte, 10)
			if n, err := reply.Channel.Read(got); err != nil || string(got[:n]) != want {
				return fmt.Errorf("got %q and %v, want %q", got[:max(n, 0)], err, want)
			}
		}
		_, err = countOp.Call(ctx, w, empty{})
		return err
	},
	"asks nothing": func(ctx context.Context, w *privsep.Worker) error {
		reply, err := openOp.Call(ctx, w, empty{})
		if err != nil {
			return err
		}
		if _, err := countOp.Call(ctx, w, empty{}); err != nil {
			return err
		}
		reply.Channel.Close()
		_, err = countOp.Call(ctx, w, empty{})
		return err
	},
	"asks and waits": func(ctx context.Context, w *privsep.Worker) error {
		reply, err := openOp.Call(ctx, w, empty{})
		if err != nil {
			return err
		}
		if _, err := reply.Channel.WriteString("first"); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	},
	"holds the channel": func(ctx context.Context, w *privsep.Worker) error {
		_, err := openOp.Call(ctx, w, empty{})
		if err == nil {
			time.Sleep(time.Hour)
		}
		return err
	},
	"echoes": func(_ context.Context, w *privsep.Worker) error {
		text := make([]byte, 10)
		for {
			n, err := w.Files()[0].Read(text)
			if n <= 0 {
				if err == io.EOF {
					err = nil
				}
				return err
			}
			if _, err := w.Files()[0].Write(text[:n]); err != nil {
				return err
			}
		}
	},
}

// A worker on demand is started by the first packet, which it then reads, and
// not before.
func TestOnDemand(t *testing.T) {
	noLeaks(t)
	p, ph := newPatrons()
	s := &patron{script: "asks", beside: "echoes"}
	if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, s); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(s.seen) != "[1 2]" {
		t.Errorf("workers before and after the first word: %v", s.seen)
	}
}

// A channel that is closed unused starts nothing, nor does the end of a session.
func TestOnDemandUnused(t *testing.T) {
	noLeaks(t)
	p, ph := newPatrons()
	m := newMonitor(t, p)
	s := &patron{script: "asks nothing", beside: "echoes"}
	if err := privsep.Serve(t.Context(), m, ph, s); err != nil || fmt.Sprint(s.seen) != "[1 1]" {
		t.Errorf("got %v, and workers %v", err, s.seen)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := privsep.Serve(ctx, m, ph, &patron{script: "holds the channel", beside: "echoes"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the session to wait", err)
	}
}

// One that can't be started, or fails, is the session's end, and says why.
func TestOnDemandFails(t *testing.T) {
	noLeaks(t)
	p, ph := newPatrons()
	m := newMonitor(t, p)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var exit *privsep.ExitError
	if err := privsep.Serve(ctx, m, ph, &patron{script: "asks and waits", beside: "error"}); !errors.As(err, &exit) || exit.Class != privsep.Failed {
		t.Errorf("got %v, want the worker's error", err)
	}
	nowhere := func(l *privsep.Launch) { l.Sandbox.Root = "/nosuch" }
	if err := privsep.Serve(ctx, m, ph, &patron{script: "asks and waits", beside: "echoes", change: nowhere}); err == nil ||
		!strings.Contains(err.Error(), fs.ErrNotExist.Error()) && !strings.Contains(err.Error(), "/nosuch") {
		t.Errorf("got %v, want that there is no /nosuch", err)
	}
	none := func(l *privsep.Launch) {
		for _, f := range l.Files {
			f.Close()
		}
		l.Files = nil
	}
	if err := privsep.Serve(ctx, m, ph, &patron{script: "asks and waits", beside: "echoes", change: none}); err == nil ||
		!strings.Contains(err.Error(), "make it the first of Files") {
		t.Errorf("got %v, want that it takes a channel", err)
	}
}
