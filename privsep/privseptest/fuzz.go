package privseptest

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// Fuzz is the body of a fuzz target that drives the whole of what stands
// between a worker and the handlers of a policy:
//
//	func FuzzBoundary(f *testing.F) {
//		policy, _ := newPolicy()
//		privseptest.Fuzz(f, policy)
//	}
//
// The input is a script of packets: calls that are lawful and calls that are
// not, spoilt bodies, headers and descriptors, cancels, bytes as they come. It
// must cause no panic and leave no descriptor and no goroutine; as long as each
// packet is one whose verdict the oracle of [Walk] knows, answers, phase,
// budgets and the end of the session must be what the oracle says. Handlers do
// what the script says.
//
// requests are as for [Walk].
func Fuzz(f *testing.F, policy *privsep.Policy, requests ...any) {
	f.Helper()
	p := new(fortest.Policy)
	policy.ForTest(p)
	o := newObjects(f)
	all := samples(f, p, o, requests)
	for op := range len(p.Ops) {
		call := []byte{lawfulPacket, byte(op), byte(replies)}
		f.Add(append([]byte{0}, call...))
		f.Add(append([]byte{1, lawfulPacket, 0, byte(moves)}, call...))
		f.Add([]byte{0, spoiltPacket, byte(op), 1, 0xc0, cancelPacket, 1})
		f.Add([]byte{0, framePacket, request, byte(op), 0, 1, 1, 0, 2, 0x81, 0xa1})
	}
	f.Add(append([]byte{0}, rawPacket, 3, 2, 0, 0))
	f.Add([]byte{1, lawfulPacket, 0, byte(moves), lawfulPacket, 0, byte(moves), lawfulPacket, 0, byte(careless), lawfulPacket, 0, byte(fails)})
	f.Fuzz(func(t *testing.T, script []byte) {
		before := testenv.UsageNow(t)
		(&playback{walker: walker{TB: t, policy: p, objects: o, samples: all}, rest: script}).play()
		before.Settled(t)
	})
}

// Packets of a script, each followed by bytes that say which.
const (
	lawfulPacket = iota // op, outcome: a call of good form, lawful or not
	spoiltPacket        // op, place, value: a call with one byte of its body changed
	framePacket         // type, op, call, files announced, files sent, reserved, length, body
	rawPacket           // length, bytes
	cancelPacket        // call
	packets
)

// maxPackets is how long a script may be.
const maxPackets = 48

// cramming is how long a packet of a script waits for room: nobody reads yet, so
// none will come. An input that takes 10 s is a hang to go test.
const cramming = 10 * time.Millisecond

// A playback is one input of a fuzz target.
type playback struct {
	walker
	rest []byte

	conn   *wire
	number uint32
	oracle *oracle
	known  bool // the oracle can tell what comes of all packets so far
	exact  bool // and nothing runs beside anything
	want   map[uint32]string
	end    string // how the session ends
	mu     sync.Mutex
	todo   []outcome
}

// next takes a byte, zero behind the end.
func (s *playback) next() byte {
	if len(s.rest) == 0 {
		return 0
	}
	b := s.rest[0]
	s.rest = s.rest[1:]
	return b
}

func (s *playback) bytes(n int) []byte {
	n = min(n, len(s.rest))
	b := s.rest[:n]
	s.rest = s.rest[n:]
	return b
}

func (s *playback) play() {
	conn, theirs := newWire(s)
	defer conn.close()
	served, err := ipc.NewConn(theirs, ipc.NewBuffers(s.policy.Size))
	if err != nil {
		s.Fatal(err)
	}
	defer served.Close()
	waits := s.next()&1 == 1
	s.conn, s.oracle, s.known, s.exact = conn, &oracle{policy: s.policy}, true, !waits
	s.want, s.end, s.state = make(map[uint32]string), "reply", &token{0}

	// All is sent before anybody reads, so that the script decides the order.
	for n := 0; len(s.rest) > 0 && n < maxPackets && s.end == "reply"; n++ {
		if s.packet() != nil {
			break // no room: the script is at its end
		}
	}
	raw, err := conn.file.SyscallConn()
	if err != nil {
		s.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_WR) })

	session := s.policy.Serve(fortest.Options{Bare: true, Perform: func(ctx context.Context, c fortest.Call) (any, any, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if waits {
			ctx.Done()
		}
		s.do = replies
		if !s.policy.Ops[c.Op].Parallel && len(s.todo) > 0 {
			s.do, s.todo = s.todo[0], s.todo[1:]
		}
		return s.perform(ctx, c)
	}})(0, s.state)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		s.answers()
	}()
	got := verdictOf(session.Ended(ipc.Serve(context.Background(), served, session)))
	served.Close()
	<-answered
	if !s.known {
		return
	}
	if got != s.end && (s.exact || got != "reply") { // what has not begun when the script ends is cancelled
		s.Errorf("the session ends with %s, and the oracle says %s", got, s.end)
	}
	if s.exact {
		s.compare(session, s.oracle, nil)
	}
}

