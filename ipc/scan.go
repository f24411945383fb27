package ipc

import (
	"bytes"
	"fmt"
	"reflect"
)

// Why a message is refused.
const (
	truncated   = "ends too early"
	trailing    = "bytes after the end"
	wrongType   = "wrong type"
	wrongField  = "unknown, missing, repeated or misplaced field"
	notShortest = "not the shortest encoding"
	tooLong     = "longer than its bound"
	outOfRange  = "integer outside of its type"
	wrongFiles  = "wrong number of files"
)

// A FormatError says why bytes are no message of a type. An uncompromised peer
// never causes one.
type FormatError struct {
	Field  string // of this side's type, as main.LoginRequest.User; no word of it is the peer's
	Offset int    // in bytes, where scanning stopped
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("ipc: %s at byte %d: %s", e.Field, e.Offset, e.Reason)
}

// Scan judges whether body is a message of the plan's type, byte for byte: each
// field once, by name and in order, within its bounds and its integer type, in
// msgpack's shortest encoding, and nothing behind it. It knows no nil, float or
// extension, and no type but the field's. So each message has one encoding.
//
// Scan allocates nothing but, to refuse, one [*FormatError] of fixed size.
func (p *Plan) Scan(body []byte) error {
	s := scanner{rest: body}
	at, reason := s.value(p.root, reflect.Value{})
	if reason == "" && len(s.rest) > 0 {
		at, reason = p.root, trailing
	}
	if reason != "" {
		return &FormatError{at.name, len(body) - len(s.rest), reason}
	}
	return nil
}

// A scanner walks a plan and a body together. Its depth is the plan's, so no
// nesting in the body can exhaust the stack, and it makes nothing of a length
// that the bytes at hand don't bear out.
type scanner struct {
	rest []byte
}

// value takes one value of n, or says why not and at which node. It stores the
// value in v, which may be the zero Value.
func (s *scanner) value(n *node, v reflect.Value) (at *node, reason string) {
	t, reason := s.token()
	store := v.IsValid()
	switch {
	case reason != "":
		return n, reason
	case n.form == unsigned && t.form == signed, n.form == signed && t.form == signed && t.number-1 > n.max:
		return n, outOfRange // a negative number; t has its magnitude
	case n.form != t.form && !(n.form == signed && t.form == unsigned):
		return n, wrongType
	case n.form <= unsigned && t.number > n.max && t.form != signed:
		return n, outOfRange
	case n.form <= unsigned:
		if store {
			t.store(n.form, v)
		}
		return nil, ""
	case n.form == record && t.number != n.max:
		return n, wrongField
	case t.number > n.max:
		return n, tooLong
	case t.number > uint64(len(s.rest)):
		return n, truncated // an element takes a byte or more: a count may be compared as bytes are
	case n.form <= blob:
		if store && n.form == text {
			v.SetString(string(s.rest[:t.number]))
		} else if store {
			v.SetBytes(append([]byte(nil), s.rest[:t.number]...))
		}
		s.rest = s.rest[t.number:]
	case n.form == list:
		if store {
			v.SetZero()
		}
		if store && t.number > 0 {
			v.Set(reflect.MakeSlice(v.Type(), int(t.number), int(t.number)))
		}
		for i := range int(t.number) {
			var elem reflect.Value
			if store {
				elem = v.Index(i)
			}
			if at, reason = s.value(n.elem, elem); reason != "" {
				return at, reason
			}
		}
	}
	for i := range n.fields {
		f := &n.fields[i]
		key := s.rest[:min(len(s.rest), len(f.key))]
		if !bytes.HasPrefix(f.key, key) {
			return f.node, wrongField
		}
		s.rest = s.rest[len(key):] // a name that ends too early leaves no value
		var inner reflect.Value
		if store {
			inner = v.Field(f.index)
		}
		if at, reason = s.value(f.node, inner); reason != "" {
			return at, reason
		}
	}
	return nil, ""
}

