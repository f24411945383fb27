package transfer

import "bytes"

// converter turns one piece of a stream into what is passed on. A last call
// with ended set, and no bytes, gives what was held back.
type converter func(in []byte, ended bool) []byte

func plain(in []byte, ended bool) []byte { return in }

// toCRLF puts CR before each LF that has none: as RFC 959's NVT-ASCII wants a
// line's end, and without doubling the CR of a file that has it.
type toCRLF struct {
	afterCR bool
	out     []byte
}

func (c *toCRLF) convert(in []byte, ended bool) []byte {
	c.out = c.out[:0]
	for len(in) > 0 {
		i := bytes.IndexByte(in, '\n')
		if i < 0 {
			c.out = append(c.out, in...)
			c.afterCR = in[len(in)-1] == '\r'
			break
		}
		c.out = append(c.out, in[:i]...)
		if i > 0 {
			c.afterCR = in[i-1] == '\r'
		}
		if !c.afterCR {
			c.out = append(c.out, '\r')
		}
		c.out = append(c.out, '\n')
		c.afterCR = false
		in = in[i+1:]
	}
	return c.out
}

// fromCRLF takes the CR out of each CRLF. Any other CR is content.
type fromCRLF struct {
	held bool // a CR at the end of the last piece
	out  []byte
}

func (c *fromCRLF) convert(in []byte, ended bool) []byte {
	c.out = c.out[:0]
	if c.held && (ended || len(in) > 0) {
		if len(in) == 0 || in[0] != '\n' {
			c.out = append(c.out, '\r')
		}
		c.held = false
	}
	for len(in) > 0 {
		i := bytes.IndexByte(in, '\r')
		if i < 0 {
			c.out = append(c.out, in...)
			break
		}
		c.out = append(c.out, in[:i]...)
		in = in[i+1:]
		switch {
		case len(in) == 0 && !ended:
			c.held = true
		case len(in) == 0 || in[0] != '\n':
			c.out = append(c.out, '\r')
		}
	}
	return c.out
}
