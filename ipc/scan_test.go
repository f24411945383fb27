package ipc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// Messages of one field for each form.
type (
	oneBool   struct{ V bool }
	oneInt8   struct{ V int8 }
	oneInt16  struct{ V int16 }
	oneInt32  struct{ V int32 }
	oneInt64  struct{ V int64 }
	oneUint8  struct{ V uint8 }
	oneUint16 struct{ V uint16 }
	oneUint32 struct{ V uint32 }
	oneUint64 struct{ V uint64 }
	oneText   struct {
		V string `privsep:"max=60000"`
	}
	oneBlob struct {
		V []byte `privsep:"max=60000"`
	}
	oneList struct {
		V []uint64 `privsep:"max=7000"`
	}
	oneRecord struct{ V owner }
)

// hostile are messages that an uncompromised peer never sends. The last column
// is what msgpack's decoder alone makes of them: a row that it takes shows what
// Scan is for, and that the row gets as far as the value.
var hostile = []struct {
	name, body string
	into       any // a pointer to the message's type
	reason     string
	alone      string
}{
	{"no bytes", "", &login{}, truncated, refuses},
	{"a field missing", "\x81\xa4User\xa0", &login{}, wrongField, takes},
	{"every field missing", "\x80", &login{}, wrongField, takes},
	{"a field repeated", "\x83\xa4User\xa1a\xa8Password\xa0\xa4User\xa4root", &login{}, wrongField, takes},
	{"a field instead of another", "\x82\xa4User\xa1a\xa4User\xa4root", &login{}, wrongField, takes},
	{"an unknown field", "\x83\xa4User\xa0\xa8Password\xa0\xa3UID\x00", &login{}, wrongField, refuses},
	{"an unknown field for another", "\x82\xa4User\xa0\xa3UID\x00", &login{}, wrongField, refuses},
	{"fields in another order", "\x82\xa8Password\xa0\xa4User\xa0", &login{}, wrongField, takes},
	{"a field in another case", "\x82\xa4user\xa0\xa8Password\xa0", &login{}, wrongField, refuses},
	{"a name longer by a zero", "\x82\xa5User\x00\xa0\xa8Password\xa0", &login{}, wrongField, refuses},
	{"a name not in its shortest form", "\x82\xd9\x04User\xa0\xa8Password\xa0", &login{}, wrongField, takes},
	{"a name in bytes", "\x82\xc4\x04User\xa0\xa8Password\xa0", &login{}, wrongField, takes},
	{"a trailing byte", "\x82\xa4User\xa0\xa8Password\xa0\x00", &login{}, trailing, takes},
	{"two messages", "\x82\xa4User\xa0\xa8Password\xa0\x82\xa4User\xa0\xa8Password\xa0", &login{}, trailing, takes},
	{"fields of an inner struct missing", "\x81\xa1V\x81\xa3UID\x00", &oneRecord{}, wrongField, takes},

	{"an array for the message", "\x92\xa0\xa0", &login{}, wrongType, takes},
	{"nil for the message", "\xc0", &login{}, wrongType, takes},
	{"an extension for the message", "\xd4\x01\x00\x82\xa4User\xa0\xa8Password\xa0", &login{}, wrongType, refuses},
	{"nil for a string", "\x81\xa1V\xc0", &oneText{}, wrongType, takes},
	{"nil for bytes", "\x81\xa1V\xc0", &oneBlob{}, wrongType, takes},
	{"nil for an integer", "\x81\xa1V\xc0", &oneUint32{}, wrongType, takes},
	{"nil for a bool", "\x81\xa1V\xc0", &oneBool{}, wrongType, takes},
	{"nil for a slice", "\x81\xa1V\xc0", &oneList{}, wrongType, takes},
	{"nil for a struct", "\x81\xa1V\xc0", &oneRecord{}, wrongType, takes},
	{"the code that msgpack never uses", "\x81\xa1V\xc1", &oneBlob{}, wrongType, refuses},
	{"a float32 for an integer", "\x81\xa1V\xca\x3f\x80\x00\x00", &oneInt32{}, wrongType, refuses},
	{"a float64 for an integer", "\x81\xa1V\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00", &oneInt64{}, wrongType, refuses},
	{"an integer for a bool", "\x81\xa1V\x01", &oneBool{}, wrongType, refuses},
	{"a bool for an integer", "\x81\xa1V\xc3", &oneUint8{}, wrongType, refuses},
	{"a string for an integer", "\x81\xa1V\xa11", &oneInt8{}, wrongType, refuses},
	{"an integer for a string", "\x81\xa1V\x01", &oneText{}, wrongType, refuses},
	{"bytes for a string", "\x81\xa1V\xc4\x01x", &oneText{}, wrongType, takes},
	{"a string for bytes", "\x81\xa1V\xa1x", &oneBlob{}, wrongType, takes},
	{"bytes for a slice", "\x81\xa1V\xc4\x01x", &oneList{}, wrongType, refuses},
	{"a slice for bytes", "\x81\xa1V\x91\x01", &oneBlob{}, wrongType, refuses},
	{"a map for a slice", "\x81\xa1V\x81\x00\x00", &oneList{}, wrongType, refuses},
	{"a slice for a struct", "\x81\xa1V\x92\x00\xa0", &oneRecord{}, wrongType, takes},
	{"ext8", "\x81\xa1V\xc7\x01\x01x", &oneBlob{}, wrongType, refuses},
	{"ext16", "\x81\xa1V\xc8\x00\x01\x01x", &oneText{}, wrongType, refuses},
	{"ext32", "\x81\xa1V\xc9\x00\x00\x00\x01\x01x", &oneList{}, wrongType, refuses},
	{"fixext1", "\x81\xa1V\xd4\x01x", &oneInt8{}, wrongType, refuses},
	{"fixext16", "\x81\xa1V\xd8\x010123456789abcdef", &oneText{}, wrongType, refuses},
	{"an interned string", "\x81\xa1V\xd4\x80\x00", &oneText{}, wrongType, refuses},
	{"a time", "\x81\xa1V\xd6\xff\x00\x00\x00\x00", &oneInt64{}, wrongType, refuses},

	{"an array of 2^32-1", "\x81\xa1V\xdd\xff\xff\xff\xff", &oneList{}, tooLong, dies},
	{"an array of its bound and no element", "\x81\xa1V\xdc\x1b\x58", &oneList{}, truncated, refuses},
	{"an array of one too many", "\x81\xa1V\xdc\x1b\x59" + strings.Repeat("\x00", 7001), &oneList{}, tooLong, takes},
	{"a map of 2^32-1", "\x81\xa1V\xdf\xff\xff\xff\xff", &oneRecord{}, wrongField, refuses},
	{"a message of 2^32-1 fields", "\xdf\xff\xff\xff\xff", &login{}, wrongField, refuses},
	{"a string of 2^32-1", "\x81\xa1V\xdb\xff\xff\xff\xff", &oneText{}, tooLong, dies},
	{"a string of its bound and no byte", "\x81\xa1V\xda\xea\x60", &oneText{}, truncated, refuses},
	{"a string of one byte more than there is", "\x81\xa1V\xa2x", &oneText{}, truncated, refuses},
	{"bytes of 2^32-1", "\x81\xa1V\xc6\xff\xff\xff\xff", &oneBlob{}, tooLong, dies},
	{"an extension of 2^32-1", "\x81\xa1V\xc9\xff\xff\xff\xff\x01", &oneBlob{}, wrongType, refuses},
	{"a name of 2^32-1", "\x81\xdb\xff\xff\xff\xff", &oneBlob{}, wrongField, dies},
	{"arrays 10^4 deep", "\x81\xa1V" + strings.Repeat("\x91", 1e4) + "\x00", &oneList{}, wrongType, refuses},
	{"maps 10^4 deep", strings.Repeat("\x81\xa1V", 1e4) + "\x80", &oneRecord{}, wrongField, refuses},
	{"maps 10^4 deep in a name", strings.Repeat("\x81", 1e4) + "\x80", &oneRecord{}, wrongField, refuses},

	{"1 in uint8", "\x81\xa1V\xcc\x01", &oneUint8{}, notShortest, takes},
	{"-1 for uint8", "\x81\xa1V\xff", &oneUint8{}, outOfRange, takes},
	{"-1 for uint64", "\x81\xa1V\xff", &oneUint64{}, outOfRange, takes},
	{"-129 for uint16", "\x81\xa1V\xd1\xff\x7f", &oneUint16{}, outOfRange, takes},
	{"-2^63 for uint64", "\x81\xa1V\xd3\x80\x00\x00\x00\x00\x00\x00\x00", &oneUint64{}, outOfRange, takes},
	{"256 for uint8", "\x81\xa1V\xcd\x01\x00", &oneUint8{}, outOfRange, takes},
	{"2^16 for uint16", "\x81\xa1V\xce\x00\x01\x00\x00", &oneUint16{}, outOfRange, takes},
	{"2^32 for uint32", "\x81\xa1V\xcf\x00\x00\x00\x01\x00\x00\x00\x00", &oneUint32{}, outOfRange, takes},
	{"128 for int8", "\x81\xa1V\xcc\x80", &oneInt8{}, outOfRange, takes},
	{"2^63 for int64", "\x81\xa1V\xcf\x80\x00\x00\x00\x00\x00\x00\x00", &oneInt64{}, outOfRange, takes},
	{"-129 for int8", "\x81\xa1V\xd1\xff\x7f", &oneInt8{}, outOfRange, takes},
	{"-2^31-1 for int32", "\x81\xa1V\xd3\xff\xff\xff\xff\x7f\xff\xff\xff", &oneInt32{}, outOfRange, takes},
	{"0 in int8", "\x81\xa1V\xd0\x00", &oneInt8{}, notShortest, takes},
	{"5 in int8", "\x81\xa1V\xd0\x05", &oneInt8{}, notShortest, takes},
	{"0 in uint64", "\x81\xa1V\xcf\x00\x00\x00\x00\x00\x00\x00\x00", &oneInt64{}, notShortest, takes},
	{"-1 in int64", "\x81\xa1V\xd3\xff\xff\xff\xff\xff\xff\xff\xff", &oneInt64{}, notShortest, takes},
	{"map16 for two fields", "\xde\x00\x02\xa4User\xa0\xa8Password\xa0", &login{}, notShortest, takes},
	{"map32 for two fields", "\xdf\x00\x00\x00\x02\xa4User\xa0\xa8Password\xa0", &login{}, notShortest, takes},
	{"str8 for a byte", "\x81\xa1V\xd9\x01x", &oneText{}, notShortest, takes},
	{"bin32 for a byte", "\x81\xa1V\xc6\x00\x00\x00\x01x", &oneBlob{}, notShortest, takes},
	{"array32 for none", "\x81\xa1V\xdd\x00\x00\x00\x00", &oneList{}, notShortest, takes},
}

