package sandbox

import (
	"os"
	"testing"
)

// TestMain makes the test binary the process that is confined, too, and that
// which starts it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == launchingArgument {
		os.Exit(launching(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == confinedArgument {
		os.Exit(confined(os.Args[2:]))
	}
	os.Exit(m.Run())
}
