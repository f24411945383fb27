//go:build linux

package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestManySessions: 200 at once, none of which fails. Afterwards the monitor
// has the files, the workers and the goroutines that it had after the first.
func TestManySessions(t *testing.T) {
	serve := func(n int) (goroutines int, s *site) {
		s = startSite(t, map[string]string{"max_startups": "500:30:1000"})
		write(t, s.alice+"/f", randomBytes(100<<10))
		want := string(randomBytes(100 << 10))
		if err := visit(s.address, 1, want); err != nil { // starts the spares
			t.Fatal(err)
		}
		before := quiet(t, s)
		if err := visit(s.address, n, want); err != nil {
			t.Error(err)
		}
		if after := quiet(t, s); after != before {
			t.Errorf("the monitor had %d files, and after %d sessions %d", before, n, after)
		}
		// The runtime's answer to SIGQUIT is the stack of every goroutine.
		s.Signal(syscall.SIGQUIT)
		<-s.done
		// Those of the collector start with its first run.
		return strings.Count(s.output(), "\ngoroutine ") - strings.Count(s.output(), "created by runtime.gcBgMarkStartWorkers"), s
	}
	few, _ := serve(1)
	many, s := serve(200)
	if many > few {
		t.Errorf("the monitor has %d goroutines after 200 sessions, %d after one", many, few)
	}
	if n := s.logged("level=WARN") + s.logged("level=ERROR"); n > 0 {
		t.Errorf("%d complaints in the log", n)
	}
}

// quiet waits until only spares are left and nothing happens any more, and
// returns how many files the monitor has then.
func quiet(t *testing.T, s *site) int {
	t.Helper()
	s.settled(t, map[string]int{"session": 2})
	return still(t, s)
}

// still waits until the monitor's number of files doesn't change any more.
func still(t *testing.T, s *site) int {
	t.Helper()
	n := s.files(t)
	for still := 0; still < 50; still++ {
		time.Sleep(10 * time.Millisecond)
		if now := s.files(t); now != n {
			n, still = now, 0
		}
	}
	return n
}

// visit has n sessions at once, over IPv4 and IPv6: none begins its work before
// all are connected, none leaves before all have done it.
func visit(addresses []string, n int, want string) error {
	var connected, done, all sync.WaitGroup
	connected.Add(n)
	done.Add(n)
	errs := make([]error, n)
	for i := range n {
		all.Go(func() {
			c, err := dial(addresses[i%len(addresses)], "")
			connected.Done()
			connected.Wait()
			if err == nil {
				defer c.Close()
				err = work(c, i, want)
			}
			done.Done()
			done.Wait()
			if err == nil {
				err = errors.Join(c.do("QUIT", "221"), c.ended())
			}
			errs[i] = err
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func work(c *control, i int, want string) error {
	if err := c.login("alice"); err != nil {
		return err
	}
	list, err := c.get("LIST")
	if err == nil && !strings.Contains(string(list), " f\r\n") {
		err = fmt.Errorf("listing: %q", list)
	}
	got, err2 := c.get("RETR f")
	if err2 == nil && string(got) != want {
		err2 = errors.New("other bytes")
	}
	name := fmt.Sprint("new", i)
	return errors.Join(err, err2, c.put("STOR "+name, got[:1000]), c.do("DELE "+name, "250"))
}
