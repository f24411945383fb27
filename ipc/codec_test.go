package ipc

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

type level uint8

// digest is a named byte slice.
type digest []byte

// A rich message holds every form that a plan knows.
type rich struct {
	Flag   bool
	Small  int8
	Short  int16
	Long   int32
	Wide   int64
	Int    int
	Level  level
	Port   uint16
	Serial uint32
	Total  uint64
	Name   string   `privsep:"max=40"`
	Sum    digest   `privsep:"max=300"`
	Ports  []uint16 `privsep:"max=20"`
	Names  []string `privsep:"max=3,each=33"`
	Blobs  [][]byte `privsep:"max=2,each=4"`
	Owner  owner
	Rules  []rule `privsep:"max=2"`
	Marks  []mark `privsep:"max=2"`
}

type owner struct {
	UID  uint32
	Home string `privsep:"max=64"`
}

type rule struct {
	Allow bool
	Paths []string `privsep:"max=2,each=8"`
}

type mark struct{}

// login is the message of two strings that the benchmarks use.
type login struct {
	User     string `privsep:"max=32"`
	Password string `privsep:"max=255"`
}

func planFor[T any](t testing.TB) *Plan {
	t.Helper()
	p, err := PlanFor[T]()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func fullest() rich {
	fill := func(n int) string { return strings.Repeat("\xff", n) }
	r := rule{Allow: true, Paths: []string{fill(8), fill(8)}}
	return rich{
		Flag: true, Small: -1 << 7, Short: -1 << 15, Long: -1 << 31, Wide: -1 << 63, Int: 1<<63 - 1,
		Level: 255, Port: 1<<16 - 1, Serial: 1<<32 - 1, Total: 1<<64 - 1,
		Name: fill(40), Sum: digest(fill(300)),
		Ports: []uint16{9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999, 9999},
		Names: []string{fill(33), fill(33), fill(33)},
		Blobs: [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}},
		Owner: owner{UID: 1<<32 - 1, Home: fill(64)},
		Rules: []rule{r, r},
		Marks: []mark{{}, {}},
	}
}

func TestRoundTrip(t *testing.T) {
	p := planFor[rich](t)
	for name, want := range map[string]rich{
		"zero":    {},
		"fullest": fullest(),
		"small":   {Small: -1, Short: -33, Long: 128, Wide: -129, Int: -32, Name: "x", Names: []string{"", "\x00"}, Rules: []rule{{}}},
	} {
		body, files, err := p.Encode([]byte("before"), &want)
		if err != nil || len(files) != 0 {
			t.Fatalf("%s: Encode: %d files, %v", name, len(files), err)
		}
		body, ok := bytes.CutPrefix(body, []byte("before"))
		if !ok {
			t.Errorf("%s: Encode does not append", name)
		}
		// What was there before leaves no trace.
		got := fullest()
		if err := p.Decode(&Packet{Body: body}, &got); err != nil {
			t.Fatalf("%s: Decode: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got\n%+v, want\n%+v", name, got, want)
		}
		if len(body) > p.MaxSize() || (name == "fullest") != (len(body) == p.MaxSize()) {
			t.Errorf("%s: %d bytes, MaxSize is %d", name, len(body), p.MaxSize())
		}
	}
}

func TestDecodeKeepsNoReferenceToTheBody(t *testing.T) {
	p := planFor[rich](t)
	want := fullest()
	body, _, err := p.Encode(nil, &want)
	if err != nil {
		t.Fatal(err)
	}
	var got rich
	if err := p.Decode(&Packet{Body: body}, &got); err != nil {
		t.Fatal(err)
	}
	clear(body)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the value changed with the body: %+v", got)
	}
}

func TestEncodeNilAsEmpty(t *testing.T) {
	p := planFor[rich](t)
	a, _, errA := p.Encode(nil, &rich{})
	b, _, errB := p.Encode(nil, &rich{Sum: digest{}, Ports: []uint16{}, Names: []string{}, Blobs: [][]byte{}, Rules: []rule{}})
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("got %x (%v) and %x (%v)", a, errA, b, errB)
	}
	if err := p.Scan(a); err != nil {
		t.Error(err)
	}
}

