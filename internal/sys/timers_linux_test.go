package sys

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/testenv"
)

// TestSlackenTimers looks at every thread there is, the runtime's own among
// them, and at a process started after.
func TestSlackenTimers(t *testing.T) {
	testenv.NeedRoot(t) // another thread's slack takes CAP_SYS_NICE to read (proc_pid_timerslack_ns(5))
	if err := SlackenTimers(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	defer SlackenTimers(50 * time.Microsecond)
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil || len(tasks) == 0 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + filepath.Base(task) + "/timerslack_ns")
		if err != nil || strings.TrimSpace(string(b)) != "1000000" {
			t.Errorf("thread %s: %q, %v", filepath.Base(task), b, err)
		}
	}
	b, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
	if err != nil || strings.TrimSpace(string(b)) != "1000000" {
		t.Errorf("a child: %q, %v", b, err)
	}
}
