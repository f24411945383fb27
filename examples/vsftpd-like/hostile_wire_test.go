//go:build linux

package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// A target is who is sent packets, and a good request to spoil.
type target struct {
	phase  string
	op     string
	fields []field
	long   []byte // the first value, not in its shortest encoding
}

func targets() []target {
	return []target{
		{"preauth", "login", []field{{"User", str("anonymous")}, {"Password", str("x")}}, append([]byte{0xd9, 9}, "anonymous"...)},
		{"authed", "connect-data", []field{{"Port", []byte{0xcd, 0xfd, 0xe8}}}, []byte{0xce, 0, 0, 0xfd, 0xe8}},
		{"serving", "create", []field{{"Path", str("/new")}, {"Mode", []byte{1}}}, append([]byte{0xd9, 4}, "/new"...)},
	}
}

// A wireCase is what an attacker in the session worker does to a channel.
type wireCase struct {
	name, why string
	only      string // the phase, "monitor" for both of its phases; "" for all
	want      string // in the violation's reason; or how else the session ends
	send      func(*attacker, target)
	body      func(target) []byte // what send sends, if that is the point
}

// wireCases are about packets and bodies; see [callerCases] for the rest.
func wireCases() []wireCase {
	var all []wireCase
	add := func(name, why, want string, send func(*attacker, target)) {
		all = append(all, wireCase{name: name, why: why, want: want, send: send})
	}
	// body spoils the body of a request that is good otherwise.
	body := func(name, why, want string, spoil func(target) []byte) {
		add(name, why, want, func(a *attacker, t target) { a.ask(t.op, spoil(t)) })
		all[len(all)-1].body = spoil
	}
	// packet spoils the packet around a good body.
	packet := func(name, why, want string, spoil func(*frame)) {
		add(name, why, want, func(a *attacker, t target) {
			f := frame{kind: request, call: 1 + a.last, value: second, op: opNumber(t.op), body: object(t.fields...)}
			spoil(&f)
			a.send(f)
		})
	}
	first := func(t target, value ...byte) []byte {
		return object(append([]field{{t.fields[0].key, value}}, t.fields[1:]...)...)
	}

	// The packet.
	packet("cut within the header", "a packet has a header", "shorter than its header", func(f *frame) { *f = frame{} })
	all[len(all)-1].send = func(a *attacker, t target) { a.put([]byte{request}) }
	for _, size := range []int{5000, 65536, 200_000} {
		packet(fmt.Sprintf("%d bytes", size), "nothing lawful is so large", "larger than any message", func(f *frame) { f.body = make([]byte, size) })
	}
	for _, kind := range []byte{0, 1, 12, 13, 0x82, 255} {
		packet(fmt.Sprintf("type %d", kind), "no such type", "unknown packet type", func(f *frame) { f.kind = kind })
	}
	for _, kind := range []byte{3, 5, 6, 7, 9, 10, 11} {
		packet(fmt.Sprintf("type %d", kind), "an answer, or the start of a worker, is never asked", "not a request", func(f *frame) { f.kind = kind })
	}
	packet("a log record with a call", "a record is no call", "log", func(f *frame) { f.kind = record })
	packet("a log record that is a request", "a record has a form", "log", func(f *frame) { f.kind, f.call, f.op = record, 0, 0 })
	packet("reserved bytes", "what is reserved is zero", "reserved header bytes", func(f *frame) { f.reserved = 0x100 })
	packet("one descriptor announced, none sent", "the header and the kernel agree", "not the number announced", func(f *frame) { f.files = 1 })
	packet("253 descriptors announced, none sent", "the header and the kernel agree", "not the number announced", func(f *frame) { f.files = 253 })
	packet("call number 0", "numbers count up from 1", "out of order", func(f *frame) { f.call = 0 })
	packet("call number skipped", "none may be missing", "out of order", func(f *frame) { f.call++ })
	packet("call number far ahead", "none may be missing", "out of order", func(f *frame) { f.call = 1<<32 - 1 })
	add("call number repeated", "an answer would be ambiguous", "out of order", func(a *attacker, t target) {
		fields := t.fields
		if t.op == "login" { // one that succeeds would change the phase, sooner or later than the second is read
			fields = []field{{"User", str("nobody")}, {"Password", str("x")}}
		}
		for range 2 {
			a.send(frame{kind: request, value: 60_000, call: a.last + 1, op: opNumber(t.op), body: object(fields...)})
		}
	})
	packet("operation 0", "no such operation", "unknown operation", func(f *frame) { f.op = 0 })
	packet("operation shutdown", "no such operation", "unknown operation", func(f *frame) { f.op = opNumber("shutdown") })
	packet("cancels nothing", "there was no such call", "cancels no call", func(f *frame) { *f = frame{kind: cancel, call: 1 + f.call} })
	packet("cancels call 0", "there is no such call", "cancels no call", func(f *frame) { *f = frame{kind: cancel} })
	packet("cancels with a body", "nothing reads it", "cancels no call", func(f *frame) { *f = frame{kind: cancel, call: 1, body: []byte{0}} })
	add("cancels flood", "each call is cancelled once", "cancels no call", func(a *attacker, t target) {
		for a.last++; a.send(frame{kind: cancel, call: 1}); {
		}
	})
	add("garbage flood", "the first ends it", "unknown packet type", func(a *attacker, t target) {
		for junk := bytes.Repeat([]byte{0xff}, 64); a.put(junk); {
		}
	})

	// Descriptors.
	for _, n := range []int{1, 2, 16} {
		add(fmt.Sprintf("%d descriptors where none belong", n), "they are closed, and it is a violation", "wrong number of files",
			func(a *attacker, t target) { a.ask(t.op, object(t.fields...), make([]int, n)...) })
	}
	for _, n := range []int{17, 253} {
		add(fmt.Sprintf("%d descriptors", n), "the control buffer holds what the kernel can deliver", "more descriptors than any",
			func(a *attacker, t target) { a.ask(t.op, object(t.fields...), make([]int, n)...) })
	}
	add("descriptors unannounced", "the header and the kernel agree", "not the number announced", func(a *attacker, t target) {
		a.send(frame{kind: request, value: 60_000, call: a.last + 1, op: opNumber(t.op), body: object(t.fields...)}, 0, 0)
	})
	add("the channel through itself", "a cycle of sockets in flight belongs to nobody", "wrong number of files",
		func(a *attacker, t target) { a.ask(t.op, object(t.fields...), a.channel) })
	add("cancels with a descriptor", "nothing takes it", "cancels no call", func(a *attacker, t target) {
		a.send(frame{kind: cancel, files: 1, call: 1}, 0)
	})

	// The body.
	body("no body", "fields are never left out", "ends too early", func(target) []byte { return nil })
	body("trailing byte", "two messages in one are read differently by two readers", "bytes after the end",
		func(t target) []byte { return append(object(t.fields...), 0xc0) })
	for name, value := range map[string][]byte{
		"nil": {0xc0}, "a boolean": {0xc3}, "a float": {0xcb, 0, 0, 0, 0, 0, 0, 0, 0}, "an array": {0x90}, "a map": {0x80},
		"bytes": {0xc4, 1, 'x'}, "an extension": {0xd4, 1, 0}, "a time": {0xd6, 0xff, 0, 0, 0, 0}, "the unused code": {0xc1},
	} {
		body(name+" for the first field", "the receiver chooses types", "wrong type", func(t target) []byte { return first(t, value...) })
	}
	for name, code := range map[string]byte{"string": 0xdb, "bytes": 0xc6, "array": 0xdd, "map": 0xdf, "extension": 0xc9} {
		claim := []byte{code, 0xff, 0xff, 0xff, 0xff, 0}
		body("claims a giant "+name, "15 bytes that make the codec allocate 32 GiB", "", func(t target) []byte { return first(t, claim...) })
		body("is a giant "+name, "15 bytes that make the codec allocate 32 GiB", "", func(target) []byte { return claim })
	}
	body("deep nesting", "recursion follows the plan, never the bytes", "wrong type", func(target) []byte { return bytes.Repeat([]byte{0x91}, 200) })
	body("deep nesting within", "recursion follows the plan, never the bytes", "wrong type", func(t target) []byte {
		return first(t, bytes.Repeat([]byte{0x81}, 100)...)
	})
	body("field repeated", "which one counts?", "field", func(t target) []byte { return object(append(t.fields[:1:1], t.fields...)...) })
	body("field unknown", "nobody reads it", "field", func(t target) []byte {
		return object(append(t.fields[:len(t.fields):len(t.fields)], field{"Admin", []byte{0xc3}})...)
	})
	body("field renamed", "nobody reads it", "field", func(t target) []byte {
		return object(append([]field{{strings.ToLower(t.fields[0].key), t.fields[0].value}}, t.fields[1:]...)...)
	})
	body("field missing", "zero is never a default for what an attacker leaves out", "field", func(t target) []byte { return object(t.fields[1:]...) })
	body("fields fewer than claimed", "they end too early", "field", func(t target) []byte { return claim(len(t.fields)+1, t.fields...) })
	body("fields as an array", "msgpack would take it", "wrong type", func(t target) []byte { return append([]byte{0x90 | byte(len(t.fields))}, t.fields[0].value...) })
	body("map not shortest", "each message has one encoding", "not the shortest", func(t target) []byte {
		b := object(t.fields...)
		return append([]byte{0xde, 0, b[0] & 0x0f}, b[1:]...)
	})
	body("value not shortest", "each message has one encoding", "not the shortest", func(t target) []byte { return first(t, t.long...) })
	return all
}

