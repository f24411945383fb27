package ipc

import (
	"bytes"
	"reflect"
	"runtime/metrics"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// allocated returns how many bytes have been allocated so far. The runtime
// counts small objects late, and large ones, which are what a claim would make,
// at once.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Any bytes, as any of the messages in the tests: no panic, no memory that the
// bytes don't pay for, and one encoding for each message.
func FuzzScan(f *testing.F) {
	types := []any{&rich{}, &login{}, &struct{}{}}
	number := map[reflect.Type]uint8{}
	for _, h := range hostile {
		typ := reflect.TypeOf(h.into)
		if _, ok := number[typ]; !ok {
			number[typ] = uint8(len(types))
			types = append(types, h.into)
		}
		f.Add(number[typ], []byte(h.body))
	}
	plans := make([]*Plan, len(types))
	for i, v := range types {
		p, err := PlanOf(reflect.TypeOf(v).Elem())
		if err != nil {
			f.Fatal(err)
		}
		plans[i] = p
	}
	for _, v := range []rich{{}, fullest()} {
		body, _, err := plans[0].Encode(nil, &v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(0), body)
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		i := int(which) % len(plans)
		before := allocated()
		checkCanonical(t, plans[i], body, reflect.New(reflect.TypeOf(types[i]).Elem()).Interface())
		if got := allocated() - before; got > 1<<20 {
			t.Errorf("%d bytes cost %d bytes of memory", len(body), got)
		}
	})
}

// A listing nests slices and structs as deep as a plan can.
type listing struct {
	Cursor  int64
	Entries []entry `privsep:"max=64"`
	More    bool
}

type entry struct {
	Name  string `privsep:"max=255"`
	Mode  uint16
	Size  uint64
	Links []link `privsep:"max=4"`
}

type link struct {
	To   []string `privsep:"max=3,each=16"`
	Hash []byte   `privsep:"max=32"`
}

// Decode against msgpack's own decoder, which is given only what Scan accepts:
// the two find the same value.
func FuzzDecode(f *testing.F) {
	p := planFor[listing](f)
	for _, v := range []listing{
		{},
		{Cursor: -1, More: true, Entries: []entry{{Name: "a"}, {Name: "\xff/..", Mode: 0o755, Size: 1 << 40}}},
		{Cursor: 1 << 62, Entries: []entry{{Links: []link{{To: []string{"", "0123456789abcdef"}, Hash: bytes.Repeat([]byte{1}, 32)}, {}}}}},
	} {
		body, _, err := p.Encode(nil, &v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
		f.Add(body[:len(body)-1])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := listing{Cursor: 7, More: true, Entries: make([]entry, 3)}
		if checkCanonical(t, p, body, &got) == 0 {
			return
		}
		var want listing
		if err := msgpack.Unmarshal(body, &want); err != nil {
			t.Fatalf("msgpack refuses what Scan accepts: %v", err)
		}
		again, _, err := p.Encode(nil, &want)
		if err != nil || !bytes.Equal(again, body) {
			t.Errorf("Decode found %+v, msgpack %+v (%v)", got, want, err)
		}
	})
}