// A token is the first byte of a value and the number that it announces: a
// boolean, an integer (signed: a negative one's magnitude) or a length.
type token struct {
	form   form
	number uint64
}

// store stores a boolean or an integer.
func (t token) store(form form, v reflect.Value) {
	switch {
	case form == boolean:
		v.SetBool(t.number == 1)
	case form == unsigned:
		v.SetUint(t.number)
	case t.form == signed:
		v.SetInt(-int64(t.number))
	default:
		v.SetInt(int64(t.number))
	}
}

// fixed are the codes that are a token alone, by form: the first of them, and
// how many numbers they hold.
var fixed = [...]struct {
	code  byte
	count uint64
}{
	boolean: {0xc2, 2}, signed: {0xe0, 33}, unsigned: {0x00, 128}, text: {0xa0, 32}, list: {0x90, 16}, record: {0x80, 16}, blob: {},
}

// wide are the codes whose number follows in width bytes, and the least number
// (of a signed, magnitude) that no shorter encoding holds.
var wide = [...]struct {
	form  form
	width int
	least uint64
}{
	0xc4: {blob, 1, 0}, {blob, 2, 1 << 8}, {blob, 4, 1 << 16},
	0xcc: {unsigned, 1, 1 << 7}, {unsigned, 2, 1 << 8}, {unsigned, 4, 1 << 16}, {unsigned, 8, 1 << 32},
	0xd0: {signed, 1, 1<<5 + 1}, {signed, 2, 1<<7 + 1}, {signed, 4, 1<<15 + 1}, {signed, 8, 1<<31 + 1},
	0xd9: {text, 1, 1 << 5}, {text, 2, 1 << 8}, {text, 4, 1 << 16},
	0xdc: {list, 2, 1 << 4}, {list, 4, 1 << 16},
	0xde: {record, 2, 1 << 4}, {record, 4, 1 << 16},
}

// append appends the token's shortest encoding.
func (t token) append(b []byte) []byte {
	n := t.number
	if t.form == signed {
		n = -n
	}
	if f := fixed[t.form]; t.number < f.count {
		if t.form == signed {
			return append(b, byte(n))
		}
		return append(b, f.code+byte(n))
	}
	code := 0
	for c := 0xc4; c < len(wide); c++ {
		if wide[c].form == t.form && wide[c].least <= t.number {
			code = c
		}
	}
	b = append(b, byte(code))
	for width := wide[code].width; width > 0; width-- {
		b = append(b, byte(n>>(8*(width-1))))
	}
	return b
}

// token takes a token in its shortest encoding.
func (s *scanner) token() (t token, reason string) {
	if len(s.rest) == 0 {
		return t, truncated
	}
	width := 0
	switch c := s.rest[0]; {
	case c <= 0x7f:
		t = token{unsigned, uint64(c)}
	case c <= 0x8f:
		t = token{record, uint64(c & 0x0f)}
	case c <= 0x9f:
		t = token{list, uint64(c & 0x0f)}
	case c <= 0xbf:
		t = token{text, uint64(c & 0x1f)}
	case c == 0xc2 || c == 0xc3:
		t = token{boolean, uint64(c & 1)}
	case c >= 0xe0:
		t = token{signed, -uint64(int8(c))}
	default: // what wide lacks has form 0: nil, floats, extensions
		w := &wide[c]
		if width = w.width; len(s.rest) <= width {
			return t, truncated
		}
		t.form = w.form
		for _, b := range s.rest[1 : 1+width] {
			t.number = t.number<<8 | uint64(b)
		}
		if t.form == signed { // a positive number is too small for each of these codes
			t.number = -uint64(min(0, int64(t.number<<(64-8*width))>>(64-8*width)))
		}
		if t.number < w.least {
			return t, notShortest
		}
	}
	s.rest = s.rest[1+width:]
	return t, ""
}
