package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// home makes a root with files in it and a secret beside it.
func home(t testing.TB) string {
	t.Helper()
	top := t.TempDir()
	dir := filepath.Join(top, "home")
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(os.WriteFile(filepath.Join(top, "secret"), []byte("secret"), 0o644))
	do(os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o755))
	do(os.WriteFile(filepath.Join(dir, "file"), []byte("contents"), 0o644))
	do(os.WriteFile(filepath.Join(dir, "sub/-dash é"), nil, 0o600))
	do(os.WriteFile(filepath.Join(dir, ".hidden"), nil, 0o600))
	do(os.Symlink("file", filepath.Join(dir, "link")))
	do(os.Symlink("sub", filepath.Join(dir, "dirlink")))
	do(os.Symlink("nowhere", filepath.Join(dir, "dangling")))
	do(os.Symlink("../secret", filepath.Join(dir, "up")))
	do(os.Symlink(filepath.Join(top, "secret"), filepath.Join(dir, "absolute")))
	do(os.Symlink("..", filepath.Join(dir, "updir")))
	do(os.Symlink("loop", filepath.Join(dir, "loop")))
	do(syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	return dir
}

// each runs a test on both trees.
func each(t *testing.T, o Options, f func(t *testing.T, s *Store, dir string)) {
	t.Run("root", func(t *testing.T) {
		dir := home(t)
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		f(t, New(root, o), dir)
	})
	t.Run("chroot", func(t *testing.T) {
		dir := home(t)
		f(t, &Store{chroot{dir + "/"}, o}, dir)
	})
}

var writable = Options{Writable: true}

// want checks that err is nil or has the errno inside.
func want(t *testing.T, what string, err error, errno syscall.Errno) {
	t.Helper()
	if errno == 0 {
		if err != nil {
			t.Errorf("%s: got %v, want no error", what, err)
		}
		return
	}
	got := syscall.Errno(0)
	if errors.As(err, &got); got != errno {
		t.Errorf("%s: got %v, want %v", what, err, errno)
	}
}

func TestStat(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Store, dir string) {
		for _, c := range []struct {
			path, name string
			mode       uint32
			errno      syscall.Errno
		}{
			{"/", "/", files.ModeDir | 0o755, 0},
			{"", "/", files.ModeDir | 0o755, 0},
			{"/file", "file", files.ModeRegular | 0o644, 0},
			{"file", "file", files.ModeRegular | 0o644, 0},
			{"/../../file", "file", files.ModeRegular | 0o644, 0},
			{"/sub/../file", "file", files.ModeRegular | 0o644, 0},
			{"//sub//deep/.", "deep", files.ModeDir | 0o755, 0},
			{"/sub/-dash é", "-dash é", files.ModeRegular | 0o600, 0},
			{"/link", "link", files.ModeRegular | 0o644, 0},
			{"/dirlink", "dirlink", files.ModeDir | 0o755, 0},
			{"/dirlink/deep", "deep", files.ModeDir | 0o755, 0},
			{"/dangling", "dangling", files.ModeLink | 0o777, 0},
			{"/loop", "loop", files.ModeLink | 0o777, 0},
			{"/fifo", "fifo", files.ModeFIFO | 0o600, 0},
			{"/nosuch", "", 0, syscall.ENOENT},
			{"/file/x", "", 0, syscall.ENOTDIR},
			{"/a\x00b", "", 0, syscall.EINVAL},
			{"/" + strings.Repeat("a", 256), "", 0, syscall.ENAMETOOLONG},
			{strings.Repeat("/a", 4096), "", 0, syscall.ENAMETOOLONG},
		} {
			i, err := s.Stat(t.Context(), c.path)
			want(t, c.path, err, c.errno)
			if i.Name != c.name || i.Mode != c.mode {
				t.Errorf("%q: got %q %o, want %q %o", c.path, i.Name, i.Mode, c.name, c.mode)
			}
			if err == nil && (i.Inode == 0 || i.Links == 0 || time.Since(time.Unix(i.ModTime, 0)) > time.Minute) {
				t.Errorf("%q: implausible %+v", c.path, i)
			}
		}
	})
}

