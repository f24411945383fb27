package privsep

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/ipc"
)

// exitGrace is how long a worker that closed its channel may take to exit, and
// a session in a shared worker to end.
const exitGrace = 5 * time.Second

// A seat is one session's place in a worker: a process of its own, or one of
// the sessions of a host.
type seat struct {
	p    *process
	conn *ipc.Conn     // the session's own channel
	gone chan struct{} // closed when the process, or the role's Main for this session, has ended

	host   *host // nil: the process is this session's own
	number uint32
	ending bool  // under the host's lock
	err    error // how it ended, once it is gone
}

// end ends the session's part of the worker, and blames nobody. It doesn't wait.
func (s *seat) end() {
	if s.host == nil {
		s.p.kill()
		return
	}
	s.host.end(s)
}

// blame ends the worker, and with it every session that it serves, because of
// what this one did.
func (s *seat) blame(why error) {
	if s.host != nil {
		s.host.blame(why)
	} else {
		s.p.kill()
	}
}

// exitError classifies the end of a seat that is gone; nil for a good one.
func (s *seat) exitError() error {
	if s.host == nil {
		return s.p.exitError()
	}
	return s.err
}

// release frees what the monitor held of a seat that is gone.
func (s *seat) release() {
	s.conn.Close()
	if s.host == nil {
		s.p.release()
	}
}

// bury ends s and frees what is left of it.
func (s *seat) bury() {
	s.end()
	<-s.gone
	s.release()
}

// isViolation reports whether err is something that an uncompromised worker
// can't do.
func isViolation(err error) bool {
	var violation *ViolationError
	var protocol *ipc.ProtocolError
	return errors.As(err, &violation) || errors.As(err, &protocol)
}

// failed is the error of a session whose Main returned one. The words are the
// worker's.
func (s *seat) failed(words []byte) error {
	const one syscall.WaitStatus = 1 << 8 // as if it had exited with 1
	return &ExitError{
		Role: s.p.role, PID: s.p.pid, Class: Failed, Status: one,
		Output: strconv.Quote(string(words[:min(len(words), outputSize)])),
	}
}
