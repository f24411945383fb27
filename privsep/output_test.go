package privsep_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// noise is what a library that logs writes in a worker's life.
const noise = 4 << 20

var outputScripts = map[string]func(ctx context.Context, w *privsep.Worker) error{
	// It has work to do, and a library that talks.
	"chatty": func(ctx context.Context, w *privsep.Worker) error {
		line := strings.Repeat("x", 120)
		for i := range noise / 128 {
			log.Print(line)
			if i%1000 == 0 {
				if _, err := sayOp.Call(ctx, w, wordRequest{"hello"}); err != nil {
					return err
				}
			}
		}
		return nil
	},
	// It talks, and then something happens.
	"noisy panic": func(context.Context, *privsep.Worker) error {
		fmt.Fprintln(os.Stderr, "the first line")
		for range 200 {
			for {
				if _, err := os.Stderr.Write(bytes.Repeat([]byte("."), 1<<10)); err == nil {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Millisecond)
		}
		// Until the monitor has read it all.
		for {
			if full, err := syscall.Write(2, bytes.Repeat([]byte("."), 60<<10)); err == nil && full == 60<<10 {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(1500 * time.Millisecond)
		panic("the reason")
	},
	// Taken over: it writes as fast as it can, on all threads.
	"flood": func(ctx context.Context, w *privsep.Worker) error {
		block := bytes.Repeat([]byte("x"), 1<<20)
		end := time.Now().Add(3 * time.Second)
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for time.Now().Before(end) {
					if _, err := syscall.Write(2, block); err != nil {
						time.Sleep(100 * time.Microsecond) // the machine is for the monitor
					}
				}
			})
		}
		all.Wait()
		return errors.New("flooded")
	},
	"flood that waits": func(ctx context.Context, w *privsep.Worker) error {
		_ = syscall.SetNonblock(2, false)
		for {
			_, _ = syscall.Write(2, make([]byte, 1<<20))
		}
	},
	"early crash": func(context.Context, *privsep.Worker) error {
		os.Stderr.Close()
		panic("unheard")
	},
}

// TestChattyWorkerIsNotHeldUp: what a worker writes to standard error never
// keeps it from its work.
func TestChattyWorkerIsNotHeldUp(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("chatty")
		l.Timeout = 30 * time.Second
		return l
	})
	if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, new(porch)); err != nil {
		t.Error(err)
	}
}

func TestLastWordsAfterNoise(t *testing.T) {
	noLeaks(t)
	var exit *privsep.ExitError
	err := session(t, "noisy panic")
	if !errors.As(err, &exit) || exit.Class != privsep.Crashed {
		t.Fatal(err)
	}
	for _, want := range []string{`"the first line\n..`, "bytes ...", "panic: the reason", "goroutine "} {
		if !strings.Contains(exit.Output, want) {
			t.Errorf("no %s in %s", want, exit.Output)
		}
	}
	if len(exit.Output) > 9<<10 {
		t.Errorf("%d bytes", len(exit.Output))
	}
}

// lostBytes is the gap that an [privsep.ExitError] tells of.
var lostBytes = regexp.MustCompile(`\.\.\. (\d+) bytes \.\.\.`)

// TestFloodOfOutput: the monitor reads no more of a worker's standard error than
// it allows, whatever comes, and another session beside it notices nothing.
func TestFloodOfOutput(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(s *porch) privsep.Launch { return launch(s.said[0]) })
	m := newMonitor(t, p)
	began := time.Now()
	var sessions sync.WaitGroup
	sessions.Go(func() {
		var exit *privsep.ExitError
		err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"flood"}})
		if !errors.As(err, &exit) || exit.Class != privsep.Failed {
			t.Errorf("got %v", err)
			return
		}
		found := lostBytes.FindStringSubmatch(exit.Output)
		if found == nil {
			t.Errorf("nothing was lost: %.100s", exit.Output)
			return
		}
		lost, _ := strconv.Atoi(found[1])
		// 64 at once, one in each second, and the rest at the end.
		if reads := 64 + int(time.Since(began)/time.Second) + 3; lost > reads<<16 {
			t.Errorf("%d bytes were read", lost)
		}
	})
	for range 3 {
		if err := privsep.Serve(t.Context(), m, ph, &porch{said: []string{"guest"}}); err != nil {
			t.Error(err)
		}
	}
	sessions.Wait()
}

// TestFloodIsEnded: one that never stops ends when its phase does, at once.
func TestFloodIsEnded(t *testing.T) {
	noLeaks(t)
	p, ph := newHouse(func(*porch) privsep.Launch {
		l := launch("flood that waits")
		l.Timeout = time.Second
		return l
	})
	var exit *privsep.ExitError
	if err := privsep.Serve(t.Context(), newMonitor(t, p), ph, new(porch)); !errors.As(err, &exit) || exit.Class != privsep.TimedOut {
		t.Error(err)
	}
}

func TestClosedStandardError(t *testing.T) {
	noLeaks(t)
	var exit *privsep.ExitError
	if err := session(t, "early crash"); !errors.As(err, &exit) || exit.Class != privsep.Crashed || exit.Output != "" {
		t.Error(err)
	}
}