// Outside the root nothing is reached, even where no chroot holds. The control
// is the tree without os.Root: there the same paths must lead out, or this
// test proves nothing.
func TestNothingLeavesTheRoot(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		_, control := s.tree.(chroot)
		ctx := t.Context()
		for _, p := range []string{"/up", "/absolute", "/updir/secret"} {
			f, _, err := s.Open(ctx, p)
			if (err == nil) != control {
				t.Errorf("open %s: got %v, want it opened: %v", p, err, control)
			}
			if f != nil {
				f.Close()
			}
			if !control {
				want(t, p, err, syscall.EACCES)
				_, _, err = s.Create(ctx, p, files.Truncate)
				want(t, "create "+p, err, syscall.EACCES)
			}
		}
		if control {
			return
		}
		want(t, "rename in", s.Rename(ctx, "/updir/secret", "/mine"), syscall.EACCES)
		want(t, "rename out", s.Rename(ctx, "/file", "/updir/mine"), syscall.EACCES)
		want(t, "remove", s.Remove(ctx, "/updir/secret"), syscall.EACCES)
		want(t, "mkdir", s.Mkdir(ctx, "/updir/new"), syscall.EACCES)
		want(t, "list", s.List(ctx, "/updir", files.ListOptions{Format: files.Names}, os.Stderr), syscall.EACCES)
		if i, err := s.Stat(ctx, "/up"); err != nil || !i.IsLink() {
			t.Errorf("stat of a link that leaves: got %+v, %v; want the link", i, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "../secret")); string(b) != "secret" {
			t.Errorf("the secret is now %q, %v", b, err)
		}
	})
}

func TestOpen(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Store, dir string) {
		f, i, err := s.Open(t.Context(), "/link")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if b, err := io.ReadAll(f); string(b) != "contents" || i.Size != 8 || err != nil {
			t.Errorf("got %q of %d bytes, %v", b, i.Size, err)
		}
		for p, errno := range map[string]syscall.Errno{"/": syscall.EISDIR, "/sub": syscall.EISDIR, "/fifo": syscall.EACCES, "/dangling": syscall.ENOENT, "/loop": syscall.ELOOP, "/nosuch": syscall.ENOENT} {
			f, _, err := s.Open(t.Context(), p)
			if f != nil {
				t.Errorf("%s: got a file", p)
			}
			want(t, p, err, errno)
		}
	})
}

// A FIFO must not hang the worker whichever way it is opened.
func TestFIFONeverBlocks(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			ctx := context.Background()
			_, _, err := s.Open(ctx, "/fifo")
			want(t, "open", err, syscall.EACCES)
			for m := files.Truncate; m < files.Unique; m++ {
				_, _, err = s.Create(ctx, "/fifo", m)
				want(t, "create", err, syscall.ENXIO)
			}
			want(t, "list", s.List(ctx, "/fifo", files.ListOptions{Format: files.Long}, os.Stderr), syscall.ENOTDIR)
			// With a reader the open succeeds, and must still be refused.
			r, err := os.OpenFile(filepath.Join(dir, "fifo"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer r.Close()
			_, _, err = s.Create(ctx, "/fifo", files.Truncate)
			want(t, "create with a reader", err, syscall.EACCES)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("still waiting for the FIFO's other end")
		}
	})
}

func TestCreate(t *testing.T) {
	each(t, Options{Writable: true, Perm: 0o640}, func(t *testing.T, s *Store, dir string) {
		for _, c := range []struct {
			mode       files.CreateMode
			at         int64
			path, name string
			want       string
		}{
			{files.Truncate, 0, "/file", "/file", "new"},
			{files.Append, 0, "/file", "/file", "newnew"},
			{files.Resume, 3, "/file", "/file", "newnew"},
			{files.Resume, 5, "file", "/file", "newnenew"},
			{files.Resume, 2, "/sparse", "/sparse", "\x00\x00new"},
			{files.Truncate, 0, "/sub/../made", "/made", "new"},
			{files.Append, 0, "/appended", "/appended", "new"},
			{files.Unique, 0, "/made", "/made.1", "new"},
			{files.Unique, 0, "/made", "/made.2", "new"},
			{files.Unique, 0, "/", "/ftp", "new"},
			{files.Unique, 0, "/sub", "/sub/ftp", "new"},
			{files.Unique, 0, "/dangling", "/dangling.1", "new"}, // O_EXCL follows no link
			{files.Truncate, 0, "/dangling", "/dangling", "new"},
		} {
			f, name, err := s.Create(t.Context(), c.path, c.mode)
			if err != nil {
				t.Errorf("%d %s: %v", c.mode, c.path, err)
				continue
			}
			if c.mode == files.Resume {
				f.Seek(c.at, io.SeekStart)
			}
			if _, err := f.Write([]byte("new")); err != nil {
				t.Error(err)
			}
			f.Close()
			got, err := os.ReadFile(filepath.Join(dir, name))
			if name != c.name || string(got) != c.want {
				t.Errorf("%d %s: got %q in %s, %v; want %q in %s", c.mode, c.path, got, name, err, c.want, c.name)
			}
		}
		i, _ := s.Stat(t.Context(), "/made")
		if i.Mode != files.ModeRegular|0o640 {
			t.Errorf("new file has mode %o, want 0640", i.Mode)
		}
		for _, c := range []struct {
			path  string
			mode  files.CreateMode
			errno syscall.Errno
		}{
			{"/file", 0, syscall.EINVAL},
			{"/file", files.Unique + 1, syscall.EINVAL},
			{"/", files.Truncate, syscall.EISDIR},
			{"/sub", files.Truncate, syscall.EISDIR},
			{"/sub", files.Append, syscall.EISDIR},
			{"/nosuch/x", files.Truncate, syscall.ENOENT},
			{"/nosuch/x", files.Unique, syscall.ENOENT},
			{"/file/x", files.Truncate, syscall.ENOTDIR},
		} {
			_, _, err := s.Create(t.Context(), c.path, c.mode)
			want(t, fmt.Sprint(c.mode, c.path), err, c.errno)
		}
	})
}

