package privseptest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// A house has a porch and a room, and operations of every sort.
type (
	porch struct{ knocks int }
	room  struct{ *porch }
	attic struct{ *room }

	nameRequest struct {
		Name string `privsep:"max=32"`
		Port uint16
	}
	listRequest struct {
		Names  []string `privsep:"max=3,each=8"`
		Offset int64
		Key    []byte `privsep:"max=32"`
		All    bool
		From   person
		Output *os.File `privsep:"kind=pipe-write"`
	}
	person struct {
		Name string `privsep:"max=8"`
		Age  int8
	}
	fileReply struct {
		File *os.File `privsep:"kind=regular-read"`
		Size int64
	}
	nothing struct{}
)

func (r *nameRequest) Check() error {
	if r.Port < 1024 || !strings.HasPrefix(r.Name, "/") {
		return errors.New("a form that no name has")
	}
	return nil
}

func (r *listRequest) Check() error {
	if len(r.Names) == 0 || r.Names[0] == "" || len(r.Key) != 16 {
		return errors.New("a form that no list has")
	}
	return nil
}

var (
	enterOp = privsep.Op[nameRequest, fileReply]{Name: "enter", Calls: 3}
	climbOp = privsep.Op[nothing, nothing]{Name: "climb", Calls: 1}
	openOp  = privsep.Op[nameRequest, fileReply]{Name: "open", Calls: 4}
	waitOp  = privsep.Op[nothing, nothing]{Name: "wait", Calls: privsep.Unlimited}
	listOp  = privsep.Op[listRequest, nothing]{Name: "list", Calls: privsep.Unlimited, Parallel: true}
	knockOp = privsep.Op[nothing, nothing]{Name: "knock", Calls: 9}
)

func newHouse() (*privsep.Policy, *privsep.Phase[porch], *privsep.Phase[room]) {
	p := new(privsep.Policy)
	outside := privsep.NewPhase(p, "porch", func(*porch) privsep.Launch { return privsep.Launch{} })
	inside := privsep.NewPhase[room](p, "room", nil)
	above := privsep.NewPhase[attic](p, "attic", nil)
	privsep.Advance(outside, enterOp, inside, (*porch).enter)
	privsep.Permit(outside, knockOp, (*porch).knock)
	privsep.Permit(inside, openOp, (*room).open)
	privsep.Permit(inside, listOp, (*room).list)
	privsep.Permit(inside, waitOp, (*room).wait)
	privsep.Advance(inside, climbOp, above, (*room).climb)
	privsep.Permit(above, openOp, (*attic).open)
	return p, outside, inside
}

func (p *porch) enter(context.Context, nameRequest) (fileReply, *room, error) {
	return fileReply{}, nil, fmt.Errorf("not you: %w", syscall.EACCES)
}
func (p *porch) knock(context.Context, nothing) (nothing, error) { p.knocks++; return nothing{}, nil }
func (r *room) open(context.Context, nameRequest) (fileReply, error) {
	f, err := os.Open(os.DevNull + "/none")
	return fileReply{File: f}, err
}
func (r *room) list(_ context.Context, l listRequest) (nothing, error) {
	_, err := l.Output.WriteString("x")
	return nothing{}, err
}
func (r *room) wait(ctx context.Context, _ nothing) (nothing, error) {
	<-ctx.Done()
	return nothing{}, ctx.Err()
}
func (r *room) climb(context.Context, nothing) (nothing, *attic, error) {
	return nothing{}, &attic{r}, nil
}

// A recorder is a testing.TB that a test fails in place of itself.
type recorder struct {
	testing.TB // for what a recorder does not record
	mu         sync.Mutex
	said       []string
}

func (r *recorder) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, s)
}
func (r *recorder) Helper()                           {}
func (r *recorder) Logf(string, ...any)               {}
func (r *recorder) Error(args ...any)                 { r.note(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.note(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatal(args ...any)                 { r.note(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.note(fmt.Sprintf(format, args...))
	runtime.Goexit()
}
func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said) > 0
}

// failures runs f and returns what it found wrong.
func failures(t *testing.T, f func(testing.TB)) []string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.said
}

func describe(p *privsep.Policy) *fortest.Policy {
	d := new(fortest.Policy)
	p.ForTest(d)
	return d
}

// broken returns a description whose sessions are not what they should be.
func broken(d *fortest.Policy, spoil func(*fortest.Session) *fortest.Session) {
	serve := d.Serve
	d.Serve = func(o fortest.Options) fortest.Begin {
		begin := serve(o)
		return func(phase int, state any) *fortest.Session { return spoilt(begin(phase, state), spoil) }
	}
}

func spoilt(s *fortest.Session, spoil func(*fortest.Session) *fortest.Session) *fortest.Session {
	fork := s.Fork
	s.Fork = func() *fortest.Session { return spoilt(fork(), spoil) }
	return spoil(s)
}

// A beginner is a Handler that is one function.
type beginner func(p *ipc.Packet) (ipc.Call, error)

func (f beginner) Begin(p *ipc.Packet) (ipc.Call, error) { return f(p) }

// A spoiltCall returns something else.
type spoiltCall struct {
	ipc.Call
	run func(ctx context.Context) ([]byte, []*os.File, error)
}

func (c spoiltCall) Run(ctx context.Context) ([]byte, []*os.File, error) { return c.run(ctx) }
