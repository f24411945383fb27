package ftp

import (
	"context"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

func (e *engine) pwd(ctx context.Context, _ string) {
	e.reply(ctx, 257, quote(e.dir)+" is the working directory.")
}

func (e *engine) cdup(ctx context.Context, _ string) { e.cwdTo(ctx, path.Dir(e.dir)) }

func (e *engine) cwdTo(ctx context.Context, p string) {
	i, err := e.files.Stat(ctx, p)
	if err == nil && !i.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	e.dir = p
	e.reply(ctx, 250, "Working directory changed.")
}

// regular describes what RETR would send; anything else it refuses.
func (e *engine) regular(ctx context.Context, p string) (files.Info, bool) {
	i, err := e.files.Stat(ctx, p)
	switch {
	case err != nil:
		e.refuse(ctx, err)
	case !i.IsRegular():
		e.reply(ctx, 550, "Not a regular file.")
	default:
		return i, true
	}
	return i, false
}

func (e *engine) size(ctx context.Context, p string) {
	if e.text() {
		e.reply(ctx, 550, "Not known in ASCII; TYPE I first.")
		return
	}
	if i, ok := e.regular(ctx, p); ok {
		e.reply(ctx, 213, strconv.FormatInt(i.Size, 10))
	}
}

func (e *engine) mdtm(ctx context.Context, p string) {
	if i, ok := e.regular(ctx, p); ok {
		e.reply(ctx, 213, time.Unix(i.ModTime, 0).UTC().Format("20060102150405"))
	}
}

func (e *engine) mlst(ctx context.Context, p string) {
	i, err := e.files.Stat(ctx, p)
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	style := e.style()
	if parent, err := e.files.Stat(ctx, path.Dir(p)); err == nil && p != "/" {
		style.Viewer.Parent = listing.Writable(parent, style.Viewer)
	}
	e.reply(ctx, 250, "Facts:", string(listing.Facts(nil, i, e.facts, style))+" "+p, "End")
}

func (e *engine) style() listing.Style {
	return listing.Style{Now: time.Now(), HideIDs: e.info.HideIDs, Viewer: e.info.Viewer}
}

func (e *engine) mkd(ctx context.Context, p string) {
	if err := e.files.Mkdir(ctx, p); err != nil {
		e.refuse(ctx, err)
		return
	}
	e.reply(ctx, 257, quote(p)+" created.")
}

// done answers a command that has changed something, or has not.
func (e *engine) done(ctx context.Context, err error) {
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	e.reply(ctx, 250, "Done.")
}

func (e *engine) rmd(ctx context.Context, p string)  { e.done(ctx, e.files.Rmdir(ctx, p)) }
func (e *engine) dele(ctx context.Context, p string) { e.done(ctx, e.files.Remove(ctx, p)) }

func (e *engine) rnfr(ctx context.Context, p string) {
	if _, err := e.files.Stat(ctx, p); err != nil {
		e.refuse(ctx, err)
		return
	}
	e.renameFrom = p
	e.reply(ctx, 350, "RNTO now.")
}

func (e *engine) rnto(ctx context.Context, p string) {
	from := e.renameFrom
	e.renameFrom = ""
	if from == "" {
		e.reply(ctx, 503, "RNFR first.")
		return
	}
	e.done(ctx, e.files.Rename(ctx, from, p))
}

// stat tells about the session, or lists a path in the reply: the only listing
// that needs no data connection.
func (e *engine) stat(ctx context.Context, arg string) {
	if arg == "" {
		e.reply(ctx, 211, e.status()...)
		return
	}
	if e.files == nil {
		e.reply(ctx, 530, "Log in with USER and PASS.")
		return
	}
	l, err := e.find(ctx, arg, files.ListOptions{Format: files.Long})
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	code := 213
	if l.entry == nil {
		code = 212
	}
	text, err := e.inReply(ctx, l)
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	lines := strings.Split(strings.TrimSuffix(text, "\r\n"), "\r\n")
	if text == "" {
		lines = nil
	}
	e.reply(ctx, code, append(append([]string{"Status:"}, lines...), "End")...)
}

// maxStatus bounds a listing that is held in memory.
const maxStatus = 64 << 10

// inReply returns a listing, cut at maxStatus.
func (e *engine) inReply(ctx context.Context, l found) (string, error) {
	if l.entry != nil {
		return string(l.entry), nil
	}
	var b []byte
	_, err := e.listTo(ctx, l, func(r *os.File) (int64, error) {
		var err error
		r.SetReadDeadline(time.Now().Add(orDefault(e.Config.ReplyTimeout, 60*time.Second)))
		b, err = io.ReadAll(io.LimitReader(r, maxStatus+1))
		if err == nil && len(b) > maxStatus {
			err = errCut
		}
		return int64(len(b)), err
	})
	if err == errCut {
		return string(b[:strings.LastIndex(string(b), "\n")+1]) + "(and more: use LIST)", nil
	}
	if err == nil && l.edit != nil {
		var out []byte
		for line := range strings.Lines(string(b)) {
			out = l.edit(out, []byte(line))
		}
		b = out
	}
	return string(b), err
}

// status is the reply to STAT alone.
func (e *engine) status() []string {
	lines := []string{"Status:", "Connected to " + e.Peer.Addr().Unmap().String()}
	if e.files == nil {
		lines = append(lines, "Not logged in")
	} else {
		lines = append(lines, "Logged in")
	}
	if e.ascii {
		lines = append(lines, "TYPE: ASCII")
	} else {
		lines = append(lines, "TYPE: binary")
	}
	if r := e.running; r != nil {
		lines = append(lines, r.verb+" "+r.path+": "+strconv.FormatInt(e.mover.Moved(), 10)+" bytes in "+time.Since(r.began).Round(time.Millisecond).String())
	}
	return append(lines, "End")
}
