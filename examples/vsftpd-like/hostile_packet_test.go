//go:build linux

package main

import (
	wire "encoding/binary"
	"hash/fnv"
	"time"

	"golang.org/x/sys/unix"
)

// A frame is a packet as ipc/packet.go lays it out, with nothing made right by
// itself.
type frame struct {
	kind, files     byte
	reserved        uint16
	call, value, op uint32
	body            []byte
}

const (
	request = 2
	cancel  = 4
	record  = 8
	reply   = 3
	refusal = 5
	second  = 1000 // of a frame's value
)

func (f frame) bytes() []byte {
	b := []byte{f.kind, f.files}
	b = wire.LittleEndian.AppendUint16(b, f.reserved)
	for _, word := range []uint32{f.call, f.value, f.op} {
		b = wire.LittleEndian.AppendUint32(b, word)
	}
	return append(b, f.body...)
}

// opNumber is what privsep makes of an operation's name.
func opNumber(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return h.Sum32()
}

// monitorChannel finds the channel to the monitor among the worker's
// descriptors: the connection within this host that nobody handed over.
func (a *attacker) monitorChannel() int {
	for fd := 3; fd < 64; fd++ {
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err == nil && domain == unix.AF_UNIX && (len(a.files) == 0 || fd != int(fdOf(a.files[0]))) {
			return fd
		}
	}
	panic("no channel")
}

// seize takes the channel to the monitor away from the library's code.
func (a *attacker) seize() {
	fd, err := unix.FcntlInt(uintptr(a.monitorChannel()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	a.worker.Close()
	a.channel, a.last = fd, 0
}

// put sends bytes as one packet, and waits while the other side's queue is
// full. It reports whether there still is another side.
func (a *attacker) put(data []byte, fds ...int) bool {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		switch err := unix.Sendmsg(a.channel, data, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err {
		case nil:
			return true
		case unix.EAGAIN, unix.EINTR:
			a.poll(unix.POLLOUT, 10*time.Millisecond)
		case unix.ETOOMANYREFS: // other attackers, who are the same user, have many under way
			time.Sleep(time.Millisecond)
		case unix.EPIPE, unix.ECONNRESET:
			return false
		default:
			panic(err)
		}
	}
}

// poll waits for events, or reports that there was none within the limit. The
// runtime's signals interrupt a wait.
func (a *attacker) poll(events int16, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; {
		ts := unix.NsecToTimespec(max(0, time.Until(end)).Nanoseconds())
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(a.channel), Events: events}}, &ts, nil)
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// send is put for a frame.
func (a *attacker) send(f frame, fds ...int) bool { return a.put(f.bytes(), fds...) }

// ask sends a request as a lawful worker would number it.
func (a *attacker) ask(op string, body []byte, fds ...int) bool {
	a.last++
	return a.send(frame{kind: request, files: byte(len(fds)), call: a.last, value: 60 * second, op: opNumber(op), body: body}, fds...)
}

// take receives a packet, or reports that none came.
func (a *attacker) take(limit time.Duration) (f frame, fds []int, ok bool) {
	if !a.poll(unix.POLLIN, limit) {
		return f, nil, false
	}
	data, oob := make([]byte, 8192), make([]byte, unix.CmsgSpace(16*4))
	n, oobn, _, _, err := unix.RecvmsgBuffers(a.channel, [][]byte{data}, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if err != nil || n < 16 {
		return f, nil, false
	}
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		fds, _ = unix.ParseUnixRights(&messages[0])
	}
	word := func(at int) uint32 { return wire.LittleEndian.Uint32(data[at:]) }
	return frame{data[0], data[1], 0, word(4), word(8), word(12), data[16:n]}, fds, true
}

// answer is the next packet, in a word.
func (a *attacker) answer() string {
	switch f, _, ok := a.take(30 * time.Second); {
	case !ok:
		return "no answer"
	case f.kind == reply:
		return "ok"
	case f.kind == refusal:
		return errnoName(unix.Errno(f.value))
	}
	return "no answer to a call"
}

// logIn makes the session one of phase authed, and returns the descriptor of
// the channel to its files worker.
func (a *attacker) logIn() int {
	a.ask("login", object(field{"User", str("anonymous")}, field{"Password", str("x")}))
	f, fds, ok := a.take(30 * time.Second)
	if !ok || f.kind != reply || len(fds) != 1 {
		panic("no login")
	}
	return fds[0]
}

// The parts of a msgpack message, right or wrong.

type field struct {
	key   string
	value []byte
}

func str(s string) []byte {
	if len(s) < 32 {
		return append([]byte{0xa0 | byte(len(s))}, s...)
	}
	return append([]byte{0xd9, byte(len(s))}, s...)
}

func octets(b []byte) []byte {
	if len(b) < 256 {
		return append([]byte{0xc4, byte(len(b))}, b...)
	}
	return append([]byte{0xc5, byte(len(b) >> 8), byte(len(b))}, b...)
}

func object(fields ...field) []byte { return claim(len(fields), fields...) }

// claim is an object that says how many fields it has.
func claim(n int, fields ...field) []byte {
	b := []byte{0x80 | byte(n)}
	for _, f := range fields {
		b = append(append(b, str(f.key)...), f.value...)
	}
	return b
}
