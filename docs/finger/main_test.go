package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
	"github.com/go-privsep/sallyport/privsep"
)

// TestMain makes the test binary the program, when it is told so, and in any
// case the program's workers.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "monitor" {
		main()
	}
	privsep.Main(func() { os.Exit(m.Run()) }, &finger)
}

func TestFinger(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "monitor")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	var c net.Conn
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if c, err = net.Dial("tcp", "127.0.0.1:79"); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "Nobody is logged in.\r\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
