package ipc

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// maxBody is the most bytes that a message can be: what a packet holds.
const maxBody = MaxPacket - headerSize

// A Plan is a message type, compiled: which fields in which order, how long
// each may be, and of what kind its descriptors are. Everything that touches
// bytes from a peer walks the plan and never the other way round: the bytes
// choose no type, no depth and no size.
//
// A Plan is immutable; many goroutines may use it at once.
type Plan struct {
	pointer reflect.Type // *T
	root    *node
	files   []field
	kinds   []Kind // of files
}

// form is what a value is on the wire.
type form uint8

const (
	boolean form = iota + 1
	signed
	unsigned
	text
	blob
	list
	record
)

// A node is one value of a message.
type node struct {
	name   string // for errors: main.LoginRequest.User
	form   form
	max    uint64  // the largest integer; or how many bytes, elements, or fields
	size   int64   // of the largest encoding, in bytes
	elem   *node   // of a list
	fields []field // of a record, without files
}

type field struct {
	*node
	index int    // in the Go struct
	key   []byte // the name as it is on the wire
}

// A FieldError is a programmer's mistake: a type that can't be a message, or a
// value that the bounds of its own type forbid.
type FieldError struct {
	Field   string // as main.LoginRequest.User
	Problem string // what is wrong with it and, for a type, the remedy
}

func (e *FieldError) Error() string { return "ipc: " + e.Field + " " + e.Problem }

// PlanFor is [PlanOf] for the type T.
func PlanFor[T any]() (*Plan, error) { return PlanOf(reflect.TypeFor[T]()) }

// PlanOf compiles the struct type t. Its fields are exported and are
//
//   - bool and integers of every size, without a tag;
//   - string and []byte, with `privsep:"max=255"`: at most 255 bytes;
//   - slices, with `privsep:"max=16"`: at most 16 elements. If the elements are
//     strings, byte slices or slices, `privsep:"max=16,each=255"` bounds each;
//   - structs of such fields;
//   - *os.File, with `privsep:"kind=stream"` or another [Kind], in t itself
//     only and at most 16 of them.
//
// Named types of these are as good. A string is bytes: it need not be UTF-8,
// because the names of files are not. The largest encoding is at most
// [MaxPacket] less 16 bytes. A decoded value takes at most 24 times the memory
// of its encoding, and its own struct (a slice of empty slices takes the most).
//
// The error is a [*FieldError] that names the field and the remedy.
func PlanOf(t reflect.Type) (*Plan, error) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, &FieldError{fmt.Sprint(t), "is not a struct: give the message a struct type"}
	}
	p := &Plan{pointer: reflect.PointerTo(t)}
	root, err := p.compile(t, t.String(), nil, nil)
	if err != nil {
		return nil, err
	}
	p.root = root
	return p, nil
}

// MaxSize returns the size in bytes of the largest message.
func (p *Plan) MaxSize() int { return int(p.root.size) }

// Files returns the kinds of the message's descriptors, in their order.
func (p *Plan) Files() []Kind { return slices.Clone(p.kinds) }

