package ftpload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Limit bounds a load: it ends with the count or the time, whichever comes
// first. What has begun by then is finished and counted.
type Limit struct {
	Count int64
	Time  time.Duration
}

// A Result is what a load did. Elapsed runs until its last client has finished.
type Result struct {
	Count   int64
	Bytes   int64
	Elapsed time.Duration
}

// PerSecond returns how many operations were done in a second.
func (r Result) PerSecond() float64 { return float64(r.Count) / r.Elapsed.Seconds() }

// MiBPerSecond returns how many MiB were moved in a second.
func (r Result) MiBPerSecond() float64 { return float64(r.Bytes) / (1 << 20) / r.Elapsed.Seconds() }

// An Account is who logs in.
type Account struct{ User, Password string }

// Anonymous is the account of whoever has none.
var Anonymous = Account{"anonymous", "bench@"}

// bufferSize is what the client reads and writes at once: large, so that the
// client is the cheaper side.
const bufferSize = 1 << 20

// Logins does whole short sessions: connect, greeting, USER, PASS, QUIT,
// farewell.
func Logins(ctx context.Context, addr string, who Account, clients int, limit Limit) (Result, error) {
	return run(ctx, clients, limit, func(int) (work, error) {
		return work{op: func(int64) (int64, error) {
			c, err := Dial(ctx, addr)
			if err != nil {
				return 0, err
			}
			if err := c.Login(who.User, who.Password); err != nil {
				c.Close()
				return 0, err
			}
			return 0, c.Quit()
		}}, nil
	})
}

// Retrieve downloads files of the given size, each client in a session of its
// own; download i is of names[i % len(names)]. Logging in is not timed.
func Retrieve(ctx context.Context, addr string, clients int, names []string, size int64, limit Limit) (Result, error) {
	return run(ctx, clients, limit, func(int) (work, error) {
		buf := make([]byte, min(bufferSize, max(size, 4096)))
		return session(ctx, addr, func(c *Client, i int64) (int64, error) {
			name := names[i%int64(len(names))]
			n, err := c.Retrieve(name, buf)
			if err == nil && n != size {
				err = fmt.Errorf("ftpload: RETR %s: got %d bytes, want %d", name, n, size)
			}
			return n, err
		})
	})
}

// Store uploads new files of the given size, each client in a session of its
// own; upload i is stored as prefix and i. Logging in is not timed.
func Store(ctx context.Context, addr string, clients int, prefix string, size int64, limit Limit) (Result, error) {
	chunk := make([]byte, bufferSize)
	for i := range chunk {
		chunk[i] = byte(i * 7)
	}
	return run(ctx, clients, limit, func(int) (work, error) {
		return session(ctx, addr, func(c *Client, i int64) (int64, error) {
			return size, c.Store(fmt.Sprint(prefix, i), chunk, size)
		})
	})
}

// Idle opens n anonymous sessions and leaves them open. The caller closes them
// with the function returned, which is never nil.
func Idle(ctx context.Context, addr string, n int) (closeAll func(), err error) {
	var open []*Client
	closeAll = func() {
		for _, c := range open {
			c.Close()
		}
	}
	for range n {
		c, err := Dial(ctx, addr)
		if err != nil {
			return closeAll, err
		}
		open = append(open, c)
		if err := c.Login(Anonymous.User, Anonymous.Password); err != nil {
			return closeAll, err
		}
	}
	return closeAll, nil
}

// work is what one client does: op until the limit, then end.
type work struct {
	op  func(i int64) (bytes int64, err error)
	end func() error
}

func session(ctx context.Context, addr string, op func(*Client, int64) (int64, error)) (work, error) {
	c, err := Dial(ctx, addr)
	if err != nil {
		return work{}, err
	}
	if err := c.Login(Anonymous.User, Anonymous.Password); err != nil {
		c.Close()
		return work{}, err
	}
	if err := c.Binary(); err != nil {
		c.Close()
		return work{}, err
	}
	return work{
		op:  func(i int64) (int64, error) { return op(c, i) },
		end: c.Quit,
	}, nil
}

// run prepares all clients, then lets them take operations from one counter.
// The first error ends the load: a figure with errors in it says nothing.
func run(ctx context.Context, clients int, limit Limit, prepare func(client int) (work, error)) (Result, error) {
	works := make([]work, 0, clients)
	end := func() error {
		var first error
		for _, w := range works {
			if w.end == nil {
				continue
			}
			if err := w.end(); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
	for i := range clients {
		w, err := prepare(i)
		if err != nil {
			end()
			return Result{}, err
		}
		works = append(works, w)
	}

	var (
		next, count, bytes atomic.Int64
		failed             atomic.Pointer[error]
		wg                 sync.WaitGroup
	)
	start := time.Now()
	for _, w := range works {
		wg.Go(func() {
			for failed.Load() == nil && time.Since(start) < limit.Time {
				i := next.Add(1) - 1
				if i >= limit.Count {
					return
				}
				n, err := w.op(i)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				count.Add(1)
				bytes.Add(n)
			}
		})
	}
	wg.Wait()
	result := Result{Count: count.Load(), Bytes: bytes.Load(), Elapsed: time.Since(start)}
	endErr := end()
	if err := failed.Load(); err != nil {
		return Result{}, *err
	}
	return result, endErr
}
