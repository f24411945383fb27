package listing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

var now = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

func info(name string, mode uint32) files.Info {
	return files.Info{Name: name, Mode: mode, Size: 1234, ModTime: now.Add(-time.Hour).Unix(), UID: 1000, GID: 100, Links: 2, Device: 0xfe01, Inode: 0xabcdef}
}

func TestLong(t *testing.T) {
	style := Style{Now: now}
	aged := func(age time.Duration) files.Info {
		i := info("f", files.ModeRegular|0o644)
		i.ModTime = now.Add(-age).Unix()
		return i
	}
	big := files.Info{Name: "big", Mode: files.ModeRegular | 0o600, Size: 1<<63 - 1, UID: 1<<32 - 2, GID: 1<<32 - 2, Links: 1<<32 - 1}
	for _, c := range []struct {
		i    files.Info
		hide bool
		want string
	}{
		{info("f", files.ModeRegular|0o644), false, "-rw-r--r--    2 1000     100              1234 Mar 14 14:09 f"},
		{info("f", files.ModeRegular|0o644), true, "-rw-r--r--    2 ftp      ftp              1234 Mar 14 14:09 f"},
		{info("d", files.ModeDir|0o1777), false, "drwxrwxrwt    2 1000     100              1234 Mar 14 14:09 d"},
		{info("d", files.ModeDir|0o7000), false, "d--S--S--T    2 1000     100              1234 Mar 14 14:09 d"},
		{info("d", files.ModeRegular|0o6755), false, "-rwsr-sr-x    2 1000     100              1234 Mar 14 14:09 d"},
		{info("l", files.ModeLink|0o777), false, "lrwxrwxrwx    2 1000     100              1234 Mar 14 14:09 l"},
		{info("p", files.ModeFIFO|0o600), false, "prw-------    2 1000     100              1234 Mar 14 14:09 p"},
		{info("s", files.ModeSocket), false, "s---------    2 1000     100              1234 Mar 14 14:09 s"},
		{info("c", files.ModeChar), false, "c---------    2 1000     100              1234 Mar 14 14:09 c"},
		{info("b", files.ModeBlock), false, "b---------    2 1000     100              1234 Mar 14 14:09 b"},
		{info("?", 0), false, "?---------    2 1000     100              1234 Mar 14 14:09 ?"},
		{aged(0), false, "-rw-r--r--    2 1000     100              1234 Mar 14 15:09 f"},
		{aged(182 * 24 * time.Hour), false, "-rw-r--r--    2 1000     100              1234 Sep 13 15:09 f"},
		{aged(183 * 24 * time.Hour), false, "-rw-r--r--    2 1000     100              1234 Sep 12  2025 f"},
		{aged(-time.Hour), false, "-rw-r--r--    2 1000     100              1234 Mar 14  2026 f"},
		{big, false, "-rw------- 4294967295 4294967294 4294967294 9223372036854775807 Jan  1  1970 big"},
		{info("a\r\n-rw-r--r-- 1 0 0 0 Jan 1 1970 b", files.ModeRegular|0o644), false, "-rw-r--r--    2 1000     100              1234 Mar 14 14:09 a??-rw-r--r-- 1 0 0 0 Jan 1 1970 b"},
		{info("\x1b[2J\x7f\tend", files.ModeRegular|0o644), false, "-rw-r--r--    2 1000     100              1234 Mar 14 14:09 ?[2J??end"},
		{info(" é\xff ", files.ModeRegular|0o644), false, "-rw-r--r--    2 1000     100              1234 Mar 14 14:09  é\xff "},
	} {
		style.HideIDs = c.hide
		if got := string(Long(nil, c.i, style)); got != c.want+"\r\n" {
			t.Errorf("got  %q\nwant %q", got, c.want+"\r\n")
		}
	}
}