const (
	takes   = "takes"
	refuses = "refuses"
	dies    = "dies" // would allocate gigabytes: not tried
)

// plansOf compiles the types of the hostile messages, once each.
func plansOf(t testing.TB) map[reflect.Type]*Plan {
	plans := make(map[reflect.Type]*Plan)
	for _, h := range hostile {
		typ := reflect.TypeOf(h.into).Elem()
		if plans[typ] == nil {
			p, err := PlanOf(typ)
			if err != nil {
				t.Fatal(err)
			}
			plans[typ] = p
		}
	}
	return plans
}

func TestHostileMessages(t *testing.T) {
	plans := plansOf(t)
	taken := 0
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			typ := reflect.TypeOf(h.into).Elem()
			p := plans[typ]
			err := p.Scan([]byte(h.body))
			got, ok := errors.AsType[*FormatError](err)
			if !ok || got.Reason != h.reason || !strings.HasPrefix(got.Field, typ.String()) || got.Offset > len(h.body) {
				t.Errorf("Scan: got %v, want %q", err, h.reason)
			}
			into := reflect.New(typ)
			if err := p.Decode(&Packet{Body: []byte(h.body)}, into.Interface()); err == nil || !into.Elem().IsZero() {
				t.Errorf("Decode: got %v, %+v", err, into.Elem())
			}
			// One error of fixed size is all that a refusal costs.
			if allocs := testing.AllocsPerRun(10, func() { _ = p.Scan([]byte(h.body)) }); allocs > 2 { // and []byte's copy
				t.Errorf("Scan: %v allocations", allocs)
			}

			if h.alone == dies {
				return
			}
			alone := refuses
			d := msgpack.NewDecoder(strings.NewReader(h.body))
			d.DisallowUnknownFields(true)
			if err := d.Decode(reflect.New(typ).Interface()); err == nil {
				alone = takes
				taken++
			}
			if alone != h.alone {
				t.Errorf("msgpack alone: %s, want %s", alone, h.alone)
			}
		})
	}
	t.Logf("msgpack alone takes %d of %d", taken, len(hostile))
}