func wireAttacks() map[string]attack {
	all := map[string]attack{
		"log in and hold": func(a *attacker) string { // beside a files worker, which it takes a word to start
			a.seize()
			a.channel, a.last = a.logIn(), 0
			a.ask("stat", object(field{"Path", str("/")}))
			return a.hold()
		},
		"log in and leave": func(a *attacker) string { a.seize(); a.logIn(); return "left" },
		"truncate": func(a *attacker) string {
			t := targets()[a.arg%8]
			a.reach(t)
			f := frame{kind: request, call: a.last + 1, value: second, op: opNumber(t.op), body: object(t.fields...)}
			if b, n := f.bytes(), a.arg/8; n < len(b) {
				a.put(b[:n])
				return a.hold()
			}
			return "as long as it gets"
		},
	}
	for _, t := range targets() {
		for _, c := range append(wireCases(), callerCases()...) {
			all["wire: "+t.phase+": "+c.name] = func(a *attacker) string {
				a.reach(t)
				c.send(a, t)
				return a.hold()
			}
		}
	}
	for name, do := range behaviours() {
		all[name] = do
	}
	return all
}

// reach gets to where t is.
func (a *attacker) reach(t target) {
	a.seize()
	if t.phase == "preauth" {
		return
	}
	channel := a.logIn()
	if t.phase == "serving" {
		a.channel, a.last = channel, 0
	}
}

