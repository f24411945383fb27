// Package fortest is the door through which package privseptest sees a policy
// and serves it without processes. It is internal, so that no daemon can name
// what [privsep.Policy.ForTest] takes: production code has no way to serve a
// policy with other handlers, from a later phase, or past the start of workers.
//
// It may hold types only.
package fortest

import (
	"context"
	"reflect"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// A Policy is what the kit knows of a privsep.Policy, and how it has it served.
type Policy struct {
	Phases []Phase // in the order of declaration
	Ops    []*Op   // in the order of their first permit
	Phase  int     // index of the phase that was asked; 0 for a policy
	Size   int     // of the largest message, in bytes

	// Serve returns what begins sessions. They start no worker for any phase.
	Serve func(options Options) Begin
}

// Begin begins a session in a phase. The state is a pointer to one of the
// phase's type, unless every handler is replaced.
type Begin func(phase int, state any) *Session

// A Phase is one of a policy.
type Phase struct {
	Name    string
	State   reflect.Type // S; handlers have *S
	Launch  bool         // a new worker serves it
	Permits []Permit     // in the order of declaration
}

// A Permit lets workers call Op.
type Permit struct {
	Op   *Op
	Next int // index of the phase to which it may lead; -1: none
}

// An Op is one of a policy.
type Op struct {
	Name                   string
	Number                 uint32
	Calls                  int // -1: unlimited
	Timeout                time.Duration
	Parallel               bool
	Request, Reply         *ipc.Plan
	RequestType, ReplyType reflect.Type
}

// Options say who handles calls.
type Options struct {
	Perform Perform // nil: the daemon's handlers
	Bare    bool    // under no capabilities: for a Perform that needs none
}

// Perform stands in for every handler. reply points to a value of the
// operation's type; next is nil, or the next phase's state.
type Perform func(ctx context.Context, c Call) (reply, next any, err error)

// A Call is what a handler would have been called with.
type Call struct {
	Phase, Op      int // indices
	State, Request any
	Handler        func() (reply, next any, err error) // the daemon's own
}

// A Session is a dispatcher in use. Its functions are for when no call runs.
type Session struct {
	ipc.Handler
	Fork  func() *Session       // another that has come as far
	Phase func() int            // where it is now
	Used  func(op *Op) int      // how many calls of a budget are spent
	Ended func(err error) error // names the phase in what ipc.Serve returned
}
