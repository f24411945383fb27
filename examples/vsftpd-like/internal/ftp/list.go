package ftp

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

// found is what a listing will show.
type found struct {
	path  string
	o     files.ListOptions
	entry []byte                        // if path is no directory: its line
	edit  func(out, line []byte) []byte // what to make of each line; nil for as it is
}

// find looks up what the argument of LIST, NLST or STAT names: a directory, a
// file, or, if nothing has that name, the names that fit a pattern in its last
// element.
func (e *engine) find(ctx context.Context, arg string, o files.ListOptions) (found, error) {
	o.All, arg = listArg(arg)
	prefix := ""
	if o.Format == files.Names {
		prefix = arg
	}
	p, err := resolve(e.dir, arg)
	if err != nil {
		return found{}, err
	}
	i, err := e.files.Stat(ctx, p)
	dir, pattern := split(arg)
	switch {
	case err == nil && i.IsDir():
		pattern = ""
	case err == nil && o.Format == files.Names:
		return found{path: p, o: o, entry: listing.Name(nil, arg)}, nil
	case err == nil:
		return found{path: p, o: o, entry: listing.Long(nil, i, e.style())}, nil
	case pattern != "" && errors.Is(err, fs.ErrNotExist):
		if p, err = resolve(e.dir, dir); err != nil {
			return found{}, err
		}
		if prefix != "" {
			prefix = dir
		}
		o.All = o.All || strings.HasPrefix(pattern, ".")
	default:
		return found{}, err
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	l := found{path: p, o: o}
	if prefix != "" || pattern != "" {
		l.edit = func(out, line []byte) []byte {
			if pattern != "" {
				// Match has no backtracking over more than one star, so no
				// pattern is dear (CVE-2011-0762 was vsftpd's).
				if ok, err := path.Match(pattern, nameIn(line, o.Format)); !ok || err != nil {
					return out
				}
			}
			return append(append(out, prefix...), line...)
		}
	}
	return l, nil
}

// nameIn finds the name in a line of package listing: after the one space
// behind the eighth column, where the line has columns.
func nameIn(line []byte, f files.Format) string {
	line = bytes.TrimSuffix(line, []byte("\r\n"))
	if f == files.Long {
		for range 8 {
			line = bytes.TrimLeft(line, " ")
			line = line[max(0, bytes.IndexByte(line, ' ')):]
		}
		line = bytes.TrimPrefix(line, []byte(" "))
	}
	return string(line)
}

func (e *engine) list(ctx context.Context, arg string) {
	e.listing(ctx, "LIST", arg, files.ListOptions{Format: files.Long})
}

func (e *engine) nlst(ctx context.Context, arg string) {
	e.listing(ctx, "NLST", arg, files.ListOptions{Format: files.Names})
}

func (e *engine) listing(ctx context.Context, verb, arg string, o files.ListOptions) {
	if !e.ready(ctx) {
		return
	}
	l, err := e.find(ctx, arg, o)
	if err != nil {
		e.refuse(ctx, err)
		return
	}
	e.sendListing(ctx, verb, l)
}

func (e *engine) mlsd(ctx context.Context, p string) {
	if !e.ready(ctx) {
		return
	}
	i, err := e.files.Stat(ctx, p)
	switch {
	case err != nil:
		e.refuse(ctx, err)
	case !i.IsDir():
		e.reply(ctx, 501, "Not a directory.")
	default:
		e.sendListing(ctx, "MLSD", found{path: p, o: files.ListOptions{Format: files.Machine, Facts: e.facts, All: true}})
	}
}

func (e *engine) sendListing(ctx context.Context, verb string, l found) {
	e.start(ctx, job{verb: verb, path: l.path, says: "Here comes the listing.", move: func(ctx context.Context, conn *os.File) (int64, error) {
		if l.entry == nil {
			return e.listTo(ctx, l, func(r *os.File) (int64, error) { return e.mover.Copy(ctx, conn, r, l.edit) })
		}
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		defer r.Close()
		w.Write(l.entry) // less than any pipe holds
		w.Close()
		return e.mover.Copy(ctx, conn, r, nil)
	}})
}

// errCut ends a listing of which enough was read.
var errCut = errors.New("ftp: listing cut")

// listTo runs take on the pipe that Files writes the listing to, and returns
// when both are done. If both fail, the one that was first is to blame: without
// its reader the writer fails too.
func (e *engine) listTo(ctx context.Context, l found, take func(r *os.File) (int64, error)) (int64, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	listed := make(chan error, 1)
	go func() {
		err := e.files.List(inner, l.path, l.o, w)
		w.Close()
		listed <- err
	}()
	n, err := take(r)
	r.Close()
	if err != nil {
		cancel()
		<-listed
		return n, err
	}
	return n, <-listed
}