func TestUniqueIsUnique(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		const n = 50
		var names sync.Map
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				f, name, err := s.Create(context.Background(), "/u", files.Unique)
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
				if _, twice := names.LoadOrStore(name, true); twice {
					t.Errorf("%s was given out twice", name)
				}
			})
		}
		all.Wait()
	})
}

func TestChange(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		ctx := t.Context()
		want(t, "mkdir", s.Mkdir(ctx, "/new"), 0)
		if i, _ := s.Stat(ctx, "/new"); i.Mode != files.ModeDir|0o700 {
			t.Errorf("new directory has mode %o, want 0700", i.Mode)
		}
		want(t, "mkdir again", s.Mkdir(ctx, "/new"), syscall.EEXIST)
		want(t, "mkdir root", s.Mkdir(ctx, "/"), syscall.EEXIST)
		want(t, "mkdir below nothing", s.Mkdir(ctx, "/x/y"), syscall.ENOENT)
		want(t, "remove a directory", s.Remove(ctx, "/new"), syscall.EISDIR)
		want(t, "rmdir a file", s.Rmdir(ctx, "/file"), syscall.ENOTDIR)
		want(t, "rmdir a link", s.Rmdir(ctx, "/dirlink"), syscall.ENOTDIR)
		want(t, "rmdir root", s.Rmdir(ctx, "/"), syscall.EBUSY)
		want(t, "rmdir full", s.Rmdir(ctx, "/sub"), syscall.ENOTEMPTY)
		want(t, "rmdir", s.Rmdir(ctx, "/new"), 0)
		want(t, "remove nothing", s.Remove(ctx, "/nosuch"), syscall.ENOENT)
		want(t, "remove a link", s.Remove(ctx, "/dirlink"), 0)
		want(t, "remove a dangling link", s.Remove(ctx, "/dangling"), 0)
		want(t, "remove a link that leaves", s.Remove(ctx, "/up"), 0)
		want(t, "rename", s.Rename(ctx, "/file", "/sub/moved"), 0)
		want(t, "rename over", s.Rename(ctx, "/.hidden", "/sub/moved"), 0)
		want(t, "rename root", s.Rename(ctx, "/", "/x"), syscall.EBUSY)
		want(t, "rename to root", s.Rename(ctx, "/sub", "/"), syscall.EBUSY)
		want(t, "rename into itself", s.Rename(ctx, "/sub", "/sub/deep/x"), syscall.EINVAL)
		want(t, "rename nothing", s.Rename(ctx, "/nosuch", "/x"), syscall.ENOENT)
		want(t, "rename over a directory", s.Rename(ctx, "/sub/moved", "/sub/deep"), syscall.EEXIST)
		want(t, "rename a directory", s.Rename(ctx, "/sub", "/renamed"), 0)
		if _, err := os.Stat(filepath.Join(dir, "../secret")); err != nil {
			t.Error(err)
		}
	})
}

func TestReadOnlyChangesNothing(t *testing.T) {
	each(t, Options{}, func(t *testing.T, s *Store, dir string) {
		ctx := t.Context()
		for m := files.CreateMode(0); m <= files.Unique; m++ {
			_, _, err := s.Create(ctx, "/file", m)
			want(t, fmt.Sprint("create ", m), err, syscall.EROFS)
		}
		want(t, "mkdir", s.Mkdir(ctx, "/new"), syscall.EROFS)
		want(t, "rmdir", s.Rmdir(ctx, "/sub/deep"), syscall.EROFS)
		want(t, "remove", s.Remove(ctx, "/file"), syscall.EROFS)
		want(t, "rename", s.Rename(ctx, "/file", "/new"), syscall.EROFS)
		if b, _ := os.ReadFile(filepath.Join(dir, "file")); string(b) != "contents" {
			t.Errorf("the file now holds %q", b)
		}
	})
}

