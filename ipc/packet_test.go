package ipc

import (
	"os"
	"testing"
)

func TestHeaderRoundTrip(t *testing.T) {
	for kind := range 256 {
		want := Packet{Type: Type(kind), Op: 0x01020304, Call: 0x05060708, Value: 0x090a0b0c, Files: make([]*os.File, 3)}
		b := want.appendHeader(nil)
		if len(b) != headerSize {
			t.Fatalf("header of %d bytes, want %d", len(b), headerSize)
		}
		got := Packet{bare: make([]int, 3)}
		err := got.parseHeader(append(b, 1, 2))
		if valid := Type(kind).valid(); (err == nil) != valid {
			t.Fatalf("type %d: got %v, valid is %t", kind, err, valid)
		}
		if err == nil && (got.Type != want.Type || got.Op != want.Op || got.Call != want.Call || got.Value != want.Value || len(got.Body) != 2) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

// What goes one way can't be taken for what goes the other.
func TestTypesKnowTheirDirection(t *testing.T) {
	for kind, odd := range map[Type]bool{
		Request: false, Cancel: false, Ready: false, Log: false, Ended: false,
		Reply: true, Refusal: true, Enter: true, Start: true, End: true,
	} {
		if got := kind%2 == 1; got != odd || !kind.valid() {
			t.Errorf("%v: odd %t, want %t", kind, got, odd)
		}
	}
	if got, want := Type(1).String()+Type(200).String(), "type(1)type(200)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header(0), 0)
	f.Add(append(header(2), "body"...), 2)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		p := Packet{bare: make([]int, files&0xff)}
		if err := p.parseHeader(b); err != nil {
			return
		}
		p.Files = make([]*os.File, files&0xff)
		if got := string(append(p.appendHeader(nil), p.Body...)); got != string(b) {
			t.Errorf("%q reads as %+v, which writes as %q", b, p, got)
		}
	})
}
