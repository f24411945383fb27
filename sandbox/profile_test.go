package sandbox

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/seccomp"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile Profile
		want    string // "": possible
	}{
		{"zero", Profile{}, ""},
		{"all of it", Profile{UID: 1, GID: 1, Groups: []uint32{2}, Root: "/srv", Read: []string{"/"}, Write: []string{"/pub"}}, ""},
		{"most of each", Profile{Groups: slices.Repeat([]uint32{1}, 64), Root: "/srv", Read: slices.Repeat([]string{"/a"}, 16), Write: slices.Repeat([]string{"/a"}, 16)}, ""},
		{"relative root", Profile{Root: "srv"}, "clean absolute"},
		{"root that climbs", Profile{Root: "/srv/../etc"}, "clean absolute"},
		{"root with a slash at its end", Profile{Root: "/srv/"}, "clean absolute"},
		{"root with a NUL", Profile{Root: "/srv\x00/etc"}, "clean absolute"},
		{"the host's root", Profile{Root: "/"}, "host's own"},
		{"relative path", Profile{Root: "/srv", Read: []string{"pub"}}, "clean absolute"},
		{"path that climbs", Profile{Root: "/srv", Write: []string{"/../etc"}}, "clean absolute"},
		{"empty path", Profile{Root: "/srv", Write: []string{""}}, "clean absolute"},
		{"65 groups", Profile{Groups: slices.Repeat([]uint32{1}, 65)}, "at most 64"},
		{"17 paths to read", Profile{Root: "/srv", Read: slices.Repeat([]string{"/a"}, 17)}, "at most"},
		{"17 files", Profile{Open: slices.Repeat([]string{"/a"}, 17)}, "at most"},
		{"relative file", Profile{Open: []string{"etc/passwd"}}, "clean absolute"},
		{"17 paths to write", Profile{Root: "/srv", Write: slices.Repeat([]string{"/a"}, 17)}, "at most"},
		{"group 0", Profile{Groups: []uint32{5, 0}}, "group 0"},
	} {
		err := tt.profile.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestProfileString(t *testing.T) {
	for _, tt := range []struct {
		profile Profile
		want    string
	}{
		{Profile{}, "uid 65534 gid 65534 no-root calls none files 64 memory 536870912 filesize 0 umask 077"},
		{Profile{
			UID: 1000, GID: 100, Groups: []uint32{20, 30}, Root: "/srv/a b", Read: []string{"/"}, Write: []string{"/in"},
			Promises: seccomp.Files | seccomp.ReadPaths, OpenFiles: 10, Memory: 1 << 26, FileSize: 1 << 40, Umask: 0o22,
			Without: Root | Proof,
		}, `uid 1000 gid 100 groups [20 30] read ["/"] write ["/in"] root "/srv/a b" calls Files|ReadPaths` +
			` files 10 memory 67108864 filesize 1099511627776 umask 022 without root,proof`},
	} {
		if got := tt.profile.String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}

// A spare is found by its sandbox's text: profiles that differ print
// differently.
func TestProfileStringTellsProfilesApart(t *testing.T) {
	seen := map[string]string{}
	for name, p := range map[string]Profile{
		"zero": {}, "uid": {UID: 1}, "gid": {GID: 1}, "group": {Groups: []uint32{1}}, "groups": {Groups: []uint32{1, 2}},
		"root": {Root: "/srv"}, "read": {Read: []string{"/a"}}, "write": {Write: []string{"/a"}},
		"promises": {Promises: seccomp.Streams}, "files": {OpenFiles: 1}, "memory": {Memory: 1}, "size": {FileSize: 1},
		"umask": {Umask: 1}, "without": {Without: Proof},
		"two paths": {Read: []string{"/a", "/b"}}, "one path with a space": {Read: []string{"/a /b"}},
	} {
		text := p.String()
		if other, ok := seen[text]; ok {
			t.Errorf("%s and %s both print %s", name, other, text)
		}
		seen[text] = name
	}
}

func TestMechanisms(t *testing.T) {
	if got, want := Mechanisms(0).String(), "none"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	all := Identity | Root | Namespaces | Landlock | LandlockScopes | WriteExecute | Proof
	if got, want := all.String(), "identity,root,namespaces,landlock,landlock-scopes,write-execute,proof"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if all != 1<<len(mechanismNames)-1 {
		t.Errorf("%d mechanisms, %d names", all, len(mechanismNames))
	}
	if !all.Has(Root|Proof) || (Root | Proof).Has(all) || !Root.Has(0) {
		t.Error("Has is not the relation of sets")
	}
}

func TestUnsupportedError(t *testing.T) {
	err := error(Unsupported(Landlock|WriteExecute, syscall.ENOSYS))
	var e *UnsupportedError
	if !errors.As(err, &e) || e.Mechanism != Landlock || e.MinKernel != "Linux 6.2" {
		t.Errorf("got %+v, want the first mechanism", e)
	}
	if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		t.Errorf("%v is not what it should be", err)
	}
	if got, want := err.Error(), "sandbox: landlock not supported here (requires Linux 6.2): function not implemented"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Unsupported(Proof, nil).Error(), "sandbox: proof not supported here (requires CAP_SYS_PTRACE over the worker)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A worker has as many files more as its profile names, and no other kind.
func TestPostureOfOpenFiles(t *testing.T) {
	for _, tt := range []struct {
		open, files []string
		ok          bool
	}{
		{[]string{"/etc/shadow"}, []string{"5 /etc/shadow"}, true},
		{[]string{"/etc/link"}, []string{"5 /srv/target"}, true},
		{[]string{"/etc/shadow"}, nil, true},
		{nil, []string{"5 /etc/shadow"}, false},
		{[]string{"/etc/shadow"}, []string{"5 /etc/shadow", "6 /etc/gshadow"}, false},
		{[]string{"/etc/shadow"}, []string{"5 socket:[9]"}, false},
	} {
		p := Posture{Threads: []Thread{}, Files: tt.files, Root: "/x (deleted)"}
		err := p.Check(&Profile{Open: tt.open}, Namespaces, &p)
		if (err == nil) != tt.ok {
			t.Errorf("open %q, has %q: %v", tt.open, tt.files, err)
		}
	}
}
