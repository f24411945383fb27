//go:build linux

package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// amount is what the environment says, or less.
func amount(t *testing.T, name string, less int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return less
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: write a number", name, v)
	}
	return n
}

// TestNothingIsLost: clients that come without pause while the server is
// reloaded and replaced, and clients that were there before it all, with
// transfers. The long one takes five to ten minutes and begins with
//
//	SALLYPORT_CONNECTS=50000 SALLYPORT_RELOADS=20 SALLYPORT_UPGRADES=5 go test -v -timeout 30m -run TestNothingIsLost ./examples/vsftpd-like
//
// There most visitors share workers, as a worker for each costs ten times as
// much time; every fifth reload has the others come to workers of their own.
func TestNothingIsLost(t *testing.T) {
	connects := int64(amount(t, "SALLYPORT_CONNECTS", 600))
	reloads, upgrades := amount(t, "SALLYPORT_RELOADS", 4), amount(t, "SALLYPORT_UPGRADES", 2)
	s := startUpgradeSite(t, map[string]string{"banner": "0", "spares": "8", "idle_timeout": "2h", "max_startups": "100:30:200"})
	s.manager.SetReadDeadline(time.Time{})
	go func() { // who else hears of the watchdog
		for b := make([]byte, 4096); ; {
			if _, err := s.manager.Read(b); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()

	write(t, s.alice+"/wanted", randomBytes(32<<20))
	want := sha256.Sum256(randomBytes(32 << 20))

	// Real clients with a transfer each way that lasts, and sessions at rest.
	var real, crowd sync.WaitGroup
	url := "ftp://" + s.address[0] + "/"
	stop := make(chan struct{})
	runs := atomic.Int64{}
	real.Go(func() {
		for done := false; !done; runs.Add(1) {
			select {
			case <-stop:
				done = true // one more, of the last server
			default:
			}
			sum := sha256.New()
			cmd := program(t, s.dir, "curl", "-sS", "-u", "alice:"+password, "--limit-rate", "8M", url+"wanted")
			cmd.Stdout = sum
			if err := cmd.Run(); err != nil || [32]byte(sum.Sum(nil)) != want {
				t.Errorf("curl: %v, or other bytes", err)
				return
			}
		}
	})
	// It may last longer than program's two minutes.
	python := exec.CommandContext(t.Context(), testenv.NeedProgram(t, "python3"), "-c", `
import ftplib, sys
f = ftplib.FTP()
host, port = sys.argv[1].rsplit(":", 1)
f.connect(host, int(port), 60)
f.login("alice", sys.argv[2])
print("in", flush=True)
class Slow:
    sent = 0
    def read(self, n):
        line = sys.stdin.readline() if self.sent % 64 == 0 else "go"
        self.sent += 1
        return b"x" * n if line.strip() == "go" else b""
f.storbinary("STOR slow", Slow())
print(f.size("slow"))
f.quit()
`, s.address[0], password)
	feed, err := python.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said, complained strings.Builder
	python.Stdout, python.Stderr = &said, &complained
	if err := python.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			select {
			case <-stop:
				io.WriteString(feed, "end\n")
				feed.Close()
				return
			case <-time.After(50 * time.Millisecond):
				io.WriteString(feed, "go\n")
			}
		}
	}()
	var resting []*control
	for i := range 8 {
		resting = append(resting, login(t, s.address[i%2], "alice"))
	}

	var begun, served, refusals atomic.Int64
	began := time.Now()
	for i := range 8 {
		crowd.Go(func() {
			for begun.Add(1) <= connects {
				if err := visitBriefly(s.address[i%2]); err != nil {
					refusals.Add(1)
					t.Error(err)
					if refusals.Load() > 20 {
						return
					}
				}
				served.Add(1)
			}
		})
	}
	// Spread over the visits, in turn.
	events := reloads + upgrades
	didReloads, didUpgrades := 0, 0
	for e := range events {
		for served.Load() < connects*int64(e+1)/int64(events+1) && refusals.Load() < 100 {
			time.Sleep(5 * time.Millisecond)
		}
		if (e+1)*upgrades/events > didUpgrades {
			didUpgrades++
			s.install(t)
			s.upgrade(t)
		} else {
			didReloads++
			isolation := "shared"
			if events < 20 || e%5 == 0 {
				isolation = "connection"
			}
			s.edit(t, map[string]string{"banner": strconv.Itoa(e + 1), "isolation": isolation})
			s.hangUp(t, reloaded)
		}
		for _, c := range resting {
			if err := c.do("NOOP", "200"); err != nil {
				t.Errorf("a session at rest, after %d events: %v", e+1, err)
			}
		}
	}
	crowd.Wait()
	took := time.Since(began)
	close(stop)
	real.Wait()
	if err := python.Wait(); err != nil || !strings.HasPrefix(said.String(), "in\n") {
		t.Errorf("ftplib: %v: %s%s", err, said.String(), complained.String())
	}
	for _, c := range resting {
		if data, err := c.get("LIST"); err != nil || !strings.Contains(string(data), "wanted") {
			t.Errorf("a session at rest, in the end: %q, %v", data, err)
		}
		c.say(t, "QUIT", "221")
	}
	s.awaitServers(t, 1)
	t.Logf("%d connects in %.0f s, %d reloads, %d upgrades: %d lost; curl fetched 32 MiB %d times, ftplib uploaded %s",
		served.Load(), took.Seconds(), didReloads, didUpgrades, refusals.Load(), runs.Load(), strings.TrimPrefix(strings.TrimSpace(said.String()), "in\n"))
}

// visitBriefly connects, is greeted and leaves.
func visitBriefly(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	b := make([]byte, 64)
	n, err := conn.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "220 ") {
		return fmt.Errorf("connected, and then %q, %w", b[:n], err)
	}
	_, err = io.WriteString(conn, "QUIT\r\n")
	if err == nil {
		n, err = conn.Read(b)
	}
	if err != nil || !strings.HasPrefix(string(b[:n]), "221") {
		return errors.Join(err, fmt.Errorf("QUIT: %q: %w", b[:n], syscall.EPIPE))
	}
	return nil
}