// list returns what List writes.
func list(t *testing.T, s *Store, path string, o files.ListOptions) (string, error) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	err = s.List(t.Context(), path, o, out)
	b, _ := os.ReadFile(out.Name())
	return string(b), err
}

func TestList(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		for _, c := range []struct {
			path    string
			o       files.ListOptions
			lines   int
			holding string
		}{
			{"/", files.ListOptions{Format: files.Names}, 10, "file\r\n"},
			{"/", files.ListOptions{Format: files.Names, All: true}, 11, ".hidden\r\n"},
			{"/", files.ListOptions{Format: files.Long}, 10, "lrwxrwxrwx"},
			{"/", files.ListOptions{Format: files.Machine, Facts: files.FactType, All: true}, 11, "type=OS.unix=slink; updir\r\n"},
			{"/", files.ListOptions{Format: files.Machine, Facts: files.FactSize}, 10, "size=8; file\r\n"},
			{"/dirlink", files.ListOptions{Format: files.Names}, 2, "-dash é\r\n"},
			{"/sub/deep", files.ListOptions{Format: files.Long}, 0, ""},
		} {
			got, err := list(t, s, c.path, c.o)
			if err != nil || strings.Count(got, "\r\n") != c.lines || !strings.Contains(got, c.holding) {
				t.Errorf("%s %+v: got %q, %v; want %d lines, one with %q", c.path, c.o, got, err, c.lines, c.holding)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("%s: %q says where a link leads", c.path, got)
			}
		}
		for p, errno := range map[string]syscall.Errno{"/file": syscall.ENOTDIR, "/nosuch": syscall.ENOENT} {
			_, err := list(t, s, p, files.ListOptions{Format: files.Names})
			want(t, p, err, errno)
		}
		_, err := list(t, s, "/", files.ListOptions{})
		want(t, "zero options", err, syscall.EINVAL)
	})
}

// A reader that stops reading must not hold the worker past the call's end.
func TestListEndsWithItsContext(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		for i := range 2000 {
			name := filepath.Join(dir, "sub", fmt.Sprintf("%0100d", i))
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		if err := s.List(ctx, "/sub", files.ListOptions{Format: files.Names}, w); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	})
}

func TestEndedContext(t *testing.T) {
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, statErr := s.Stat(ctx, "/file")
		_, _, openErr := s.Open(ctx, "/file")
		_, _, createErr := s.Create(ctx, "/file", files.Truncate)
		for _, err := range []error{statErr, openErr, createErr, s.Remove(ctx, "/file"), s.Rename(ctx, "/file", "/x")} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		}
	})
}

func TestNoDescriptorIsLeft(t *testing.T) {
	count := func() int { d, _ := os.ReadDir("/proc/self/fd"); return len(d) }
	each(t, writable, func(t *testing.T, s *Store, dir string) {
		shut := func(f *os.File) {
			if f != nil {
				f.Close()
			}
		}
		before := count()
		ctx := t.Context()
		for range 20 {
			for _, p := range []string{"/sub", "/fifo", "/nosuch", "/up", "/file/x", "/made"} {
				f, _, _ := s.Open(ctx, p)
				shut(f)
				f, _, _ = s.Create(ctx, p, files.Append)
				shut(f)
				s.List(ctx, p, files.ListOptions{Format: files.Names}, os.NewFile(^uintptr(0), ""))
				s.Rmdir(ctx, p)
			}
		}
		if after := count(); after > before {
			t.Errorf("%d descriptors are open, %d were", after, before)
		}
	})
}

// Paths are the client's: whatever they hold, nothing outside is named.
func FuzzClean(f *testing.F) {
	for _, p := range []string{"", "/", "..", "/../..", "a/../../b", "a/./b//", "-x", "~", "\xff/..", "a\x00b", "/proc/self/root"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		rel, err := clean(context.Background(), p)
		if err != nil {
			return
		}
		if !filepath.IsLocal(rel) || rel == "" || strings.IndexByte(rel, 0) >= 0 || len(rel) >= maxPath {
			t.Errorf("%q becomes %q", p, rel)
		}
	})
}

func ExampleStore() {
	dir, _ := os.MkdirTemp("", "home")
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer root.Close()

	s, ctx := New(root, Options{Writable: true}), context.Background()
	f, name, err := s.Create(ctx, "/pub/../note", files.Truncate)
	if err != nil {
		fmt.Println(err)
		return
	}
	f.Close()
	i, err := s.Stat(ctx, name)
	fmt.Printf("%s %o %v\n", name, i.Mode, err)
	_, err = s.Stat(ctx, "/nosuch")
	fmt.Println(errors.Is(err, fs.ErrNotExist), err)
	// Output:
	// /note 100600 <nil>
	// true stat /nosuch: no such file or directory
}