// TestHostilePackets: the first packet that no lawful worker sends is the last.
func TestHostilePackets(t *testing.T) {
	a := newArena(t)
	a.bears(t, func(t *testing.T) {
		for _, to := range targets() {
			for _, c := range append(wireCases(), callerCases()...) {
				if c.only == "" || c.only == to.phase || c.only == "monitor" && to.phase != "serving" {
					t.Run(to.phase+"/"+c.name, func(t *testing.T) {
						t.Parallel()
						c.judge(t, to, a.try(t, trial{session: "wire: " + to.phase + ": " + c.name}))
					})
				}
			}
		}
		for i, to := range targets() {
			t.Run(to.phase+"/truncated at each byte", func(t *testing.T) {
				t.Parallel()
				length := len(frame{body: object(to.fields...)}.bytes())
				for n := 1; n < length; n++ {
					c := wireCase{name: fmt.Sprintf("%d of %d bytes", n, length), why: "a message has one length"}
					c.judge(t, to, a.try(t, trial{session: "truncate", arg: 8*n + i}))
				}
			})
		}
	})
}

// judge compares how a session ended with what the case says. The violation is
// found by the monitor or, in phase serving, by the files worker, which then
// exits with it: the session ends with that.
func (c *wireCase) judge(t *testing.T, to target, got end) {
	t.Helper()
	want := end{"", "violation " + to.phase + " "}
	if to.phase == "serving" {
		want = end{"files", "failed: privsep: violation in phase serving"}
	}
	if got.role != want.role || !strings.HasPrefix(got.result, want.result) || !strings.Contains(got.result, c.want) {
		t.Errorf("%s: got %v, want %v with %q: %s", c.name, got, want, c.want, c.why)
	}
}
