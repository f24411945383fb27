package privseptest

import (
	"fmt"
	"strings"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// packetAttacks spoil the packet around a body that is good.
func (a *arena) packetAttacks(op *fortest.Op) (all []attack) {
	packet := func(name, explanation, want string, spoil func(*frame)) {
		all = append(all, attack{name: "packet/" + name, explanation: explanation, want: want, do: func(x *attacker) {
			f := x.good(op)
			spoil(&f)
			_ = x.put(op, f)
		}})
	}
	raw := func(name, explanation, want string, do func(*attacker)) {
		all = append(all, attack{name: "packet/" + name, explanation: explanation, want: want, runs: true, do: do})
	}
	for n := 1; n < headerSize; n++ {
		raw(fmt.Sprintf("cut after %d bytes", n), "a packet has a whole header", "shorter than its header", func(x *attacker) {
			_ = x.conn.put(x.good(op).bytes()[:n])
		})
	}
	for kind := range 256 {
		want := "unknown packet type"
		switch {
		case kind == request || kind == cancel:
			continue
		case !strings.HasPrefix(ipc.Type(kind).String(), "type("):
			want = "not a request"
		}
		packet(fmt.Sprintf("of type %d", kind), "what comes from a worker is a request or the cancelling of one", want,
			func(f *frame) { f.kind = byte(kind) })
	}
	for _, size := range []int{a.policy.Size + headerSize + 1, 1 << 16, 200_000} {
		packet(fmt.Sprintf("of %d bytes", size), "nothing that the policy's operations say is so long", "larger than any message",
			func(f *frame) { f.body = make([]byte, size) })
	}
	for _, bit := range []uint16{1, 1 << 15} {
		packet(fmt.Sprintf("with %#x in the reserved bytes", bit), "what is reserved is zero, or it can never be used", "reserved header bytes",
			func(f *frame) { f.reserved = bit })
	}
	for _, n := range []byte{1, 16, 17, 253, 255} {
		if int(n) != len(op.Request.Files()) {
			packet(fmt.Sprintf("that announces %d descriptors", n), "the header and the kernel agree on how many came", "not the number announced",
				func(f *frame) { f.files = n })
		}
	}
	for name, number := range map[string]uint32{"0": 0, "skipped": 2, "far ahead": 1<<32 - 1, "half way round": 1 << 31} {
		packet("call number "+name, "calls count up from 1 and none is missing: so each answer belongs to one", "call out of order",
			func(f *frame) { f.call = number })
	}
	raw("call number repeated", "an answer would belong to two", "call out of order", func(x *attacker) {
		f := x.good(op)
		_, _ = x.put(op, f), x.put(op, f)
	})
	raw("calls reordered", "what comes first is judged first", "call out of order", func(x *attacker) {
		f := x.good(op)
		f.call = 2
		_ = x.put(op, f)
		f.call = 1
		_ = x.put(op, f)
	})
	w := &walker{policy: a.policy}
	for name, number := range map[string]uint32{"0": 0, "none": w.unused(), "the last": 1<<32 - 1} {
		packet("operation number "+name, "no such operation", "unknown operation", func(f *frame) { f.op = number })
	}
	packet("cancels what was never called", "there was no such call", "cancels no call", func(f *frame) { *f = frame{kind: cancel, call: 1} })
	packet("cancels call 0", "there is no such call", "cancels no call", func(f *frame) { *f = frame{kind: cancel} })
	raw("cancels with a body", "nobody reads it", "cancels no call", func(x *attacker) {
		_ = x.call(op)
		_ = x.conn.send(frame{kind: cancel, call: 1, body: []byte{0x80}})
	})
	raw("cancels a million times", "each call is cancelled once", "cancels no call", func(x *attacker) {
		_ = x.call(op)
		for range 1_000_000 {
			if x.conn.send(frame{kind: cancel, call: 1}) != nil {
				return
			}
		}
	})
	raw("a million packets of garbage", "the first one ends it", "unknown packet type", func(x *attacker) {
		for range 1_000_000 {
			if x.conn.put([]byte(strings.Repeat("\xff", headerSize))) != nil {
				return
			}
		}
	})
	if !isFile(op) {
		for i := range a.packetOf(op) {
			all = append(all, a.changed(op, i)...)
		}
	}
	return all
}

// packetOf is a lawful first call.
func (a *arena) packetOf(op *fortest.Op) []byte {
	return (&attacker{arena: a}).good(op).bytes()
}

// changed are calls with byte i changed. In the header each is a violation but
// for the milliseconds, which are the caller's to choose; in the body what is no
// message of the type is one, and what is one is for Check and handler.
func (a *arena) changed(op *fortest.Op, i int) (all []attack) {
	for _, to := range []byte{0, 1, 0x7f, 0x80, 0x91, 0xc0, 0xc1, 0xdf, 0xff} {
		packet := a.packetOf(op)
		if packet[i] == to {
			continue
		}
		packet[i] = to
		want, names := "", false
		switch {
		case 8 <= i && i < 12 || i == 0 && to == cancel:
			continue
		case i == 1:
			want = "not the number announced"
		case i == 2 || i == 3:
			want = "reserved header bytes"
		case 4 <= i && i < 8:
			want = "call out of order"
		case i >= headerSize:
			if err := op.Request.Scan(packet[headerSize:]); err == nil {
				continue
			}
			names = true
		}
		x := attack{
			name:        fmt.Sprintf("packet/byte %d changed to %#x", i, to),
			explanation: "each message has one encoding, and each byte of a packet is judged", want: want,
			do: func(x *attacker) { _ = x.conn.put(packet) },
		}
		if names {
			x.op = op
		}
		if i >= 12 && i < headerSize {
			if a.isNumber(packet) {
				continue
			}
			x.want = "unknown operation"
		}
		all = append(all, x)
	}
	return all
}

// isNumber reports whether the packet names an operation.
func (a *arena) isNumber(packet []byte) bool {
	for _, op := range a.policy.Ops {
		if string(frame{op: op.Number}.bytes()[12:]) == string(packet[12:headerSize]) {
			return true
		}
	}
	return false
}
