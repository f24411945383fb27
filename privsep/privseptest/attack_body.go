package privseptest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// A member is one field of a request as it is on the wire.
type member struct{ key, value []byte }

// members takes a body apart that is good.
func members(body []byte) (all []member) {
	n, rest := int(body[0]&0x0f), body[1:]
	if body[0] == 0xde {
		n, rest = int(binary.BigEndian.Uint16(body[1:])), body[3:]
	}
	for range n {
		key := slices.Clip(rest[:size(rest)])
		value := rest[len(key):]
		value = slices.Clip(value[:size(value)])
		all, rest = append(all, member{key, value}), rest[len(key)+len(value):]
	}
	return all
}

// size is how long the msgpack value is with which b begins.
func size(b []byte) int {
	long := func(head, n int) int { return head + n }
	many := func(head, n int) int {
		for range n {
			head += size(b[head:])
		}
		return head
	}
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0, c == 0xc2, c == 0xc3:
		return 1
	case c <= 0x8f:
		return many(1, 2*int(c&0x0f))
	case c <= 0x9f:
		return many(1, int(c&0x0f))
	case c <= 0xbf:
		return long(1, int(c&0x1f))
	case c == 0xc4, c == 0xd9:
		return long(2, int(b[1]))
	case c == 0xc5, c == 0xda:
		return long(3, int(binary.BigEndian.Uint16(b[1:])))
	case c == 0xdc:
		return many(3, int(binary.BigEndian.Uint16(b[1:])))
	case c == 0xde:
		return many(3, 2*int(binary.BigEndian.Uint16(b[1:])))
	case 0xcc <= c && c <= 0xcf:
		return 1 + 1<<(c-0xcc)
	case 0xd0 <= c && c <= 0xd3:
		return 1 + 1<<(c-0xd0)
	}
	panic(fmt.Sprintf("privseptest: BUG: no message has %#x in it", b[0]))
}

// claim writes members under a head that claims n of them.
func claim(n int, all ...member) []byte {
	b := []byte{0x80 | byte(n)}
	if n > 15 {
		b = binary.BigEndian.AppendUint16([]byte{0xde}, uint16(n))
	}
	for _, m := range all {
		b = append(append(b, m.key...), m.value...)
	}
	return b
}

// bodyAttacks spoil the body of a call to op.
func (a *arena) bodyAttacks(op *fortest.Op) (all []attack) {
	good, deep := a.samples[op].body, min(1000, a.policy.Size)
	fields := members(good)
	add := func(name, explanation, want string, body []byte) {
		all = append(all, attack{
			name: "body of " + op.Name + "/" + name, explanation: explanation, op: op, want: want,
			do: func(x *attacker) {
				f := x.good(op)
				f.body = body
				_ = x.put(op, f)
			},
		})
	}
	for n := range good {
		add(fmt.Sprintf("cut after %d bytes", n), "what is left out is no zero", "", good[:n])
	}
	for _, tail := range [][]byte{{0}, {0xc0}, good} {
		if len(good)+len(tail) > a.policy.Size {
			continue
		}
		add(fmt.Sprintf("with %d bytes behind it, the first %#x", len(tail), tail[0]), "two messages in one are read differently by two readers",
			"bytes after the end", append(bytes.Clone(good), tail...))
	}
	for name, b := range map[string][]byte{
		"nil": {0xc0}, "a boolean": {0xc3}, "a number": {1}, "text": {0xa1, 'x'}, "an array": {0x90}, "bytes": {0xc4, 0},
		"a float": {0xcb, 0, 0, 0, 0, 0, 0, 0, 0}, "an extension": {0xd4, 1, 0}, "a time": {0xd6, 0xff, 0, 0, 0, 0}, "no code at all": {0xc1},
	} {
		add("is "+name, "the receiver chooses types", "wrong type", b)
	}
	giants := map[string]byte{"text": 0xdb, "bytes": 0xc6, "an array": 0xdd, "a map": 0xdf, "an extension": 0xc9}
	for name, code := range giants {
		add("claims to be "+name+" of 4 GiB", "15 bytes made the codec allocate 32 GiB and end the process", "", []byte{code, 0xff, 0xff, 0xff, 0xff, 0})
	}
	add("arrays in each other, as many as fit", "recursion follows the type and never the bytes", "wrong type", bytes.Repeat([]byte{0x91}, deep))
	add("maps in each other, as many as fit", "recursion follows the type and never the bytes", "", bytes.Repeat([]byte{0x81, 0xa1, 'a'}, deep/3))
	add("in more bytes than it needs", "each message has one encoding", "not the shortest", append([]byte{0xde, 0, byte(len(fields))}, good[1:]...))
	add("with a field that nobody knows", "what nobody reads can hide what somebody will", "field",
		claim(len(fields)+1, append(fields[:len(fields):len(fields)], member{[]byte("\xa5Admin"), []byte{0xc3}})...))
	add("with fewer fields than it claims", "what is left out is no zero", "field", claim(len(fields)+1, fields...))
	for i, f := range fields {
		name := string(f.key[1:])
		// with is the body with another member in place of this one.
		with := func(others ...member) []byte {
			all := append(append(fields[:i:i], others...), fields[i+1:]...)
			return claim(len(all), all...)
		}
		add("without "+name, "zero is never a default for what an attacker leaves out", "field", with())
		add("with "+name+" twice", "which one counts?", "field", with(f, f))
		add("with "+name+" under another name", "a name is one of the type's, letter by letter", "field",
			with(member{append(f.key[:1:1], bytes.ToLower(append(f.key[1:], '_'))[:len(f.key)-1]...), f.value}))
		if i > 0 {
			swapped := append(fields[:i-1:i-1], fields[i], fields[i-1])
			add("with "+name+" before its turn", "each message has one encoding", "field", claim(len(fields), append(swapped, fields[i+1:]...)...))
		}
		for what, value := range map[string][]byte{
			"nil": {0xc0}, "a float": {0xcb, 0, 0, 0, 0, 0, 0, 0, 0}, "an extension": {0xd4, 1, 0}, "a time": {0xd6, 0xff, 0, 0, 0, 0}, "no code": {0xc1},
		} {
			add(name+" is "+what, "the receiver chooses types", "wrong type", with(member{f.key, value}))
		}
		for what, code := range giants {
			add(name+" claims to be "+what+" of 4 GiB", "15 bytes made the codec allocate 32 GiB and end the process", "",
				with(member{f.key, []byte{code, 0xff, 0xff, 0xff, 0xff, 0}}))
		}
		if long := longer(f.value); long != nil {
			add(name+" in more bytes than it needs", "each message has one encoding", "not the shortest", with(member{f.key, long}))
		}
	}
	return all
}

// longer writes a value in more bytes than it needs, if it is of a sort for
// which msgpack has such a way.
func longer(value []byte) []byte {
	switch c := value[0]; {
	case c <= 0x7f:
		return []byte{0xcc, c}
	case c <= 0x8f:
		return append([]byte{0xde, 0, c & 0x0f}, value[1:]...)
	case c <= 0x9f:
		return append([]byte{0xdc, 0, c & 0x0f}, value[1:]...)
	case c <= 0xbf:
		return append([]byte{0xd9, c & 0x1f}, value[1:]...)
	case c == 0xc4:
		return append([]byte{0xc5, 0}, value[1:]...)
	case c == 0xcc:
		return append([]byte{0xcd, 0}, value[1:]...)
	case c == 0xcd:
		return append([]byte{0xce, 0, 0}, value[1:]...)
	}
	return nil
}
