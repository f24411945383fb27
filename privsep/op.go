package privsep

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"reflect"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// Unlimited is the number of Calls of an operation that may be called without
// end. There is no default: zero Calls is refused at start.
const Unlimited = -1

const (
	defaultTimeout = 10 * time.Second
	defaultSize    = 4 << 10
)

// An Op is one kind of request: what is asked and answered, how often in a
// session, and how long it may take. It is a value; two with one name and the
// same types are the same operation.
//
// Request and Reply are structs of bounded fields: bool, integers, string,
// []byte, slices and structs of those, each string and slice with a
// `privsep:"max=N"` tag, and *os.File with its `privsep:"kind=..."`. A Request
// with fields has a method Check() error, which judges form alone: it runs in
// the worker before sending and again on the other side, where a failure is a
// violation.
type Op[Request, Reply any] struct {
	// Name is unique in a policy.
	Name string
	// Calls is how often a session may call it, in all of its phases, or
	// [Unlimited]. Zero is refused at start.
	Calls int
	// Timeout is the longest that a call may take. Zero: 10 s.
	Timeout time.Duration
	// Size is the largest message, request or reply, in bytes. Zero: 4096.
	// A type whose largest value is larger is refused at start.
	Size int
	// Parallel lets calls run beside others of their session; their handler
	// then shares its receiver and must lock what it changes. False: calls
	// run one after another, in the order in which they were sent.
	Parallel bool
}

// A Checker judges a request's form: names, ranges, paths. It knows nothing
// but the request.
type Checker interface{ Check() error }

// A Caller is where operations are called: a [Worker], which asks its monitor,
// a [Conn], which asks another worker, or a [Keeper], which a monitor asks.
type Caller interface {
	connection(context.Context) (*Conn, error)
	// judge looks at how a call on the connection ended, after the limit or
	// before, and says what to tell the caller.
	judge(ctx context.Context, c *Conn, limit time.Duration, err error) error
}

// Call performs the operation on the other side and returns its answer. It
// may be called from many goroutines at once. The caller keeps the files in
// request, and owns those in the reply. Every error is an [*OpError].
func (o Op[Request, Reply]) Call(ctx context.Context, to Caller, request Request) (reply Reply, err error) {
	if err := o.call(ctx, to, &request, &reply); err != nil {
		return reply, &OpError{o.Name, err}
	}
	return reply, nil
}

func (o *Op[Request, Reply]) call(ctx context.Context, to Caller, request *Request, reply *Reply) error {
	c, err := to.connection(ctx)
	if err != nil {
		return err
	}
	in, err := c.plan(reflect.TypeFor[Request]())
	if err != nil {
		return err
	}
	out, err := c.plan(reflect.TypeFor[Reply]())
	if err != nil {
		return err
	}
	if check, ok := any(request).(Checker); ok {
		if err := check.Check(); err != nil {
			return err
		}
	}
	body, files, err := in.Encode(nil, request)
	if err != nil {
		return err
	}
	c.client.Expect(out.MaxSize())
	answer, err := c.client.Call(ctx, opNumber(o.Name), o.timeout(), body, files)
	if err != nil {
		return to.judge(ctx, c, o.timeout(), err)
	}
	defer answer.Release()
	if err := out.Decode(&answer, reply); err != nil {
		answer.CloseFiles()
		return to.judge(ctx, c, o.timeout(), err)
	}
	return to.judge(ctx, c, o.timeout(), nil)
}

func (o *Op[Request, Reply]) timeout() time.Duration {
	if o.Timeout == 0 {
		return defaultTimeout
	}
	return o.Timeout
}

// opNumber is an operation's number in packets. It comes from the name alone,
// so that a worker needs no copy of the policy; a policy refuses two names
// with one number.
func opNumber(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// An operation is an Op without its types.
type operation struct {
	name        string
	number      uint32
	calls       int
	timeout     time.Duration
	parallel    bool
	request     *ipc.Plan
	reply       *ipc.Plan
	requestType reflect.Type
	replyType   reflect.Type
}

// operation compiles o, or panics with what is wrong and how to mend it: a
// policy is written once and wrong for everybody.
func (o *Op[Request, Reply]) operation() *operation {
	fail := func(format string, args ...any) {
		panic("privsep: operation " + o.Name + ": " + fmt.Sprintf(format, args...))
	}
	op := &operation{
		name: o.Name, number: opNumber(o.Name), calls: o.Calls, timeout: o.timeout(), parallel: o.Parallel,
		requestType: reflect.TypeFor[Request](), replyType: reflect.TypeFor[Reply](),
	}
	switch {
	case o.Name == "":
		panic("privsep: an operation needs a Name")
	case o.Calls == 0:
		fail("needs Calls: a number, or privsep.Unlimited")
	case o.Calls < Unlimited || o.Timeout < 0 || o.Size < 0:
		fail("Calls, Timeout and Size can't be negative")
	}
	size := o.Size
	if size == 0 {
		size = defaultSize
	}
	for _, side := range []struct {
		plan **ipc.Plan
		typ  reflect.Type
	}{{&op.request, op.requestType}, {&op.reply, op.replyType}} {
		plan, err := ipc.PlanOf(side.typ)
		if err != nil {
			fail("%v", err)
		}
		if plan.MaxSize() > size {
			fail("%v may take %d bytes: lower its bounds, or set Size (now %d)", side.typ, plan.MaxSize(), size)
		}
		*side.plan = plan
	}
	if _, ok := reflect.New(op.requestType).Interface().(Checker); !ok && op.requestType.NumField() > 0 {
		fail("%v needs a method Check() error", op.requestType)
	}
	return op
}

// A Conn makes calls to whoever serves a policy on the other end of a channel.
type Conn struct {
	client *ipc.Client
	plans  *planCache
}

// NewConn takes ownership of channel, one end of a socketpair that a monitor
// handed over.
func NewConn(channel *os.File) (*Conn, error) {
	c, err := ipc.NewConn(channel, ipc.NewBuffers(defaultSize))
	if err != nil {
		return nil, err
	}
	return &Conn{ipc.NewClient(c), new(planCache)}, nil
}

// Close ends every outstanding call.
func (c *Conn) Close() error { return c.client.Close() }

func (c *Conn) connection(context.Context) (*Conn, error)                          { return c, nil }
func (c *Conn) judge(_ context.Context, _ *Conn, _ time.Duration, err error) error { return err }
func (c *Conn) plan(t reflect.Type) (*ipc.Plan, error)                             { return c.plans.get(t) }
