package transfer

import "bytes"

// editor passes whole lines through edit. A line is at most as long as its
// writer makes it; here the writer is the server's own files worker, whose
// lines hold one name, so what is held back is bounded by cutting there.
type editor struct {
	edit      func(out, line []byte) []byte
	held, out []byte
}

// maxHeld is more than any line of a listing: a name's 255 bytes and its columns.
const maxHeld = 4096

func (e *editor) convert(in []byte, ended bool) []byte {
	e.out = e.out[:0]
	for {
		i := bytes.IndexByte(in, '\n') + 1
		if i == 0 {
			break
		}
		line := in[:i]
		if len(e.held) > 0 {
			e.held = append(e.held, line...)
			line = e.held
		}
		e.out = e.edit(e.out, line)
		e.held = e.held[:0]
		in = in[i:]
	}
	e.held = append(e.held, in...)
	if len(e.held) > 0 && (ended || len(e.held) > maxHeld) {
		e.out = e.edit(e.out, e.held)
		e.held = e.held[:0]
	}
	return e.out
}
