//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// program readies a real client that works in dir.
func program(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, testenv.NeedProgram(t, name), args...)
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=dumb"}
	cmd.WaitDelay = time.Second
	return cmd
}

// mustRun runs a client to its end, which must be a good one, and returns what it
// says.
func mustRun(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// write makes files of user alice.
func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, aliceID, aliceID); err != nil {
		t.Fatal(err)
	}
}

// same compares what is in two files.
func same(t testing.TB, a, b string) {
	t.Helper()
	x, err1 := os.ReadFile(a)
	y, err2 := os.ReadFile(b)
	if err1 != nil || err2 != nil || !bytes.Equal(x, y) {
		t.Errorf("%s and %s differ: %d and %d bytes, %v, %v", a, b, len(x), len(y), err1, err2)
	}
}

// random are n bytes, always the same.
func random(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), n) }

func randomBytes(n int64) []byte {
	b, _ := io.ReadAll(random(n))
	return b
}

func TestLftpMirror(t *testing.T) {
	s := startSite(t, nil)
	dir := siteDir(t)
	grow(t, filepath.Join(s.alice, "tree"), 1000)
	lftp := func(commands string) {
		t.Helper()
		mustRun(t, program(t, dir, "lftp", "-c", "set net:max-retries 1; set net:timeout 20; set cmd:fail-exit yes; "+
			"open -u alice,'"+password+"' ftp://"+s.address[0]+"; "+commands))
	}
	lftp("mirror --parallel=4 tree down")
	sameTree(t, filepath.Join(s.alice, "tree"), filepath.Join(dir, "down"), 1000)
	lftp("mirror -R --parallel=4 down up")
	sameTree(t, filepath.Join(s.alice, "tree"), filepath.Join(s.alice, "up"), 1000)

	// A cut upload goes on: REST and STOR.
	write(t, dir+"/whole", randomBytes(3<<20))
	write(t, s.alice+"/cut", randomBytes(1<<20))
	lftp("put -c whole -o cut")
	same(t, dir+"/whole", s.alice+"/cut")
}

// grow makes n files with names and sizes of every kind.
func grow(t *testing.T, root string, n int) {
	t.Helper()
	r := rand.New(rand.NewChaCha8([32]byte{2}))
	stems := []string{"plain", "two  words", " blank before", "blank behind ", "-r", "--help", "grüße", "日本語", "naïve ☃", "per%20cent",
		"semi;colon", "#hash", "quote\"d", "apos'trophe", "back\\slash", "star*", "[brackets]", "tilde~", ".hidden", "a=b", "$HOME", "new,comma", "&", "colon:"}
	dirs := []string{root}
	for i := range 60 {
		dirs = append(dirs, filepath.Join(dirs[r.IntN(len(dirs))], fmt.Sprintf("%s dir %d", stems[i%len(stems)], i)))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		size := []int{0, 1, r.IntN(100), r.IntN(5000), r.IntN(5000), 4096, r.IntN(200 << 10)}[r.IntN(7)]
		content := make([]byte, size)
		for j := range content {
			content[j] = byte(r.Uint32())
		}
		name := fmt.Sprintf("%s %d", stems[i%len(stems)], i)
		if i%len(stems) == 3 {
			name = fmt.Sprintf("%d blank behind ", i)
		}
		write(t, filepath.Join(dirs[i%len(dirs)], name), content)
	}
	mustRun(t, exec.Command("chown", "-R", fmt.Sprint(aliceID), root))
}

// sameTree compares all that is in two trees, which have n files.
func sameTree(t *testing.T, a, b string, n int) {
	t.Helper()
	list := func(root string) (all []string) {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(root, path)
			if err == nil && d.IsDir() {
				name += "/"
			}
			all = append(all, name)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return all
	}
	names, files := list(a), 0
	if other := list(b); strings.Join(names, "\n") != strings.Join(other, "\n") {
		t.Fatalf("%s and %s have other names: %d and %d", a, b, len(names), len(other))
	}
	for _, name := range names {
		if !strings.HasSuffix(name, "/") {
			same(t, filepath.Join(a, name), filepath.Join(b, name))
			files++
		}
	}
	if files != n {
		t.Errorf("%d files, want %d", files, n)
	}
}