func TestMachine(t *testing.T) {
	owner := Style{Viewer: Viewer{UID: 1000, Parent: true}}
	group := Style{Viewer: Viewer{UID: 1, GIDs: []uint32{5, 100}, Parent: true}}
	reader := Style{Viewer: Viewer{UID: 1000, Parent: true, ReadOnly: true}}
	hidden := Style{HideIDs: true}
	file, dir := files.ModeRegular|uint32(0o640), files.ModeDir|uint32(0o750)
	far := info("far", file)
	far.ModTime = 1 << 62
	for _, c := range []struct {
		i     files.Info
		f     files.Facts
		style Style
		want  string
	}{
		{info("f", file), files.DefaultFacts, owner, "type=file;size=1234;modify=20260314140926;perm=adfrw;unique=fe01gabcdef;UNIX.mode=0640; f"},
		{info("f", file), files.AllFacts, owner, "type=file;size=1234;modify=20260314140926;perm=adfrw;unique=fe01gabcdef;UNIX.mode=0640;UNIX.owner=1000;UNIX.group=100; f"},
		{info("f", file), files.AllFacts, hidden, "type=file;size=1234;modify=20260314140926;perm=;unique=fe01gabcdef;UNIX.mode=0640; f"},
		{info("f", file), 0, owner, " f"},
		{info("f", file), files.FactPerm, group, "perm=dfr; f"},
		{info("f", file), files.FactPerm, reader, "perm=r; f"},
		{info("d", dir), files.FactType | files.FactSize | files.FactPerm, owner, "type=dir;perm=cdeflmp; d"},
		{info("d", dir), files.FactPerm, group, "perm=defl; d"},
		{info("d", dir), files.FactPerm, reader, "perm=el; d"},
		{info("l", files.ModeLink|0o777), files.FactType | files.FactPerm, owner, "type=OS.unix=slink;perm=df; l"},
		{info("p", files.ModeFIFO), files.FactType, owner, "type=OS.unix=fifo; p"},
		{far, files.FactModify, owner, "modify=99991231235959; far"},
		{info(" a b;=", file), files.FactSize, owner, "size=1234;  a b;="},
	} {
		if got := string(Machine(nil, c.i, c.f, c.style)); got != c.want+"\r\n" {
			t.Errorf("got  %q\nwant %q", got, c.want+"\r\n")
		}
	}
	for _, name := range []string{"", "a\nb", "a\rb", "a\x00b"} {
		if got := string(Machine(nil, info(name, file), files.AllFacts, owner)) + string(Name(nil, name)); got != "" {
			t.Errorf("%q: got %q, want no line", name, got)
		}
	}
}

// A name makes exactly one line or none, whatever it holds.
func FuzzOneLine(f *testing.F) {
	f.Add("plain", uint32(files.ModeRegular|0o644), int64(1), int64(0))
	f.Add("a\r\n226 done", uint32(files.ModeDir|0o7777), int64(-1), int64(-1))
	f.Add("\x00\n", uint32(1<<32-1), int64(1<<62), int64(1<<62))
	f.Fuzz(func(t *testing.T, name string, mode uint32, size, at int64) {
		i := files.Info{Name: name, Mode: mode, Size: size, ModTime: at}
		for what, line := range map[string][]byte{
			"long":    Long(nil, i, Style{Now: now}),
			"machine": Machine(nil, i, files.AllFacts, Style{}),
			"name":    Name(nil, name),
		} {
			if len(line) == 0 && what != "long" && !Valid(name) {
				continue
			}
			if bytes.Count(line, []byte("\r")) != 1 || bytes.Count(line, []byte("\n")) != 1 || !bytes.HasSuffix(line, []byte("\r\n")) {
				t.Errorf("%s: %q is not one line", what, line)
			}
		}
	})
}

// many makes a directory of n empty files, in memory where the machine has it.
func many(t testing.TB, n int) string {
	t.Helper()
	parent := "/dev/shm"
	if fi, err := os.Stat(parent); err != nil || !fi.IsDir() {
		parent = t.TempDir()
	}
	dir, err := os.MkdirTemp(parent, "listing")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a file with a longer name %06d", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func describe(fi fs.FileInfo) files.Info {
	return files.Info{Name: fi.Name(), Size: fi.Size(), Mode: files.ModeRegular, ModTime: fi.ModTime().Unix()}
}

// gauge counts lines and sees how much of the heap is live in the middle.
type gauge struct {
	lines, writes int
	live          uint64
}

func (g *gauge) Write(p []byte) (int, error) {
	g.lines += bytes.Count(p, []byte("\r\n"))
	if g.writes++; g.writes%32 == 1 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		g.live = max(g.live, m.HeapAlloc)
	}
	return len(p), nil
}

// greedy is the control: it reads all at once, as sorting would have to.
type greedy struct{ Dir }

func (g greedy) Readdirnames(int) ([]string, error) { return all(g.Dir.Readdirnames(-1)) }
func (g greedy) Readdir(int) ([]fs.FileInfo, error) { return all(g.Dir.Readdir(-1)) }
func all[T any](list []T, err error) ([]T, error) {
	if err == nil {
		err = io.EOF
	}
	return list, err
}

