package bench

import (
	"os"
	"testing"

	"github.com/go-privsep/sallyport/bench/peer"
	"github.com/go-privsep/sallyport/privsep"
)

func TestMain(m *testing.M) {
	reexecMain()
	peer.Main()
	privsep.Main(func() { os.Exit(m.Run()) }, &visitor)
}
