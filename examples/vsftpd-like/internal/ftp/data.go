package ftp

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// way is how the next data connection is to be made. It is used once.
type way struct {
	listening bool
	port      uint16 // of the client, if it listens
}

// leastPort: a connection to a lower port may be taken by the service there
// for one of its own kind (the bounce attack, RFC 2577).
const leastPort = 1024

func (e *engine) port(ctx context.Context, arg string) {
	if e.passiveOnly(ctx) || e.refusedAfterAll(ctx) {
		return
	}
	var b [6]byte
	fields := strings.Split(strings.TrimSpace(arg), ",")
	ok := len(fields) == len(b)
	for i := 0; ok && i < len(b); i++ {
		n, err := strconv.ParseUint(strings.TrimSpace(fields[i]), 10, 8)
		b[i], ok = byte(n), err == nil
	}
	if !ok {
		e.reply(ctx, 501, "Not an address and port.")
		return
	}
	e.connectTo(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[:4])), uint16(b[4])<<8|uint16(b[5])))
}

func (e *engine) eprt(ctx context.Context, arg string) {
	if e.passiveOnly(ctx) || e.refusedAfterAll(ctx) {
		return
	}
	arg = strings.TrimSpace(arg)
	fields := []string{}
	if arg != "" {
		fields = strings.Split(arg, arg[:1]) // any character may be the separator
	}
	if len(fields) != 5 || fields[0] != "" || fields[4] != "" {
		e.reply(ctx, 501, "Not an address and port.")
		return
	}
	if fields[1] != e.family() {
		e.wrongFamily(ctx)
		return
	}
	addr, err := netip.ParseAddr(fields[2])
	port, err2 := strconv.ParseUint(fields[3], 10, 16)
	if err != nil || err2 != nil {
		e.reply(ctx, 501, "Not an address and port.")
		return
	}
	e.connectTo(ctx, netip.AddrPortFrom(addr, uint16(port)))
}

// passiveOnly refuses PORT and EPRT with what tells a client to go on with PASV
// or EPSV; a refusal at the transfer would come too late for most.
func (e *engine) passiveOnly(ctx context.Context) bool {
	if e.Config.PassiveOnly {
		e.reply(ctx, 502, "Passive connections only: use EPSV or PASV.")
	}
	return e.Config.PassiveOnly
}

// connectTo lets a client name no address but its own: else the server could
// be made to connect anywhere (the bounce attack, CVE-1999-0017).
func (e *engine) connectTo(ctx context.Context, to netip.AddrPort) {
	if to.Addr().Unmap().WithZone("") != e.Peer.Addr().Unmap().WithZone("") || to.Port() < leastPort {
		e.reply(ctx, 500, "Only to your own address, and a port from 1024 on.")
		return
	}
	e.way = way{port: to.Port()}
	e.reply(ctx, 200, "To be connected.")
}

func (e *engine) pasv(ctx context.Context, _ string) {
	if e.refusedAfterAll(ctx) {
		return
	}
	if e.family() != "1" {
		e.reply(ctx, 425, "PASV is for IPv4; use EPSV.")
		return
	}
	if at, ok := e.listen(ctx); ok {
		a := at.Addr().As4()
		e.reply(ctx, 227, fmt.Sprintf("Entering Passive Mode (%d,%d,%d,%d,%d,%d).", a[0], a[1], a[2], a[3], at.Port()>>8, at.Port()&0xff))
	}
}

func (e *engine) epsv(ctx context.Context, arg string) {
	switch arg = strings.ToUpper(strings.TrimSpace(arg)); arg {
	case "ALL":
		e.epsvAll = true
		e.reply(ctx, 200, "Nothing but EPSV from now on.")
		return
	case "", e.family():
	case "1", "2":
		e.wrongFamily(ctx)
		return
	default:
		e.reply(ctx, 501, "Not a protocol.")
		return
	}
	if at, ok := e.listen(ctx); ok {
		e.reply(ctx, 229, fmt.Sprintf("Entering Extended Passive Mode (|||%d|).", at.Port()))
	}
}

func (e *engine) listen(ctx context.Context) (netip.AddrPort, bool) {
	e.way = way{}
	at, err := e.Data.Listen(ctx)
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if err != nil || !at.IsValid() || at.Addr().Is4() != (e.family() == "1") {
		e.reply(ctx, 425, "No port to listen on.")
		return at, false
	}
	e.way = way{listening: true}
	return at, true
}

// refusedAfterAll: who has said EPSV ALL sits behind a translator that has
// stopped to look (RFC 2428, section 4).
func (e *engine) refusedAfterAll(ctx context.Context) bool {
	if e.epsvAll {
		e.reply(ctx, 503, "You said EPSV ALL.")
	}
	return e.epsvAll
}

// family is the number that RFC 2428 has for the control connection's protocol.
func (e *engine) family() string {
	if e.Peer.Addr().Unmap().Is4() {
		return "1"
	}
	return "2"
}

func (e *engine) wrongFamily(ctx context.Context) {
	e.reply(ctx, 522, "Network protocol not supported, use ("+e.family()+")")
}

// connect makes the data connection that w says.
func (e *engine) connect(ctx context.Context, w way) (*os.File, error) {
	timeout := orDefault(e.Config.ConnectTimeout, 60*time.Second)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errNoConnection)
	defer cancel()
	var conn *os.File
	var err error
	if w.listening {
		conn, err = e.Data.Accept(ctx)
	} else {
		conn, err = e.Data.Connect(ctx, w.port)
	}
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, errNoConnection
}
