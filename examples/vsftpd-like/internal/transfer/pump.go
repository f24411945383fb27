package transfer

import (
	"context"
	"io"
	"math"
	"os"
)

// Copy moves a listing: what the pipe src brings, until its writers are gone,
// goes to the connection dst. It returns how many bytes dst took.
//
// If edit isn't nil it is given each line, CRLF included, and appends to out
// what takes its place; it must not keep line.
func (m *Mover) Copy(ctx context.Context, dst, src *os.File, edit func(out, line []byte) []byte) (int64, error) {
	w, err := m.watch(ctx, dst, src)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)
	convert := plain
	if edit != nil {
		convert = (&editor{edit: edit}).convert
	}
	_, err = m.pump(w, m.over(dst), src, toNetwork, convert, unlimited)
	return m.Moved(), err
}

// SendASCII sends the file src from its own position on, with each line's end
// as CRLF. A file whose lines end so already arrives as it is. It returns how
// many bytes dst took.
func (m *Mover) SendASCII(ctx context.Context, dst, src *os.File) (int64, error) {
	w, err := m.watch(ctx, dst)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)
	_, err = m.pump(w, m.over(dst), src, toNetwork, new(toCRLF).convert, unlimited)
	return m.Moved(), err
}

// ReceiveASCII is [Mover.Receive] with each CRLF stored as LF. It returns how
// many bytes src brought.
func (m *Mover) ReceiveASCII(ctx context.Context, dst, src *os.File) (int64, error) {
	w, err := m.watch(ctx, src)
	if err != nil {
		return 0, err
	}
	defer w.end()
	m.moved.Store(0)
	_, err = m.pump(w, dst, m.over(src), fromNetwork, new(fromCRLF).convert, unlimited)
	return m.Moved(), err
}

type direction bool

const (
	toNetwork   direction = true
	fromNetwork direction = false
)

const unlimited = math.MaxInt64

// pump moves what src brings through user space until src ends or has brought
// limit bytes. convert may return a slice that it uses again.
func (m *Mover) pump(w *watch, dst io.Writer, src io.Reader, way direction, convert converter, limit int64) (ended bool, err error) {
	buf := m.buffer()
	for came := int64(0); came < limit; {
		if came >= long && len(buf) < largeBuffer {
			buf = make([]byte, largeBuffer)
		}
		n, err := src.Read(buf)
		ended = err == io.EOF
		if err != nil && !ended {
			return false, w.failed(err, way == fromNetwork)
		}
		if !w.progress() {
			return false, w.network(nil)
		}
		out := convert(buf[:n], ended)
		k, err := dst.Write(out)
		came += int64(n)
		if way == toNetwork || err != nil {
			n = k
		}
		m.moved.Add(int64(n))
		if err != nil {
			return false, w.failed(err, way == toNetwork)
		}
		if ended {
			return true, w.network(nil)
		}
	}
	return false, nil
}
