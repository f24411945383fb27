package ipc

import (
	"testing"

	"github.com/go-privsep/sallyport/internal/mutation"
)

// The controls: with a bound removed, its test fails.
func TestMissingBoundsAreSeen(t *testing.T) {
	if testing.Short() {
		return // each is a build; the full suite has them
	}
	mutation.Run(t, []mutation.Mistake{
		{Name: "any number of descriptors under way", Package: ".", File: "conn.go", Run: "^TestUnreadDescriptorsAreBounded$",
			Old: "c.unread += len(rights); c.unread > maxFiles {", New: "c.unread += len(rights); false {", Caught: "one more: got <nil>, want a deadline"},
		{Name: "what was taken is never subtracted", Package: ".", File: "conn.go", Run: "^TestUnreadDescriptorsAreBounded$",
			Old: "c.unread > 0 && !sys.Unread(fd)", New: "c.unread < 0 && !sys.Unread(fd)", Caught: "all read: "},
		{Name: "any number of threads that wait", Package: ".", File: "conn.go", Run: "^TestBriskWaitersAreBounded$",
			Old: "b.brisk.Add(1) <= int32(max(1, free))", New: "b.brisk.Add(1) > 0", Caught: "--- FAIL: TestBriskWaitersAreBounded"},
		{Name: "more cancels than calls", Package: ".", File: "server.go", Run: "^TestViolationsEndServe$",
			Old: "s.cancels > s.last", New: "false", Caught: "--- FAIL: TestViolationsEndServe/"},
	})
}