// compile makes the node of a value of type t. It uses up the tag's bounds from
// the outside in; outer are the structs that the value is in.
func (p *Plan) compile(t reflect.Type, name string, bounds []uint64, outer []reflect.Type) (*node, error) {
	n := &node{name: name}
	fail := func(format string, args ...any) (*node, error) {
		return nil, &FieldError{name, fmt.Sprintf(format, args...)}
	}
	switch kind := t.Kind(); {
	case kind == reflect.Bool:
		n.form, n.max, n.size = boolean, 1, 1
	case kind >= reflect.Int && kind <= reflect.Int64:
		n.form, n.max, n.size = signed, math.MaxInt64>>(64-t.Bits()), int64(1+t.Bits()/8)
	case kind >= reflect.Uint && kind <= reflect.Uint64:
		n.form, n.max, n.size = unsigned, math.MaxUint64>>(64-t.Bits()), int64(1+t.Bits()/8)
	case kind == reflect.String:
		n.form = text
	case kind == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		n.form = blob
	case kind == reflect.Slice:
		n.form = list
	case kind == reflect.Struct && !slices.Contains(outer, t):
		n.form = record
	default:
		return fail("can't be a %v: use bool, integers, string, []byte, slices or structs of them (but no struct inside of itself), or an *os.File in the message itself", t)
	}
	if n.form == text || n.form == blob || n.form == list {
		if len(bounds) == 0 {
			depth := (len(name) - len(strings.TrimRight(name, "[]"))) / 2
			return fail("%s", []string{`needs a privsep:"max=N" tag`, `needs a privsep:"max=N,each=N" tag`, "is too deep: make its slice a field of a struct"}[depth])
		}
		n.max, bounds = bounds[0], bounds[1:]
		n.size = int64(n.max)
	}
	var err error
	if n.form == list {
		if n.elem, err = p.compile(t.Elem(), name+"[]", bounds, outer); err == nil {
			n.size *= n.elem.size
		}
	} else if len(bounds) > 0 {
		return fail("is a %v, which takes no such bound: remove it from the privsep tag", t)
	} else if n.form == record {
		err = p.compileFields(n, t, append(outer, t))
	}
	if n.form >= text { // what precedes its content
		n.size += int64(len(token{n.form, n.max}.append(nil)))
	}
	if err == nil && n.size > maxBody {
		return fail("can take %d bytes: lower its bounds, a message is at most %d bytes", n.size, maxBody)
	}
	return n, err
}

func (p *Plan) compileFields(n *node, t reflect.Type, outer []reflect.Type) error {
	for i := range t.NumField() {
		f := t.Field(i)
		name, tag := n.name+"."+f.Name, f.Tag.Get("privsep")
		bounds, kind, ok := parseTag(tag)
		isFile := f.Type == reflect.TypeFor[*os.File]() && len(outer) == 1
		switch {
		case !f.IsExported():
			return &FieldError{name, "is unexported: export it or leave it out of the message"}
		case !ok:
			return &FieldError{name, fmt.Sprintf(`has the tag privsep:%q: it must be "max=N", "max=N,each=N" (N from 1 to %d) or "kind=K" (K one of %v)`, tag, maxBody, allKinds())}
		case isFile && (kind == 0 || bounds != nil):
			return &FieldError{name, fmt.Sprintf(`needs a privsep:"kind=K" tag, K one of %v`, allKinds())}
		case isFile && len(p.files) == maxFiles:
			return &FieldError{name, fmt.Sprintf("is one file too many: a message carries at most %d", maxFiles)}
		case isFile:
			p.files = append(p.files, field{&node{name: name}, i, nil})
			p.kinds = append(p.kinds, kind)
			continue
		}
		value, err := p.compile(f.Type, name, bounds, outer)
		if err == nil && kind != 0 {
			err = &FieldError{name, "is no file and has no kind: remove it from the privsep tag"}
		}
		if err != nil {
			return err
		}
		key := append(token{text, uint64(len(f.Name))}.append(nil), f.Name...)
		n.fields = append(n.fields, field{value, i, key})
		n.size += int64(len(key)) + value.size
	}
	n.max = uint64(len(n.fields))
	return nil
}

// parseTag reads the words of a privsep tag.
func parseTag(tag string) (bounds []uint64, kind Kind, ok bool) {
	if tag == "" {
		return nil, 0, true
	}
	for word := range strings.SplitSeq(tag, ",") {
		key, value, _ := strings.Cut(word, "=")
		bound, err := strconv.ParseUint(value, 10, 64)
		switch {
		case (key == "max" && len(bounds) == 0 || key == "each" && len(bounds) == 1) &&
			err == nil && bound > 0 && bound <= maxBody:
			bounds = append(bounds, bound)
		case key == "kind" && kind == 0 && parseKind(value) != 0:
			kind = parseKind(value)
		default:
			return nil, 0, false
		}
	}
	return bounds, kind, true
}