func TestConstantMemory(t *testing.T) {
	const entries = 100_000
	small, large := many(t, 100), many(t, entries)
	measure := func(path string, o files.ListOptions, wrap func(Dir) Dir) *gauge {
		dir, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		g := &gauge{}
		if err := Write(g, wrap(dir), o, Style{Now: now}, describe, context.Background().Err); err != nil {
			t.Fatal(err)
		}
		return g
	}
	asIs := func(d Dir) Dir { return d }
	for _, o := range []files.ListOptions{{Format: files.Long}, {Format: files.Names}, {Format: files.Machine, Facts: files.AllFacts}} {
		few, lot := measure(small, o, asIs), measure(large, o, asIs)
		if few.lines != 100 || lot.lines != entries {
			t.Errorf("format %d: got %d and %d lines, want 100 and %d", o.Format, few.lines, lot.lines, entries)
		}
		const slack = 512 << 10
		if lot.live > few.live+slack {
			t.Errorf("format %d: %d KiB are live for %d entries, %d KiB for 100", o.Format, lot.live>>10, entries, few.live>>10)
		}
		if control := measure(large, o, func(d Dir) Dir { return greedy{d} }); control.live < few.live+slack {
			t.Errorf("format %d: control: reading all at once took only %d KiB; this test proves nothing", o.Format, control.live>>10)
		}
		t.Logf("format %d: %d KiB live for 100 entries, %d KiB for %d", o.Format, few.live>>10, lot.live>>10, entries)
	}
}

// broken has an entry that can't be looked at, then one that can.
type broken struct{ calls int }

func (b *broken) Readdirnames(int) ([]string, error) { return nil, io.EOF }
func (b *broken) Readdir(int) ([]fs.FileInfo, error) {
	b.calls++
	switch b.calls {
	case 1:
		return nil, &fs.PathError{Op: "fstatat", Path: "dead mount", Err: fs.ErrPermission}
	case 2:
		fi, err := os.Stat("listing.go")
		return []fs.FileInfo{fi}, err
	}
	return nil, &fs.PathError{Op: "readdirent", Path: ".", Err: fs.ErrClosed}
}

func TestOneBadEntryHidesNoOther(t *testing.T) {
	var out strings.Builder
	b := &broken{}
	err := Write(&out, b, files.ListOptions{Format: files.Machine}, Style{}, describe, t.Context().Err)
	if out.String() != " listing.go\r\n" || err == nil || b.calls != 3 {
		t.Errorf("got %q, %v after %d calls; want one line and the third call's error", out.String(), err, b.calls)
	}
}

func TestWriteStops(t *testing.T) {
	dir := func() Dir {
		d, err := os.Open(".")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	if err := Write(io.Discard, dir(), files.ListOptions{}, Style{}, describe, t.Context().Err); err != fs.ErrInvalid {
		t.Errorf("zero options: got %v, want %v", err, fs.ErrInvalid)
	}
	o := files.ListOptions{Format: files.Names}
	if err := Write(io.Discard, dir(), o, Style{}, describe, func() error { return io.ErrClosedPipe }); err != io.ErrClosedPipe {
		t.Errorf("told to stop: got %v", err)
	}
	r, w := io.Pipe()
	r.Close()
	if err := Write(w, dir(), o, Style{}, describe, t.Context().Err); err != io.ErrClosedPipe {
		t.Errorf("reader gone: got %v", err)
	}
}

func ExampleLong() {
	i := files.Info{Name: "motd", Mode: files.ModeRegular | 0o644, Size: 286, ModTime: now.Unix(), Links: 1}
	fmt.Printf("%s", bytes.TrimSpace(Long(nil, i, Style{Now: now, HideIDs: true})))
	// Output: -rw-r--r--    1 ftp      ftp               286 Mar 14 15:09 motd
}

func ExampleMachine() {
	i := files.Info{Name: "motd", Mode: files.ModeRegular | 0o644, Size: 286, ModTime: now.Unix()}
	fmt.Printf("%s", bytes.TrimSpace(Machine(nil, i, files.FactType|files.FactSize|files.FactModify, Style{})))
	// Output: type=file;size=286;modify=20260314150926; motd
}

func BenchmarkWrite(b *testing.B) {
	path := many(b, 10_000)
	for _, o := range []files.ListOptions{{Format: files.Long}, {Format: files.Names}, {Format: files.Machine, Facts: files.AllFacts}} {
		b.Run(fmt.Sprint(o.Format), func(b *testing.B) {
			for b.Loop() {
				dir, err := os.Open(path)
				if err != nil {
					b.Fatal(err)
				}
				err = Write(io.Discard, dir, o, Style{Now: now}, describe, b.Context().Err)
				dir.Close()
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10_000, "ns/entry")
		})
	}
}