// Control: what each claimed element costs without Scan. The claims are small
// ones, of 2^20: one of 2^32-1 takes 32 GiB.
func TestClaimsAllocateNothing(t *testing.T) {
	allocated := func(f func()) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for name, tt := range map[string]struct {
		body string
		into any
	}{
		"array": {"\x81\xa1V\xdd\x00\x10\x00\x00", &oneList{}},
		"bytes": {"\x81\xa1V\xc6\x00\x10\x00\x00", &oneBlob{}},
		"text":  {"\x81\xa1V\xdb\x00\x10\x00\x00", &oneText{}},
	} {
		p, err := PlanOf(reflect.TypeOf(tt.into).Elem())
		if err != nil {
			t.Fatal(err)
		}
		body := []byte(tt.body)
		alone := allocated(func() { err = msgpack.Unmarshal(body, tt.into) })
		if err == nil || alone < 1<<20 {
			t.Errorf("%s: msgpack alone allocates %d bytes (%v): the control controls nothing", name, alone, err)
		}
		ours := allocated(func() {
			for range 1000 {
				err = p.Decode(&Packet{Body: body}, tt.into)
			}
		}) / 1000
		if err == nil || ours > 64 {
			t.Errorf("%s: Decode allocates %d bytes (%v)", name, ours, err)
		}
		t.Logf("%s: %d bytes claim 2^20: msgpack alone allocates %d bytes, Decode %d", name, len(body), alone, ours)
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	p := planFor[rich](t)
	for _, v := range []rich{{}, fullest()} {
		body, _, err := p.Encode(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		if got := testing.AllocsPerRun(100, func() {
			if p.Scan(body) != nil {
				t.Error("refused")
			}
		}); got != 0 {
			t.Errorf("a good message: %v allocations", got)
		}
		if got := testing.AllocsPerRun(100, func() { _ = p.Scan(body[:len(body)-1]) }); got > 1 {
			t.Errorf("a bad message: %v allocations", got)
		}
	}
	if got := reflect.TypeFor[FormatError]().Size(); got > 48 {
		t.Errorf("a FormatError takes %d bytes", got)
	}
}

func TestTruncatedAtEveryByte(t *testing.T) {
	p := planFor[rich](t)
	for _, v := range []rich{{}, fullest()} {
		body, _, err := p.Encode(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		for i := range body {
			err := p.Scan(body[:i:i])
			if e, ok := errors.AsType[*FormatError](err); !ok || e.Reason != truncated {
				t.Fatalf("%d of %d bytes: got %v", i, len(body), err)
			}
		}
		for c := range 256 {
			err := p.Scan(append(body[:len(body):len(body)], byte(c)))
			if e, ok := errors.AsType[*FormatError](err); !ok || e.Reason != trailing {
				t.Fatalf("%#x behind the end: got %v", c, err)
			}
		}
	}
}

// Every byte of a message, changed to every other value: what Scan accepts is
// another message in its one encoding.
func TestEveryByteChanged(t *testing.T) {
	p := planFor[rich](t)
	for _, v := range []rich{{}, fullest()} {
		body, _, err := p.Encode(nil, &v)
		if err != nil {
			t.Fatal(err)
		}
		accepted := 0
		for i := range body {
			was := body[i]
			for c := range 256 {
				body[i] = byte(c)
				accepted += checkCanonical(t, p, body, new(rich))
			}
			body[i] = was
		}
		t.Logf("%d of %d changes are messages too", accepted, 256*len(body))
	}
}

// checkCanonical holds that whatever Scan accepts decodes and encodes to the
// same bytes. It returns how many messages body is.
func checkCanonical(t testing.TB, p *Plan, body []byte, into any) int {
	t.Helper()
	if err := p.Scan(body); err != nil {
		if _, ok := errors.AsType[*FormatError](err); !ok {
			t.Fatalf("Scan(%x): %T", body, err)
		}
		return 0
	}
	if err := p.Decode(&Packet{Body: body}, into); err != nil {
		t.Fatalf("accepted, but Decode(%x): %v", body, err)
	}
	again, _, err := p.Encode(nil, into)
	if err != nil || !bytes.Equal(again, body) {
		t.Fatalf("encodes to\n%x, was\n%x: %v", again, body, err)
	}
	return 1
}

// Each number in each encoding that can hold it, for each Go type: only one
// encoding is accepted, and only if the type holds the number.
func TestIntegerEncodings(t *testing.T) {
	for _, p := range []*Plan{
		planFor[oneInt8](t), planFor[oneInt16](t), planFor[oneInt32](t), planFor[oneInt64](t),
		planFor[oneUint8](t), planFor[oneUint16](t), planFor[oneUint32](t), planFor[oneUint64](t),
	} {
		typ := p.pointer.Elem().Field(0).Type
		var numbers []uint64 // each read as unsigned, and as signed if negative
		for bit := range 64 {
			for d := range uint64(3) {
				numbers = append(numbers, 1<<bit+d-1, -(1<<bit + d - 1))
			}
		}
		for _, u := range numbers {
			for _, negative := range []bool{false, true} {
				if negative && int64(u) >= 0 {
					continue
				}
				fits := !negative
				if v := reflect.New(typ).Elem(); v.CanInt() {
					fits = (negative || u <= math.MaxInt64) && !v.OverflowInt(int64(u))
				} else {
					fits = fits && !v.OverflowUint(u)
				}
				encodings := integerEncodings(u, negative)
				for i, e := range encodings {
					err := p.Scan([]byte("\x81\xa1V" + e))
					if got, want := err == nil, fits && i == 0; got != want {
						t.Errorf("%v: %d (negative %t) as %x: accepted %t, want %t: %v", typ, u, negative, e, got, want, err)
					}
				}
			}
		}
	}
}

// integerEncodings returns all encodings of a number, the right one first:
// written from the specification's table, not from scan.go.
func integerEncodings(u uint64, negative bool) (all []string) {
	add := func(code byte, width int) {
		b := binary.BigEndian.AppendUint64(nil, u)
		all = append(all, string(code)[:0]+string([]byte{code})+string(b[8-width:]))
	}
	i := int64(u)
	if negative {
		if i >= -32 {
			all = append(all, string([]byte{byte(u)}))
		}
	} else {
		if u <= 127 {
			all = append(all, string([]byte{byte(u)}))
		}
		if u <= math.MaxUint8 {
			add(0xcc, 1)
		}
		if u <= math.MaxUint16 {
			add(0xcd, 2)
		}
		if u <= math.MaxUint32 {
			add(0xce, 4)
		}
		add(0xcf, 8)
		if u > math.MaxInt64 {
			return all
		}
	}
	if i >= math.MinInt8 && i <= math.MaxInt8 {
		add(0xd0, 1)
	}
	if i >= math.MinInt16 && i <= math.MaxInt16 {
		add(0xd1, 2)
	}
	if i >= math.MinInt32 && i <= math.MaxInt32 {
		add(0xd2, 4)
	}
	add(0xd3, 8)
	return all
}

func TestLengthEncodings(t *testing.T) {
	for _, tt := range []struct {
		plan    *Plan
		max     int
		fix     int // lengths of the one-byte form, and its code
		fixCode byte
		codes   string // for 1, 2 and 4 bytes
	}{
		{planFor[oneText](t), 60000, 32, 0xa0, "\xd9\xda\xdb"},
		{planFor[oneBlob](t), 60000, 0, 0, "\xc4\xc5\xc6"},
		{planFor[oneList](t), 7000, 16, 0x90, "\xc1\xdc\xdd"},
	} {
		for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 6999, 7000, 7001, 59999, 60000, 60001, 65535} {
			var heads []string
			if n < tt.fix {
				heads = append(heads, string([]byte{tt.fixCode | byte(n)}))
			}
			if n < 1<<8 && tt.codes[0] != 0xc1 {
				heads = append(heads, string([]byte{tt.codes[0], byte(n)}))
			}
			heads = append(heads, string([]byte{tt.codes[1], byte(n >> 8), byte(n)}))
			heads = append(heads, string([]byte{tt.codes[2], 0, 0, byte(n >> 8), byte(n)}))
			for i, head := range heads {
				err := tt.plan.Scan([]byte("\x81\xa1V" + head + strings.Repeat("\x00", n)))
				if got, want := err == nil, i == 0 && n <= tt.max; got != want {
					t.Errorf("%v: length %d as %x: accepted %t, want %t: %v", tt.plan.pointer, n, head, got, want, err)
				}
			}
		}
	}
}

// A struct of 16 fields needs the longer map.
func TestManyFields(t *testing.T) {
	for _, n := range []int{15, 16, 17, 300} {
		var fields []reflect.StructField
		for i := range n {
			fields = append(fields, reflect.StructField{Name: fmt.Sprintf("F%d", i), Type: reflect.TypeFor[uint8]()})
		}
		typ := reflect.StructOf(fields)
		p, err := PlanOf(typ)
		if err != nil {
			t.Fatal(err)
		}
		v := reflect.New(typ)
		for i := range n {
			v.Elem().Field(i).SetUint(255)
		}
		body, _, err := p.Encode(nil, v.Interface())
		if err != nil || len(body) != p.MaxSize() {
			t.Errorf("%d fields: %d bytes, MaxSize %d, %v", n, len(body), p.MaxSize(), err)
		}
		if got := checkCanonical(t, p, body, reflect.New(typ).Interface()); got != 1 {
			t.Errorf("%d fields: refused: %v", n, p.Scan(body))
		}
	}
}
