package account

import (
	"errors"
	"os"
	"testing"

	"github.com/go-privsep/sallyport/sandbox"
)

// Whatever the files hold, loading ends with a roll or with a line's error,
// and no entry in good standing is root's, locked or without a secret.
func fuzzFile(f *testing.F, name string, perm os.FileMode, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, settings := newSystem(t)
		s.write(t, name, string(data), perm)
		profile := sandbox.Profile{Open: settings.Paths()}
		files, err := profile.OpenFirst()
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			for _, f := range files {
				f.Close()
			}
		}()
		r, err := load(settings, files)
		if err != nil {
			if at := (*LineError)(nil); !errors.As(err, &at) || at.Remedy == "" {
				t.Fatalf("got %v, want a LineError with a remedy", err)
			}
			return
		}
		for name, e := range r.entries {
			if e.standing == inGoodStanding && (e.uid == 0 || e.gid == 0 || e.secret == nil || !validHome(e.home) || e.anonymous) {
				t.Fatalf("%q is in good standing: %+v", name, *e)
			}
		}
	})
}

func FuzzPasswd(f *testing.F) {
	fuzzFile(f, "passwd", 0o644, "alice:x:1000:1000::/home/alice:/bin/bash\n", "a:x:0:0::/:\n", "alice:x:00:1::/h:/bin/sh", "+@x::::::", "#\n\n:::::::\n")
}

func FuzzShadow(f *testing.F) {
	fuzzFile(f, "shadow", 0o600, "alice:"+hashSHA256+":19000:0:99999:7:::\n", "alice::::::::\n", "alice:!:-1:-1:-1:-1:-1:-1:\n", "alice:*:9999999999::::::\n")
}

func FuzzGroup(f *testing.F) {
	fuzzFile(f, "group", 0o644, "users:x:100:alice,bob\n", "root:x:0:alice", "a:x:4294967295:alice,,alice\n")
}

func FuzzVirtual(f *testing.F) {
	fuzzFile(f, "virtual", 0o600, "v:"+hashSHA256+":/srv/v:rw\n", "v:"+hashBcrypt+":/srv/v\n", "#c\n\nv:*:/:ro\n", "ftp:"+hashBcrypt+":/srv/v\n")
}
