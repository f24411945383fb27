package privsep_test

import (
	"os/exec"
	"syscall"
	"testing"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// A service manager gives capabilities as ambient ones (AmbientCapabilities= of
// systemd.exec(5)), to a process that is told to keep them.
func TestLimitAfterAmbientCapabilities(t *testing.T) {
	testenv.NeedRoot(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", limitedArgument)
	cmd.SysProcAttr = &syscall.SysProcAttr{AmbientCaps: []uintptr{uintptr(caps.NetBindService.Number()), uintptr(caps.Chown.Number())}}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "good\n" {
		t.Errorf("%v:\n%s", err, out)
	}
}
