package ftp

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// job is a transfer that is about to start.
type job struct {
	verb, path string
	says       string   // in the 150 reply
	file       *os.File // closed at the end; nil for a listing
	upload     bool
	short      bool // a download that ends at once unless the network is slow
	move       func(ctx context.Context, conn *os.File) (int64, error)
}

// running is the transfer under way. Its goroutine owns the job's file and the
// data connection, and sends one outcome when both are closed.
type running struct {
	job
	began  time.Time
	cancel context.CancelCauseFunc
	done   chan outcome
}

type outcome struct {
	bytes int64
	err   error
}

// ready answers for the client that has not said how to connect.
func (e *engine) ready(ctx context.Context) bool {
	if e.refusedInTheClear(ctx, true) {
		return false
	}
	if e.way == (way{}) {
		e.reply(ctx, 425, "PASV, EPSV, PORT or EPRT first.")
		return false
	}
	return true
}

// start says 150 and lets j run.
func (e *engine) start(ctx context.Context, j job) {
	w := e.way
	e.way, e.rest = way{}, 0
	e.mover.Reset()
	e.add(150, j.says)
	if !j.short {
		e.flush(ctx)
	}
	session := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	r := &running{job: j, began: time.Now(), cancel: cancel, done: make(chan outcome, 1)}
	e.running = r
	go func() {
		var o outcome
		o.bytes, o.err = e.carry(ctx, w, j)
		r.done <- o
	}()
	if j.short {
		e.hold(session, r)
	}
}

// shortest is how many bytes a download may have for its 150 to be held back.
const shortest = 64 << 10

// holding is how long a reply may be held back. A client that connects when it
// has read the 150 sees no more of it than that.
const holding = 2 * time.Millisecond

// hold waits a moment for the end of a transfer, so that its first reply and its
// last go out in one piece: to write to a connection, and to wake who reads it,
// costs as much as the rest of a small file.
func (e *engine) hold(ctx context.Context, r *running) {
	t := time.NewTimer(holding)
	defer t.Stop()
	select {
	case o := <-r.done:
		e.finished(o)
	case <-t.C:
	}
	e.flush(ctx)
}

// carry makes the connection, moves the bytes and closes everything. Without an
// error all of it went well, to the last acknowledgement and to the file's close.
func (e *engine) carry(ctx context.Context, w way, j job) (n int64, err error) {
	if j.file != nil {
		// The close of a written file may bring what a network file system,
		// or a quota, has against it.
		defer func() { err = errors.Join(err, j.file.Close()) }()
	}
	conn, err := e.connect(ctx, w)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	e.mover.Secure = nil
	if e.sec.private {
		if e.mover.Secure, err = e.secureData(ctx, conn); err != nil {
			return 0, err
		}
	}
	n, err = j.move(ctx, conn)
	if err == nil && !j.upload {
		err = e.mover.Finish(ctx, conn)
	} else if err == nil && e.mover.Secure != nil {
		// Who waits for it waits; who doesn't has all that was to be said.
		conn.SetWriteDeadline(time.Now().Add(time.Second))
		e.mover.Secure.CloseWrite()
	}
	return n, err
}

// finished adds the reply to a transfer that has ended, and tells whoever keeps
// the log.
func (e *engine) finished(o outcome) {
	r := e.running
	e.running = nil
	r.cancel(nil)
	code, text := verdict(o.err)
	e.add(code, text)
	if e.Config.Log != nil {
		e.Config.Log(Transfer{r.verb, r.path, o.bytes, time.Since(r.began), code, o.err})
	}
}

// stop ends the transfer under way because of cause. One that was complete
// already is complete.
func (e *engine) stop(cause error) {
	if e.running != nil {
		e.running.cancel(cause)
		e.finished(<-e.running.done)
	}
}

// abor answers for the transfer that it stops and for itself, at once.
func (e *engine) abor(ctx context.Context, _ string) {
	e.stop(errAborted)
	e.reply(ctx, 226, "Nothing is running.")
}

// takeRest returns where the next transfer is to begin, and forgets it: what
// comes of this one, no other begins there.
func (e *engine) takeRest() int64 {
	from := e.rest
	e.rest = 0
	return from
}

func (e *engine) retr(ctx context.Context, p string) {
	from := e.takeRest()
	if !e.ready(ctx) {
		return
	}
	f, i, err := e.files.Open(ctx, p)
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	j := job{verb: "RETR", path: p, file: f}
	if e.text() {
		j.says = "Here comes the text."
		j.move = func(ctx context.Context, conn *os.File) (int64, error) { return e.mover.SendASCII(ctx, conn, f) }
		e.start(ctx, j)
		return
	}
	if from > i.Size {
		f.Close()
		e.reply(ctx, 554, "The file ends before that.")
		return
	}
	// What it was when it was opened: a file that grows meanwhile would else
	// have no end, and SIZE would be wrong.
	n := i.Size - from
	j.says, j.short = "Here come "+bytesOf(n)+".", n <= shortest
	j.move = func(ctx context.Context, conn *os.File) (int64, error) { return e.mover.Send(ctx, conn, f, from, n) }
	e.start(ctx, j)
}

func (e *engine) stor(ctx context.Context, p string) {
	from := e.takeRest()
	mode := files.Truncate
	if from > 0 {
		mode = files.Resume
	}
	e.upload(ctx, "STOR", p, mode, from)
}

func (e *engine) appe(ctx context.Context, p string) {
	e.upload(ctx, "APPE", p, files.Append, e.takeRest())
}

func (e *engine) stou(ctx context.Context, p string) {
	e.takeRest()
	e.upload(ctx, "STOU", p, files.Unique, 0)
}

func (e *engine) upload(ctx context.Context, verb, p string, mode files.CreateMode, from int64) {
	if !e.ready(ctx) {
		return
	}
	f, name, err := e.files.Create(ctx, p, mode)
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	if from > 0 {
		if err := seek(f, mode, from); err != nil {
			f.Close()
			e.reply(ctx, 554, "The file doesn't end there.")
			return
		}
	}
	j := job{verb: verb, path: p, file: f, upload: true, says: "Send it."}
	if mode == files.Unique {
		j.path, j.says = name, "FILE: "+name // RFC 1123, section 4.1.2.9
	}
	move := e.mover.Receive
	if e.text() {
		move = e.mover.ReceiveASCII
	}
	j.move = func(ctx context.Context, conn *os.File) (int64, error) { return move(ctx, f, conn) }
	e.start(ctx, j)
}

// seek moves to where an upload goes on. Behind the file's end it would leave
// a hole that looks like content, and to append anywhere else but at the end
// isn't what the client means.
func seek(f *os.File, mode files.CreateMode, from int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && (from > size || mode == files.Append && from != size) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && mode == files.Resume {
		_, err = f.Seek(from, io.SeekStart)
	}
	return err
}
