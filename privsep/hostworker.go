package privsep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/go-privsep/sallyport/ipc"
)

// maxWords is how much a session's error may say to the monitor, in bytes.
const maxWords = 1 << 10

// guests are the sessions of this process, if it serves more than one.
type guests struct {
	conn    *ipc.Conn // the process's own channel
	role    *Role
	buffers *ipc.Buffers // for the channels of all sessions, as plans are
	plans   planCache

	mu  sync.Mutex
	end map[uint32]context.CancelFunc
}

// serveShared runs role.Main for each session that the monitor begins here,
// until the monitor has no more use for this process.
func serveShared(conn *ipc.Conn, role *Role, packet *ipc.Packet) error {
	runtime.GOMAXPROCS(runtime.NumCPU()) // one session's wait is no other's
	g := &guests{conn: conn, role: role, buffers: ipc.NewBuffers(defaultSize), end: make(map[uint32]context.CancelFunc)}
	for {
		switch {
		case packet.Type == ipc.Start && len(packet.Files) > 0:
			channel, err := ipc.NewConn(packet.Files[0], g.buffers)
			if err != nil {
				return err
			}
			w, err := newWorker(channel, &g.plans, packet, packet.Files[1:])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			g.mu.Lock()
			g.end[packet.Call] = cancel
			g.mu.Unlock()
			go g.serve(ctx, packet.Call, w)
		case packet.Type == ipc.End:
			g.mu.Lock()
			if cancel := g.end[packet.Call]; cancel != nil { // else it has ended meanwhile
				cancel()
			}
			g.mu.Unlock()
			packet.Release()
		default:
			return fmt.Errorf("privsep: %v where a session was expected", packet.Type)
		}
		packet = new(ipc.Packet)
		if err := conn.Receive(packet); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		packet.Open()
	}
}

// serve is one session, and says when it is over. A panic is not caught: it is
// the end of the process, as anywhere.
func (g *guests) serve(ctx context.Context, number uint32, w *Worker) {
	err := g.role.Main(ctx, w)
	g.mu.Lock()
	g.end[number]()
	delete(g.end, number)
	g.mu.Unlock()
	w.Close()
	for _, f := range w.files {
		f.Close()
	}
	ended := ipc.Packet{Type: ipc.Ended, Call: number}
	if err != nil {
		words := err.Error()
		ended.Value, ended.Body = 1, []byte(words[:min(len(words), maxWords)])
	}
	_ = g.conn.Send(context.Background(), enterTimeout, &ended) // it fails if the monitor is gone, and so are we
}
