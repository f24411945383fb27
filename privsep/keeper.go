package privsep

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// How long a keeper that died waits to be started again: nothing the first
// time, then from least to most, twice as long each time. One that lived for
// steady begins anew.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 30 * time.Second
	steady     = time.Minute
)

// A Keeper is a worker outside of any session that keeps what nobody else may
// have, a key or the password file, and does for the monitor the one thing that
// takes it. Handlers call its operations: it is a [Caller].
//
// Its role's Main serves a policy, with [ServeConn], on the first of its
// Files. What it answers is as hostile as what any worker asks: it is scanned,
// bounded and decoded, and waited for no longer than the operation's Timeout.
// One that answers what no lawful keeper can, or nothing at all for that long,
// or that closes its channel, is killed. Whatever way it ended, another is
// started; meanwhile calls wait for it while it starts, and fail while it is
// not yet to be started again. Nothing of this blocks another session.
//
// A refusal of the keeper's is an [OpError] with its [syscall.Errno], which a
// handler that returns it passes on to the session's worker: a handler judges
// that first. Any other failure is the keeper's and a [*KeeperError].
type Keeper struct {
	monitor *Monitor
	launch  func() (Launch, error)
	log     *slog.Logger
	again   chan struct{}
	end     context.CancelFunc
	ended   chan struct{}
	heard   atomic.Int64 // when it answered last, in nanoseconds
	started atomic.Uint64

	mu     sync.Mutex
	role   string
	asked  int   // how often Restart was called
	now    *kept // nil: there is none, because of
	err    error // nil: it is starting
	change chan struct{}
}

// kept is one process of a keeper.
type kept struct {
	*process
	conn  *Conn
	asked int // the keeper's when it was launched
	began time.Time
	fault chan error // what it did that ends it
}

// A KeeperError is why a keeper gave no lawful answer. It holds no errno and no
// violation that a handler could pass on by mistake: neither the session's
// worker nor its client is to blame. In a handler's result it is the monitor's
// own trouble, so EIO.
type KeeperError struct {
	Role string
	Err  error
}

func (e *KeeperError) Error() string { return "keeper " + e.Role + ": " + e.Err.Error() }

// Keep starts a keeper and returns when its sandbox is closed and proved. It is
// launched again with a new Launch whenever it has ended, so launch is called
// from another goroutine later; Timeout, Spares and Share mean nothing. It ends with
// the monitor.
//
// The error is launch's or one of starting a worker.
func (m *Monitor) Keep(launch func() (Launch, error)) (*Keeper, error) {
	ctx, end := context.WithCancel(context.Background())
	k := &Keeper{
		monitor: m, launch: launch, log: m.log, again: make(chan struct{}, 1), end: end,
		ended: make(chan struct{}), change: make(chan struct{}),
	}
	w, err := k.start(ctx)
	if err != nil {
		end()
		return nil, err
	}
	k.log = m.log.With("keeper", k.role)
	go k.run(ctx, w)
	m.keepers.add(k)
	return k, nil
}

// Restart ends the keeper's process, with what calls it has under way, and has
// another started at once: for a file that it was started with and that is now
// another. A call made after Restart returned meets the new one.
func (k *Keeper) Restart() {
	k.mu.Lock()
	k.asked++
	k.set(nil, nil)
	k.mu.Unlock()
	select {
	case k.again <- struct{}{}:
	default:
	}
}

// Started is how many processes this keeper has been so far.
func (k *Keeper) Started() uint64 { return k.started.Load() }

// Close ends the keeper. Later calls fail. The monitor's Close does it too.
func (k *Keeper) Close() {
	k.end()
	<-k.ended
	k.monitor.keepers.remove(k)
}

// start launches a process and makes it the one that is called.
func (k *Keeper) start(ctx context.Context) (*kept, error) {
	asked, _ := k.wanted(nil)
	l, err := k.launch()
	if err != nil {
		return nil, err
	}
	mine, theirs, err := ipc.Pair()
	if err != nil {
		l.closeFiles()
		return nil, err
	}
	l.Files, l.Spares, l.Share = slices.Concat([]*os.File{theirs}, l.Files), 0, Share{}
	seat, err := k.monitor.launch(ctx, &l)
	if err != nil {
		mine.Close()
		return nil, err
	}
	_ = seat.conn.CloseRead() // it has nothing to ask
	conn, err := NewConn(mine)
	if err != nil {
		seat.bury()
		return nil, err
	}
	w := &kept{process: seat.p, conn: conn, asked: asked, began: time.Now(), fault: make(chan error, 1)}
	k.started.Add(1)
	k.heard.Store(w.began.UnixNano())
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.role == "" {
		k.role = l.Role.Name
	}
	if k.asked == asked {
		k.set(w, nil)
	}
	return w, nil
}

