package privseptest

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/ipc"
)

// Types of packets and the size of what precedes a body. They are written out
// here, and the kit has an encoder of its own, because an attacker uses none of
// package ipc's.
const (
	request = 2
	cancel  = 4

	headerSize = 16
)

// patience is how long an attacker waits for what must come at once.
const patience = 10 * time.Second

// A frame is a packet as an attacker writes it.
type frame struct {
	kind, files     byte
	reserved        uint16
	call, value, op uint32
	body            []byte
}

func (f frame) bytes() []byte {
	b := []byte{f.kind, f.files}
	b = binary.LittleEndian.AppendUint16(b, f.reserved)
	b = binary.LittleEndian.AppendUint32(b, f.call)
	b = binary.LittleEndian.AppendUint32(b, f.value)
	b = binary.LittleEndian.AppendUint32(b, f.op)
	return append(b, f.body...)
}

// A wire is the attacker's end of a channel.
type wire struct {
	file *os.File
	raw  syscall.RawConn
}

// newWire returns both ends of a new channel.
func newWire(t testing.TB) (*wire, *os.File) {
	t.Helper()
	mine, theirs, err := ipc.Pair()
	if err != nil {
		t.Fatalf("privseptest: %v", err)
	}
	raw, err := mine.SyscallConn()
	if err != nil {
		t.Fatalf("privseptest: %v", err)
	}
	return &wire{mine, raw}, theirs
}

func (w *wire) close() { w.file.Close() }

// put sends a packet as it is. It waits for room, and fails when the other side
// is gone.
func (w *wire) put(packet []byte, files ...*os.File) error {
	return w.putWithin(patience, packet, files...)
}

func (w *wire) putWithin(limit time.Duration, packet []byte, files ...*os.File) error {
	rights := make([]int, 0, len(files))
	for _, f := range files {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { rights = append(rights, int(fd)) }); err != nil {
			return err
		}
	}
	if err := w.file.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	var sent error
	err := w.raw.Write(func(fd uintptr) bool {
		sent = sys.Send(fd, packet, rights)
		return !errors.Is(sent, syscall.EAGAIN)
	})
	return errors.Join(err, sent)
}

func (w *wire) send(f frame, files ...*os.File) error { return w.put(f.bytes(), files...) }

// An answer is a packet of the server's.
type answer struct {
	kind        byte
	call, value uint32
	body        []byte
	files       int // how many came with it; they are closed
}

// get waits for an answer: io.EOF when the server has hung up.
func (w *wire) get(limit time.Duration) (answer, error) {
	if err := w.file.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return answer{}, err
	}
	data, control := make([]byte, ipc.MaxPacket), make([]byte, sys.ControlSize)
	var n, nc int
	var got error
	err := w.raw.Read(func(fd uintptr) bool {
		n, nc, _, got = sys.Receive(fd, data, control, false)
		return !errors.Is(got, syscall.EAGAIN)
	})
	if err = errors.Join(err, got); err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = io.EOF
		}
		return answer{}, err
	}
	if n == 0 {
		return answer{}, io.EOF
	}
	if n < headerSize {
		return answer{}, errors.New("an answer shorter than its header")
	}
	var fds []int
	if nc > 0 {
		fds, err = sys.Rights(control[:nc])
		for _, fd := range fds {
			sys.Close(fd)
		}
	}
	return answer{
		kind: data[0], call: binary.LittleEndian.Uint32(data[4:]), value: binary.LittleEndian.Uint32(data[8:]),
		body: data[headerSize:n], files: len(fds),
	}, err
}

// verdict is what an answer says, in the words of verdictOf.
func (a answer) verdict() string {
	switch a.kind {
	case 3:
		return "reply"
	case 5:
		return verdictOf(syscall.Errno(a.value))
	}
	return "an answer of a type that no answer has"
}
