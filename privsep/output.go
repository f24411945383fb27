package privsep

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
)

// What is kept of a worker's standard error: its beginning and its end.
const (
	outputHead = 2 << 10
	outputTail = 6 << 10
	outputSize = outputHead + outputTail
)

// How often a worker's standard error is read: at once, and so many times in a
// row, then once in so long. What a worker writes beyond that is lost in it.
const (
	outputReads = 64
	outputPause = time.Second
)

// outputPipe is how much the socket holds, about. The runtime reports a crash in
// very small pieces, each of which takes the room of some hundred bytes.
const outputPipe = 64 << 10

// An output is the monitor's end of a worker's standard error. The worker's end
// never makes the worker wait: what does not fit is lost ([work]).
type output struct {
	file *os.File
	stop chan struct{}
	end  sync.Once     // stops it
	done chan struct{} // closed when nobody reads any more; then:
	kept []byte
	lost int64 // bytes between outputHead and the rest of kept

	first [1]byte
}

// newOutput returns an output that is being read, and the worker's end of it.
func newOutput() (*output, *os.File, error) {
	// A socket, because a worker's last word must not wait: a pipe would make
	// the handler of SIGSYS wait for whoever fills it.
	mine, theirs, err := sys.StreamPair(outputPipe)
	if err != nil {
		return nil, nil, err
	}
	o := &output{file: os.NewFile(uintptr(mine), "output"), stop: make(chan struct{}), done: make(chan struct{})}
	go o.run()
	return o, os.NewFile(uintptr(theirs), "output"), nil
}

// run reads as long as the worker lives, as often as it may.
func (o *output) run() {
	defer close(o.done)
	raw, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	counted, left := time.Now(), outputReads
	for {
		more := false
		err := raw.Read(func(fd uintptr) bool {
			again := false
			more, again = o.read(fd)
			return !again
		})
		if err != nil || !more {
			return
		}
		if earned := int(time.Since(counted) / outputPause); earned > 0 {
			counted, left = time.Now(), min(left+earned, outputReads)
		}
		if left--; left > 0 {
			continue
		}
		pause := time.NewTimer(outputPause)
		select {
		case <-pause.C:
		case <-o.stop:
			pause.Stop()
			return
		}
	}
}

// read takes what is there at once. It allocates only for that: most workers
// never write anything.
func (o *output) read(fd uintptr) (more, again bool) {
	n, err := syscall.Read(int(fd), o.first[:])
	if n <= 0 {
		return false, errors.Is(err, syscall.EAGAIN)
	}
	b := make([]byte, outputPipe)
	b[0] = o.first[0]
	n, _ = syscall.Read(int(fd), b[1:])
	o.keep(b[:1+max(n, 0)])
	return true, false
}

// keep forgets what is between the beginning and the end.
func (o *output) keep(b []byte) {
	o.kept = append(o.kept, b...)
	if excess := len(o.kept) - outputSize; excess > 0 {
		o.kept = slices.Clone(slices.Delete(o.kept, outputHead, outputHead+excess))
		o.lost += int64(excess)
	}
}

// text ends the reading and returns what was kept. It is called when the worker
// has ended, so all that it wrote is there; it takes no more than so much, for
// somebody else may have the worker's end, and write on.
func (o *output) text() []byte {
	o.end.Do(func() {
		close(o.stop)
		_ = o.file.SetReadDeadline(time.Unix(1, 0))
		<-o.done
		raw, err := o.file.SyscallConn()
		if err != nil {
			return
		}
		_ = raw.Control(func(fd uintptr) {
			for more, tries := true, 0; more && tries < outputReads; tries++ {
				more, _ = o.read(fd)
			}
		})
	})
	if o.lost == 0 {
		return o.kept
	}
	return slices.Concat(o.kept[:outputHead], fmt.Appendf(nil, "\n... %d bytes ...\n", o.lost), o.kept[outputHead:])
}

func (o *output) close() {
	o.file.Close() // which ends a read that waits
	o.end.Do(func() { close(o.stop) })
	<-o.done
}
