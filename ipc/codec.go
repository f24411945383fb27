package ipc

import (
	"fmt"
	"os"
	"reflect"
)

// Encode appends to dst the message that v, a *T of the plan's type, points to.
// It also returns the message's files, each verified to be of its [Kind]; they
// stay the caller's. A nil slice is sent as an empty one.
//
// The error is a [*FieldError] for a value beyond its bound, or a [*KindError].
func (p *Plan) Encode(dst []byte, v any) ([]byte, []*os.File, error) {
	message, err := p.message(v)
	if err != nil {
		return nil, nil, err
	}
	var files []*os.File
	for i, f := range p.files {
		files = append(files, message.Field(f.index).Interface().(*os.File))
		if err := p.kinds[i].verify(f.name, files[i]); err != nil {
			return nil, nil, err
		}
	}
	dst, err = encode(dst, p.root, message)
	return dst, files, err
}

// Decode stores a received packet's message in what into, a *T of the plan's
// type, points to. Every field is overwritten and none refers to the packet's
// body. An empty slice is stored as nil.
//
// Decode judges the whole body and each descriptor's [Kind] first; if it fails,
// into is as it was and the descriptors are still bare. If it succeeds they are
// the message's files, and in packet.Files too.
//
// The error is a [*FormatError], a [*KindError], or a [*FieldError] if into is
// of another type.
func (p *Plan) Decode(packet *Packet, into any) error {
	message, err := p.message(into)
	if err != nil {
		return err
	}
	if err := p.Scan(packet.Body); err != nil {
		return err
	}
	open := len(packet.Files) // none, unless somebody called Open
	if open+len(packet.bare) != len(p.files) {
		return &FormatError{p.root.name, len(packet.Body), wrongFiles}
	}
	for i, kind := range p.kinds {
		if i < open {
			err = kind.verify(p.files[i].name, packet.Files[i])
		} else if got, why := kind.judge(uintptr(packet.bare[i-open])); got != "" {
			err = &KindError{p.files[i].name, kind, got, why}
		}
		if err != nil {
			return err
		}
	}
	packet.Open()
	decoder := scanner{rest: packet.Body}
	decoder.value(p.root, message)
	for i, f := range p.files {
		message.Field(f.index).Set(reflect.ValueOf(packet.Files[i]))
	}
	return nil
}

// message returns what v points to.
func (p *Plan) message(v any) (reflect.Value, error) {
	pv := reflect.ValueOf(v)
	if !pv.IsValid() || pv.Type() != p.pointer || pv.IsNil() {
		return pv, &FieldError{p.root.name, fmt.Sprintf("is not what a %T points to", v)}
	}
	return pv.Elem(), nil
}

func encode(dst []byte, n *node, v reflect.Value) ([]byte, error) {
	t := token{form: n.form}
	switch n.form {
	case boolean:
		if v.Bool() {
			t.number = 1
		}
	case signed:
		if i := v.Int(); i < 0 {
			t.number = -uint64(i)
		} else {
			t = token{unsigned, uint64(i)}
		}
	case unsigned:
		t.number = v.Uint()
	case record:
		t.number = n.max
	default:
		if t.number = uint64(v.Len()); t.number > n.max {
			return nil, &FieldError{n.name, fmt.Sprintf("has the length %d, its max is %d", t.number, n.max)}
		}
	}
	dst = t.append(dst)
	var err error
	switch n.form {
	case text:
		dst = append(dst, v.String()...)
	case blob:
		dst = append(dst, v.Bytes()...)
	case list:
		for i := 0; err == nil && i < v.Len(); i++ {
			dst, err = encode(dst, n.elem, v.Index(i))
		}
	case record:
		for i := 0; err == nil && i < len(n.fields); i++ {
			dst, err = encode(append(dst, n.fields[i].key...), n.fields[i].node, v.Field(n.fields[i].index))
		}
	}
	return dst, err
}
