package ftp

import (
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

func TestResolve(t *testing.T) {
	long := strings.Repeat("x", MaxPath)
	for _, c := range []struct {
		cwd, arg, want string
		err            error
	}{
		{"/", "", "/", nil},
		{"/", "a", "/a", nil},
		{"/d", "", "/d", nil},
		{"/d", "a", "/d/a", nil},
		{"/d", "/a", "/a", nil},
		{"/d", "..", "/", nil},
		{"/d", "../../..", "/", nil},
		{"/d", "/../../etc/passwd", "/etc/passwd", nil},
		{"/d", "./a//b/../c/", "/d/a/c", nil},
		{"/", "...", "/...", nil},
		{"/", "~", "/~", nil},
		{"/", "~root/x", "/~root/x", nil},
		{"/", "-rf", "/-rf", nil},
		{"/", " a b ", "/ a b ", nil},
		{"/", "a\\..\\b", "/a\\..\\b", nil},
		{"/", "\xff\xfe", "/\xff\xfe", nil},
		{"/", "a\rb", "/a\rb", nil},
		{"/", "a\x00b", "", syscall.EINVAL},
		{"/", "a\nb", "", syscall.EINVAL},
		{"/", long[1:], "/" + long[1:], nil},
		{"/", long, "", syscall.ENAMETOOLONG},
		{"/d", long[2:], "", syscall.ENAMETOOLONG},
	} {
		got, err := resolve(c.cwd, c.arg)
		if got != c.want || err != c.err {
			t.Errorf("resolve(%q, %.20q): got %.40q, %v; want %.40q, %v", c.cwd, c.arg, got, err, c.want, c.err)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"", "..", "/../a", "a/../../b", "a\x00/..", "//", "./ ", "\xff/\xc0\xae\xc0\xae/"} {
		f.Add("/d", s)
	}
	f.Fuzz(func(t *testing.T, cwd, arg string) {
		cwd, err := resolve("/", cwd)
		if err != nil {
			return
		}
		p, err := resolve(cwd, arg)
		if err != nil {
			return
		}
		if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsAny(p, "\x00\n") || len(p) > MaxPath {
			t.Errorf("resolve(%q, %q) = %q", cwd, arg, p)
		}
		for e := range strings.SplitSeq(p, "/") {
			if e == ".." || e == "." {
				t.Errorf("resolve(%q, %q) = %q", cwd, arg, p)
			}
		}
		if again, err := resolve(p, ""); again != p || err != nil {
			t.Errorf("%q becomes %q, %v", p, again, err)
		}
	})
}

func TestListArg(t *testing.T) {
	for _, c := range []struct {
		arg, rest string
		all       bool
	}{
		{"", "", false},
		{"-la", "", true},
		{"-l", "", false},
		{"-l -A d", "d", true},
		{"-la with space", "with space", true},
		{"-a -- -l", "-l", true},
		{"--", "", false},
		{"-", "-", false},
		{"-x", "-x", false},
		{"--color", "--color", false},
		{"-file", "-file", false},
		{"d -la", "d -la", false},
	} {
		if all, rest := listArg(c.arg); all != c.all || rest != c.rest {
			t.Errorf("%q: got %v, %q", c.arg, all, rest)
		}
	}
}

// TestNameIn: the columns are another package's, and this one counts them.
func TestNameIn(t *testing.T) {
	for _, name := range []string{"f", "a b", " lead", "  two", "trail ", "12 34", "-", "grüß"} {
		for _, hide := range []bool{false, true} {
			i := files.Info{Name: name, Size: 1 << 50, Mode: files.ModeRegular | 0o644, UID: 4294967295, GID: 100000000, Links: 123456}
			line := listing.Long(nil, i, listing.Style{HideIDs: hide})
			if got := nameIn(line, files.Long); got != name {
				t.Errorf("got %q of %q", got, line)
			}
		}
	}
	for _, junk := range []string{"", "\r\n", "total 0\r\n", "        \r\n"} {
		nameIn([]byte(junk), files.Long) // must not panic
	}
}