// TestCurlGibibyte: each way, with equal hashes.
func TestCurlGibibyte(t *testing.T) {
	size := int64(1 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	s := startSite(t, nil)
	url := "ftp://" + s.address[0] + "/big"
	sum := sha256.New()
	up := program(t, s.dir, "curl", "-sS", "-u", "alice:"+password, "-T", "-", url)
	up.Stdin = io.TeeReader(random(size), sum)
	mustRun(t, up)
	want := sum.Sum(nil)

	stored, err := os.Open(s.alice + "/big")
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	sum.Reset()
	if n, err := io.Copy(sum, stored); err != nil || n != size {
		t.Errorf("stored: %d bytes, %v; want %d", n, err, size)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want) {
		t.Errorf("stored: SHA-256 is %x, want %x", got, want)
	}

	sum.Reset()
	down := program(t, s.dir, "curl", "-sS", "-u", "alice:"+password, url)
	down.Stdout = sum
	if err := down.Run(); err != nil {
		t.Fatal(err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want) {
		t.Errorf("fetched: SHA-256 is %x, want %x", got, want)
	}
}

// TestCurlResume: curl is killed in a transfer, and a second one goes on.
func TestCurlResume(t *testing.T) {
	s := startSite(t, nil)
	dir := siteDir(t)
	const size = 24 << 20
	write(t, s.alice+"/down", randomBytes(size))
	write(t, dir+"/up", randomBytes(size))
	curl := func(args ...string) *exec.Cmd {
		return program(t, dir, "curl", append([]string{"-sS", "-u", "alice:" + password}, args...)...)
	}
	url := "ftp://" + s.address[0] + "/"
	// cut kills the client when part has some, and waits for the server to
	// notice: until then it may still write what it had received.
	cut := func(cmd *exec.Cmd, part string) {
		t.Helper()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for sizeOf(part) < 2<<20 && time.Now().Before(deadline) {
			time.Sleep(5 * time.Millisecond)
		}
		cmd.Process.Kill()
		cmd.Wait()
		s.settled(t, map[string]int{"session": 2})
		if n := sizeOf(part); n < 2<<20 || n >= size {
			t.Fatalf("%s was not cut: %d bytes", part, n)
		}
	}
	cut(curl("--limit-rate", "16M", url+"down", "-o", "down"), dir+"/down")
	mustRun(t, curl("-C", "-", url+"down", "-o", "down"))
	same(t, s.alice+"/down", dir+"/down")

	cut(curl("--limit-rate", "16M", "-T", "up", url+"up"), s.alice+"/up")
	mustRun(t, curl("-C", "-", "-T", "up", url+"up"))
	same(t, dir+"/up", s.alice+"/up")
}

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return -1
	}
	return info.Size()
}

// TestCurl: what else curl does, active over EPRT among it.
func TestCurl(t *testing.T) {
	s := startSite(t, nil)
	dir := siteDir(t)
	write(t, s.alice+"/a file", []byte("content"))
	for _, url := range []string{"ftp://" + s.address[0] + "/", "ftp://" + s.address[1] + "/"} {
		for _, how := range [][]string{nil, {"--disable-epsv"}, {"-P", "-"}, {"-P", "-", "--disable-eprt"}} {
			if strings.Contains(url, "[::1]") && len(how) > 0 && strings.HasPrefix(how[len(how)-1], "--") {
				continue // IPv4's
			}
			args := append([]string{"-sS", "-u", "alice:" + password, url + "a%20file"}, how...)
			if got := mustRun(t, program(t, dir, "curl", args...)); got != "content" {
				t.Errorf("%s %v: got %q", url, how, got)
			}
		}
	}
}

func TestFtplib(t *testing.T) {
	s := startSite(t, nil)
	script, err := filepath.Abs("testdata/session.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range s.address {
		host, port, _ := net.SplitHostPort(address)
		out := mustRun(t, program(t, s.dir, "python3", script, host, port, "alice", password, s.alice))
		if !strings.HasPrefix(out, "221") {
			t.Errorf("%s: %s", address, out)
		}
	}
}

func TestNcftp(t *testing.T) {
	s := startSite(t, nil)
	dir := siteDir(t)
	if err := os.Mkdir(s.alice+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, s.alice+"/big", randomBytes(300<<10))
	write(t, s.alice+"/sub/grüß dich", []byte("content"))
	write(t, dir+"/up", randomBytes(200<<10))
	host, port, _ := net.SplitHostPort(s.address[0])
	who := []string{"-u", "alice", "-p", password, "-P", port}
	ncftp := func(name string, args ...string) string {
		t.Helper()
		return mustRun(t, program(t, dir, name, append(who, args...)...))
	}
	ncftp("ncftpget", "-V", "-R", host, dir, "/sub", "/big")
	same(t, dir+"/big", s.alice+"/big")
	same(t, dir+"/sub/grüß dich", s.alice+"/sub/grüß dich")
	ncftp("ncftpput", "-V", "-m", host, "/in", "up")
	same(t, dir+"/up", s.alice+"/in/up")
	if got := ncftp("ncftpls", "-l", "ftp://"+host+"/"); !strings.Contains(got, "big") || !strings.Contains(got, "sub") {
		t.Errorf("listing: %q", got)
	}
}

func TestTnftp(t *testing.T) {
	s := startSite(t, nil)
	dir := siteDir(t)
	write(t, s.alice+"/big", randomBytes(300<<10))
	write(t, dir+"/up", randomBytes(200<<10))
	for i, address := range s.address {
		host, port, _ := net.SplitHostPort(address)
		cmd := program(t, dir, "tnftp", "-n", "-v", host, port)
		sent := fmt.Sprint("sent", i)
		cmd.Stdin = strings.NewReader("user alice \"" + password + "\"\nprompt\nls\nget big\nput up " + sent + "\npassive\nls\nget big active\nmkdir d\nrmdir d\nquit\n")
		if out := mustRun(t, cmd); !strings.Contains(out, "\n221 ") || !strings.Contains(out, " big\r\n") && !strings.Contains(out, " big\n") {
			t.Errorf("%s:\n%s", address, out)
		}
		same(t, dir+"/big", s.alice+"/big")
		same(t, dir+"/active", s.alice+"/big")
		same(t, dir+"/up", s.alice+"/"+sent)
		os.Remove(dir + "/big")
		os.Remove(dir + "/active")
	}
}
