package ipc

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/go-privsep/sallyport/internal/sys"
)

// MaxPacket is the size in bytes of the largest packet, header included.
const MaxPacket = 64 << 10

// headerSize is the size of what precedes a packet's body.
const headerSize = 16

// Type says what a packet is. The zero Type is none.
//
// What goes towards the side that serves is even and what comes from it is
// odd, so that an answer can never be taken for a request (OpenSSH's
// monitor.h keeps the same rule).
type Type uint8

const (
	Request Type = 2  // a call: Op, Call and Value, its milliseconds of time
	Cancel  Type = 4  // the caller of Call no longer waits
	Ready   Type = 6  // a worker's sandbox is closed
	Log     Type = 8  // a record for the other side's log, without answer: Value are those lost before
	Ended   Type = 10 // session Call of a shared worker is over; Body: its error

	Reply   Type = 3  // the answer to Call
	Refusal Type = 5  // Call is denied: Value is the errno
	Enter   Type = 7  // the sandbox that a worker shall enter
	Start   Type = 9  // a session's first descriptors and message, in a shared worker as session Call
	End     Type = 11 // session Call of a shared worker shall end
)

var typeNames = [...]string{
	Request: "request", Cancel: "cancel", Ready: "ready", Log: "log", Ended: "ended",
	Reply: "reply", Refusal: "refusal", Enter: "enter", Start: "start", End: "end",
}

func (t Type) valid() bool { return int(t) < len(typeNames) && typeNames[t] != "" }

func (t Type) String() string {
	if !t.valid() {
		return fmt.Sprintf("type(%d)", uint8(t))
	}
	return typeNames[t]
}

// A Packet is one message. Whoever holds a Packet owns its descriptors.
type Packet struct {
	Type  Type
	Op    uint32 // which operation
	Call  uint32 // which call of this connection
	Value uint32 // milliseconds, an errno or a count, by Type
	Body  []byte // valid until Release
	Files []*os.File

	bare   []int // descriptors that came with it and are not among Files yet
	buffer *[]byte
	pool   *Buffers
}

// Release gives the packet's body back. It does not close Files.
func (p *Packet) Release() {
	if p.buffer != nil {
		p.pool.put(p.buffer)
		p.buffer, p.Body = nil, nil
	}
}

// Open puts the descriptors that came with the packet among Files, whatever
// their kinds are. It is for what a trusted peer sent: the file's own server, if
// it has one, may make Open wait, and the whole process with it.
func (p *Packet) Open() {
	for _, fd := range p.bare {
		p.Files = append(p.Files, os.NewFile(uintptr(fd), "received"))
	}
	p.bare = nil
}

// Descriptors returns how many came with the packet.
func (p *Packet) Descriptors() int { return len(p.Files) + len(p.bare) }

// CloseFiles closes every descriptor that came with the packet. A network or
// FUSE file system may make it wait.
func (p *Packet) CloseFiles() {
	for _, f := range p.Files {
		f.Close()
	}
	for _, fd := range p.bare {
		sys.Close(fd)
	}
	p.Files, p.bare = nil, nil
}

func (p *Packet) appendHeader(b []byte) []byte {
	b = append(b, byte(p.Type), byte(len(p.Files)), 0, 0)
	b = binary.LittleEndian.AppendUint32(b, p.Call)
	b = binary.LittleEndian.AppendUint32(b, p.Value)
	return binary.LittleEndian.AppendUint32(b, p.Op)
}

// parse fills p from a received packet.
func (p *Packet) parse(data, control []byte, flags int) (err error) {
	if len(control) > 0 {
		p.bare, err = sys.Rights(control)
	}
	switch {
	case err != nil:
		return &ProtocolError{"unknown control message"}
	case len(p.bare) > maxFiles:
		return &ProtocolError{"more descriptors than any message may carry"}
	case flags&sys.Truncated != 0:
		return &ProtocolError{"packet larger than any message may be"}
	case flags&sys.ControlTruncated != 0:
		return &ProtocolError{"descriptors were lost on the way"}
	case len(data)+len(control) == 0:
		return io.EOF // an empty packet looks the same; nobody lawful sends one
	}
	return p.parseHeader(data)
}

func (p *Packet) parseHeader(b []byte) error {
	switch {
	case len(b) < headerSize:
		return &ProtocolError{"packet shorter than its header"}
	case !Type(b[0]).valid():
		return &ProtocolError{"unknown packet type"}
	case int(b[1]) != len(p.bare):
		return &ProtocolError{"number of descriptors is not the number announced"}
	case b[2] != 0 || b[3] != 0:
		return &ProtocolError{"reserved header bytes are not zero"}
	}
	p.Type = Type(b[0])
	p.Call = binary.LittleEndian.Uint32(b[4:])
	p.Value = binary.LittleEndian.Uint32(b[8:])
	p.Op = binary.LittleEndian.Uint32(b[12:])
	p.Body = b[headerSize:]
	return nil
}

// A ProtocolError is a message that a peer which follows this package cannot
// send. The connection is unusable after it.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return "ipc: " + e.Reason }