// answers compares what came with what the oracle said.
func (s *playback) answers() {
	came := 0
	for {
		a, err := s.conn.get(patience)
		if err != nil {
			break
		}
		if came++; !s.known {
			continue
		}
		want, ok := s.want[a.call]
		got := a.verdict()
		canceled := a.kind == 5 && syscall.Errno(a.value) == syscall.ECANCELED && !s.exact
		if !canceled && (!ok || got != want) {
			s.Errorf("call %d: %s, and the oracle says %q", a.call, got, want)
		}
	}
	if s.known && s.exact && came != len(s.want) {
		s.Errorf("%d answers, and the oracle says %d", came, len(s.want))
	}
}

// packet sends one packet, and has the oracle judge it.
func (s *playback) packet() error {
	kind := s.next() % packets
	if kind != lawfulPacket {
		s.known = false
	}
	switch kind {
	case lawfulPacket:
		return s.lawful(int(s.next())%len(s.policy.Ops), replies+outcome(s.next())%(moves-replies+1))
	case spoiltPacket:
		op := s.policy.Ops[int(s.next())%len(s.policy.Ops)]
		body := append([]byte(nil), s.samples[op].body...)
		if at := int(s.next()); at < len(body) {
			body[at] = s.next()
		}
		return s.ask(frame{kind: request, op: op.Number, value: 1 << 20, body: body}, len(op.Request.Files()))
	case framePacket:
		f := frame{kind: s.next(), value: 1 << 20}
		f.op = s.policy.Ops[int(s.next())%len(s.policy.Ops)].Number
		f.call = uint32(s.next()) // added to the number that is due
		f.files = s.next()
		sent := int(s.next()) % 20
		f.reserved = uint16(s.next())
		f.body = s.bytes(int(s.next()))
		return s.ask(f, sent)
	case rawPacket:
		if b := s.bytes(int(s.next())); len(b) > 0 {
			return s.conn.putWithin(cramming, b)
		}
	case cancelPacket:
		return s.conn.putWithin(cramming, frame{kind: cancel, call: uint32(s.next())}.bytes())
	}
	return nil
}

// lawful makes a call of good form.
func (s *playback) lawful(op int, do outcome) error {
	o := s.policy.Ops[op]
	f := frame{kind: request, op: o.Number, value: 1 << 20, files: byte(len(o.Request.Files())), body: s.samples[o].body}
	if s.number+1 > ipc.Outstanding {
		s.known = false // how many are outstanding depends on how fast they run
	}
	s.exact = s.exact && !o.Parallel
	if err := s.ask(f, int(f.files)); err != nil {
		return err // it was not sent, so nothing comes of it
	}
	if ok, why := s.oracle.lawful(op); !ok {
		s.end = "violation of " + o.Name + " in " + s.policy.Phases[s.oracle.phase].Name + ": " + why
		return nil
	}
	if s.oracle.permit(op).Next < 0 && do >= careless || o.Parallel || do == unsendable && len(o.Reply.Files()) == 0 {
		do = replies
	}
	if !o.Parallel {
		s.todo = append(s.todo, do)
	}
	s.oracle = s.oracle.after(step{op, do})
	s.want[s.number] = answers[do]
	return nil
}

// ask sends a frame with n descriptors, of the kinds that its operation needs as
// far as there are some.
func (s *playback) ask(f frame, n int) error {
	s.number++
	f.call += s.number
	if f.files == 0 {
		f.files = byte(n)
	}
	var kinds []ipc.Kind
	for _, op := range s.policy.Ops {
		if op.Number == f.op {
			kinds = op.Request.Files()
		}
	}
	for len(kinds) < n {
		kinds = append(kinds, ipc.KindRegular)
	}
	files, err := s.objects.of(kinds[:n]...)
	if err != nil {
		return err
	}
	defer closeAll(files)
	return s.conn.putWithin(cramming, f.bytes(), files...)
}
