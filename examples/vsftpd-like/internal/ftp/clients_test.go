package ftp

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// program runs a real client and returns what it says.
func program(t *testing.T, dir, stdin, name string, args ...string) string {
	t.Helper()
	path := testenv.NeedProgram(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=dumb"}
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// same compares what is in two files.
func same(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Error(err)
		return
	}
	y, err := os.ReadFile(b)
	if err != nil || !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ: %d and %d bytes, %v", a, b, len(x), len(y), err)
	}
}

// outing is a server with a few files, and a directory for a client.
func outing(t *testing.T) (s *server, host, port, dir string) {
	t.Helper()
	s = new(server).start(t, "127.0.0.1")
	dir = t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcde\n"), 300<<10/16)
	for name, content := range map[string][]byte{"a.txt": []byte("alpha\n"), "b c.txt": []byte("beta\n"), "big": big, "sub/grüß.txt": []byte("x")} {
		os.MkdirAll(filepath.Dir(filepath.Join(s.root, name)), 0o755)
		if err := os.WriteFile(filepath.Join(s.root, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(dir+"/up", big[:200<<10], 0o644); err != nil {
		t.Fatal(err)
	}
	host, port, _ = net.SplitHostPort(s.addr)
	return s, host, port, dir
}

func TestCurl(t *testing.T) {
	s, _, _, dir := outing(t)
	url := "ftp://u:secret@" + s.addr + "/"
	program(t, dir, "", "curl", "-sS", url+"big", "-o", "big")
	same(t, dir+"/big", s.root+"/big")
	program(t, dir, "", "curl", "-sS", "-r", "0-99999", url+"big", "-o", "part")
	program(t, dir, "", "curl", "-sS", "-C", "-", url+"big", "-o", "part")
	program(t, dir, "", "curl", "-sS", "--disable-epsv", url+"b%20c.txt", "-o", "b")
	same(t, dir+"/b", s.root+"/b c.txt")
	program(t, dir, "", "curl", "-sS", "-P", "-", url+"a.txt", "-o", "a")
	same(t, dir+"/a", s.root+"/a.txt")
	program(t, dir, "", "curl", "-sS", "-T", "up", "--ftp-create-dirs", url+"new/dir/up")
	same(t, dir+"/up", s.root+"/new/dir/up")
	if err := os.Truncate(s.root+"/new/dir/up", 70000); err != nil {
		t.Fatal(err)
	}
	program(t, dir, "", "curl", "-sS", "-C", "-", "-T", "up", url+"new/dir/up")
	same(t, dir+"/up", s.root+"/new/dir/up")
	program(t, dir, "", "curl", "-sS", "-a", "-T", "b", url+"a.txt")
	if got := s.read(t, "a.txt"); got != "alpha\nbeta\n" {
		t.Errorf("appended: %q", got)
	}
	if got := program(t, dir, "", "curl", "-sS", "-l", url); !strings.Contains(got, "b c.txt\n") {
		t.Errorf("names: %q", got)
	}
	if got := program(t, dir, "", "curl", "-sSI", url+"a.txt"); !strings.Contains(got, "Content-Length: 11") || !strings.Contains(got, "Last-Modified") {
		t.Errorf("head: %q", got)
	}
	program(t, dir, "", "curl", "-sS", url, "-Q", "RNFR a.txt", "-Q", "RNTO z.txt", "-Q", "-DELE big")
	if s.read(t, "z.txt") != "alpha\nbeta\n" || s.read(t, "big") != "(no such file)" {
		t.Error("not renamed, or not deleted")
	}
}

func TestFtplib(t *testing.T) {
	s, host, port, dir := outing(t)
	out := program(t, dir, `
import ftplib, io, sys
f = ftplib.FTP(encoding="utf-8")
f.connect("`+host+`", `+port+`, timeout=20)
try:
    f.login("u", "wrong")
    sys.exit("a wrong password was taken")
except ftplib.error_perm as e:
    assert str(e).startswith("530"), e
f.login("u", "secret")
assert f.pwd() == "/"
assert sorted(n for n, _ in f.mlsd()) == ["a.txt", "b c.txt", "big", "sub"], list(f.mlsd())
assert dict(f.mlsd("sub", ["size", "type"])) == {"grüß.txt": {"size": "1", "type": "file"}}
assert sorted(f.nlst()) == ["a.txt", "b c.txt", "big", "sub"], f.nlst()
f.voidcmd("TYPE I")
assert f.size("big") == 300 << 10
assert f.mkd('q"q') == '/q"q', "quoting"
f.cwd('q"q'); assert f.pwd() == '/q"q'; f.cwd(".."); f.rmd('q"q')
got = io.BytesIO(); f.retrbinary("RETR big", got.write, rest=100)
assert got.getvalue() == open("`+s.root+`/big", "rb").read()[100:]
f.storbinary("STOR up", open("up", "rb"))
f.storlines("STOR lines", io.BytesIO(b"one\r\ntwo\n"))
lines = []; f.retrlines("RETR lines", lines.append); assert lines == ["one", "two"], lines
f.set_pasv(False)
got = io.BytesIO(); f.retrbinary("RETR a.txt", got.write); assert got.getvalue() == b"alpha\n"
f.set_pasv(True)
f.rename("up", "moved"); f.delete("lines")
c = f.transfercmd("RETR big"); c.recv(10); assert f.abort()[:3] in ("426", "226", "225"); c.close()
assert f.getmultiline()[:3] == "226"
print(f.quit())
`, "python3", "-")
	if !strings.Contains(out, "221") {
		t.Error(out)
	}
	same(t, dir+"/up", s.root+"/moved")
}

func TestLftp(t *testing.T) {
	s, _, _, dir := outing(t)
	program(t, dir, "", "lftp", "-c", `set net:max-retries 1; set net:timeout 10; set cmd:fail-exit yes;
open -u u,secret ftp://`+s.addr+`; cls -la; mirror . down; mirror -R down up2; put up; mv up moved; mget -O down/sub *.txt; mkdir -p x/y; rmdir x/y; rm a.txt; glob echo b*; cat moved > /dev/null`)
	for _, name := range []string{"b c.txt", "big", "sub/grüß.txt"} {
		same(t, filepath.Join(dir, "down", name), filepath.Join(s.root, name))
		same(t, filepath.Join(dir, "down", name), filepath.Join(s.root, "up2", name))
	}
	same(t, dir+"/up", s.root+"/moved")
}

func TestNcftp(t *testing.T) {
	s, host, port, dir := outing(t)
	program(t, dir, "", "ncftpget", "-V", "-u", "u", "-p", "secret", "-P", port, "-R", host, dir, "/sub", "/big", "/*.txt")
	same(t, dir+"/big", s.root+"/big")
	same(t, dir+"/b c.txt", s.root+"/b c.txt")
	same(t, dir+"/sub/grüß.txt", s.root+"/sub/grüß.txt")
	program(t, dir, "", "ncftpput", "-V", "-E", "-u", "u", "-p", "secret", "-P", port, "-m", host, "/in", "up")
	same(t, dir+"/up", s.root+"/in/up")
	if got := program(t, dir, "", "ncftpls", "-l", "-u", "u", "-p", "secret", "-P", port, "ftp://"+host+"/"); !strings.Contains(got, "b c.txt") {
		t.Errorf("listing: %q", got)
	}
}

func TestTnftp(t *testing.T) {
	s, host, port, dir := outing(t)
	out := program(t, dir, `user u secret
prompt
epsv4
mget *.txt
get big
put up sent
size big
passive
ls -la sub
rename sent moved
mkdir d
rmdir d
quit
`, "tnftp", "-n", "-v", host, port)
	if !strings.Contains(out, "221 ") {
		t.Error(out)
	}
	for _, name := range []string{"a.txt", "b c.txt", "big"} {
		same(t, dir+"/"+name, s.root+"/"+name)
	}
	same(t, dir+"/up", s.root+"/moved")
}