// set is what calls meet from now on. The caller holds mu.
func (k *Keeper) set(w *kept, err error) {
	k.now, k.err = w, err
	close(k.change)
	k.change = make(chan struct{})
}

// wanted reports whether w is not to be replaced, and how often that was asked.
func (k *Keeper) wanted(w *kept) (asked int, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked, w != nil && w.asked == k.asked
}

// out is what calls meet while nothing is there: err, or for nil a wait.
func (k *Keeper) out(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		err = &KeeperError{k.role, err}
	}
	k.set(nil, err)
}

// run has the keeper started whenever it has ended, until ctx ends. It returns
// when no process is left.
func (k *Keeper) run(ctx context.Context, w *kept) {
	defer close(k.ended)
	defer k.out(ipc.ErrClosed)
	pause := time.Duration(0)
	for w != nil || ctx.Err() == nil {
		err := error(nil)
		if w == nil {
			w, err = k.start(ctx)
		} else {
			if time.Since(w.began) > steady {
				pause = 0
			}
			err = k.watch(ctx, w)
			w = nil
		}
		if err != nil && ctx.Err() == nil {
			k.log.Error("keeper ended", "err", err, "pause", pause)
			k.rest(ctx, pause, err)
			pause = min(max(2*pause, leastPause), mostPause)
		}
	}
}

// watch waits for w's end, or ends it. The error is nil if that was asked for.
func (k *Keeper) watch(ctx context.Context, w *kept) (err error) {
	for asked := false; !asked && err == nil; {
		select {
		case <-w.ended:
			err = w.died(errors.New("its Main has returned"))
		case err = <-w.fault:
			if errors.Is(err, ipc.ErrClosed) {
				err = w.died(err)
			}
		case <-k.again:
			_, ok := k.wanted(w)
			asked = !ok
		case <-ctx.Done():
			asked = true
		}
	}
	k.out(nil)
	w.kill()
	w.conn.Close()
	<-w.ended
	w.release()
	return err
}

// died finds out how w ended, if its channel closed because it did.
func (w *kept) died(err error) error {
	timer := time.NewTimer(leastPause)
	defer timer.Stop()
	select {
	case <-w.ended:
		if exit := w.exitError(); exit != nil {
			return exit
		}
	case <-timer.C:
	}
	return err
}

// rest waits before the next start. Calls fail meanwhile with err.
func (k *Keeper) rest(ctx context.Context, pause time.Duration, err error) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	if pause > 0 {
		k.out(err)
		defer k.out(nil)
	}
	select {
	case <-timer.C:
	case <-k.again:
	case <-ctx.Done():
	}
}

// connection waits while a process starts.
func (k *Keeper) connection(ctx context.Context) (*Conn, error) {
	for {
		k.mu.Lock()
		w, err, change := k.now, k.err, k.change
		k.mu.Unlock()
		switch {
		case w != nil:
			return w.conn, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// judge finds out whether the keeper is to blame for a call's end.
func (k *Keeper) judge(ctx context.Context, c *Conn, limit time.Duration, err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) && errno != 0 {
		k.heard.Store(time.Now().UnixNano())
		return err
	}
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()), overdue(ctx) && errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		if time.Since(time.Unix(0, k.heard.Load())) < limit {
			return err // it answers, and others came first
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.now; w != nil && w.conn == c {
		w.fault <- err
		k.set(nil, nil) // nobody else meets it
	}
	return &KeeperError{k.role, err}
}

// overdue reports whether ctx's deadline has passed, even if it doesn't know yet.
func overdue(ctx context.Context) bool {
	d, ok := ctx.Deadline()
	return ok && !time.Now().Before(d)
}

// keepers are a monitor's.
type keepers struct {
	mu  sync.Mutex
	all []*Keeper
}

func (s *keepers) add(k *Keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, k)
}

func (s *keepers) remove(k *Keeper) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = slices.DeleteFunc(s.all, func(other *Keeper) bool { return other == k })
}

func (s *keepers) close() {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.mu.Unlock()
	for _, k := range all {
		k.Close()
	}
}