func TestEncodeKeepsToTheBounds(t *testing.T) {
	p := planFor[rich](t)
	for field, spoil := range map[string]func(*rich){
		"ipc.rich.Name":          func(r *rich) { r.Name += "x" },
		"ipc.rich.Sum":           func(r *rich) { r.Sum = append(r.Sum, 0) },
		"ipc.rich.Ports":         func(r *rich) { r.Ports = append(r.Ports, 0) },
		"ipc.rich.Names":         func(r *rich) { r.Names = append(r.Names, "") },
		"ipc.rich.Names[]":       func(r *rich) { r.Names[2] += "x" },
		"ipc.rich.Blobs[]":       func(r *rich) { r.Blobs[1] = append(r.Blobs[1], 0) },
		"ipc.rich.Owner.Home":    func(r *rich) { r.Owner.Home += "x" },
		"ipc.rich.Rules[].Paths": func(r *rich) { r.Rules[0].Paths = append(r.Rules[0].Paths, "") },
	} {
		r := fullest()
		spoil(&r)
		_, _, err := p.Encode(nil, &r)
		if got, ok := errors.AsType[*FieldError](err); !ok || got.Field != field {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestWrongGoType(t *testing.T) {
	p := planFor[login](t)
	for _, v := range []any{nil, login{}, &rich{}, (*login)(nil), new(*login), map[string]string{}} {
		_, _, err := p.Encode(nil, v)
		if _, ok := errors.AsType[*FieldError](err); !ok {
			t.Errorf("Encode(%T): got %v, want a *FieldError", v, err)
		}
		err = p.Decode(&Packet{Body: []byte{0x82}}, v)
		if _, ok := errors.AsType[*FieldError](err); !ok {
			t.Errorf("Decode(%T): got %v, want a *FieldError", v, err)
		}
	}
}

// Nothing is carried from one message to the next, not even from one that
// failed in its middle.
func TestCodecAfterFailure(t *testing.T) {
	p := planFor[login](t)
	for range 10 {
		if _, _, err := p.Encode(nil, &login{User: "bob", Password: strings.Repeat("x", 256)}); err == nil {
			t.Fatal("an over-long password was encoded")
		}
		want := login{"alice", "secret"}
		body, _, err := p.Encode(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		var got login
		if err := p.Decode(&Packet{Body: body}, &got); err != nil || got != want {
			t.Fatalf("got %v, %v", got, err)
		}
	}
}

type twoFiles struct {
	In   *os.File `privsep:"kind=pipe-read"`
	Name string   `privsep:"max=8"`
	Out  *os.File `privsep:"kind=pipe-write"`
}

// arrived is a packet as it is received: with bare duplicates of files, closed
// when the test ends.
func arrived(t testing.TB, body []byte, files ...*os.File) *Packet {
	t.Helper()
	p := &Packet{Body: body}
	for _, f := range files {
		fd, err := syscall.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		p.bare = append(p.bare, fd)
	}
	t.Cleanup(p.CloseFiles)
	return p
}

func sameFile(t testing.TB, a, b *os.File) bool {
	t.Helper()
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return os.SameFile(x, y)
}

func TestFilesTravelInFieldOrder(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := planFor[twoFiles](t)
	if got, want := p.Files(), []Kind{KindPipeRead, KindPipeWrite}; !reflect.DeepEqual(got, want) {
		t.Errorf("Files: got %v, want %v", got, want)
	}
	body, files, err := p.Encode(nil, &twoFiles{In: r, Name: "x", Out: w})
	if err != nil || !reflect.DeepEqual(files, []*os.File{r, w}) {
		t.Fatalf("got %v, %v", files, err)
	}
	var got twoFiles
	packet := arrived(t, body, r, w)
	if err := p.Decode(packet, &got); err != nil || got.Name != "x" || !sameFile(t, got.In, r) || !sameFile(t, got.Out, w) {
		t.Fatalf("got %v, %v", got, err)
	}
	if len(packet.bare) != 0 || !reflect.DeepEqual(packet.Files, []*os.File{got.In, got.Out}) {
		t.Errorf("the packet still has %v and has %v", packet.bare, packet.Files)
	}

	before := got
	for name, files := range map[string][]*os.File{
		"none": nil, "one": {r}, "three": {r, w, w}, "swapped": {w, r}, "twice": {r, r},
	} {
		packet := arrived(t, body, files...)
		err := p.Decode(packet, &got)
		_, format := errors.AsType[*FormatError](err)
		_, kind := errors.AsType[*KindError](err)
		if wrongCount := len(files) != 2; format != wrongCount || kind == wrongCount {
			t.Errorf("%s: got %v", name, err)
		}
		if len(packet.bare) != len(files) || packet.Files != nil {
			t.Errorf("%s: of %d descriptors %d are bare and %d are files", name, len(files), len(packet.bare), len(packet.Files))
		}
	}
	if got != before {
		t.Errorf("a failed Decode left %v", got)
	}
	for name, v := range map[string]twoFiles{"nil": {In: r}, "swapped": {In: w, Out: r}} {
		_, _, err := p.Encode(nil, &v)
		if e, ok := errors.AsType[*KindError](err); !ok || !strings.HasPrefix(e.Field, "ipc.twoFiles.") {
			t.Errorf("Encode, %s: got %v, want a *KindError of a field", name, err)
		}
	}
	w.Close()
	if _, _, err := p.Encode(nil, &twoFiles{In: r, Out: w}); !errors.Is(err, syscall.EBADF) {
		t.Errorf("a closed file: got %v", err)
	}
}

func TestMessagesWithoutFields(t *testing.T) {
	for _, p := range []*Plan{planFor[struct{}](t), planFor[mark](t)} {
		if got := p.MaxSize(); got != 1 {
			t.Errorf("MaxSize: got %d, want 1", got)
		}
		if err := p.Scan([]byte{0x80}); err != nil {
			t.Error(err)
		}
		if err := p.Scan(nil); err == nil {
			t.Error("no bytes at all are a message")
		}
	}
	body, _, err := planFor[mark](t).Encode(nil, &mark{})
	if string(body) != "\x80" || err != nil {
		t.Errorf("got %x, %v", body, err)
	}
	if err := planFor[mark](t).Decode(&Packet{Body: body}, &mark{}); err != nil {
		t.Error(err)
	}
}

func BenchmarkEncode(b *testing.B) {
	p := planFor[login](b)
	v := &login{"alice", "correct horse battery staple"}
	dst := make([]byte, 0, p.MaxSize())
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Encode(dst, v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan(b *testing.B) {
	p := planFor[login](b)
	body, _, _ := p.Encode(nil, &login{"alice", "correct horse battery staple"})
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Scan(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	p := planFor[login](b)
	body, _, _ := p.Encode(nil, &login{"alice", "correct horse battery staple"})
	var v login
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Decode(&Packet{Body: body}, &v); err != nil {
			b.Fatal(err)
		}
	}
}
