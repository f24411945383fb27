package ftp

import "io"

// line is one command as the client sent it, or why there is none.
type line struct {
	text    string
	tooLong bool
	waits   bool // the reader does, to be told what to read on from
	err     error
}

// lineReader cuts a control connection into lines and takes the Telnet out of
// it (RFC 854, as far as RFC 959 uses it):
//
//   - IAC IAC is the byte 0xFF; IAC with a command (and an option) is dropped,
//     so that ABOR is found behind the IP and DM that announce it. Of IAC DM
//     sent as urgent data one of the two may be missing: an IAC without a
//     command, and a command without its IAC before a verb, are dropped too.
//   - CR NUL is CR, CR LF and LF end the line.
//
// A line of more than max bytes is read to its end and keeps no byte.
type lineReader struct {
	src io.Reader
	max int

	buf      [1024]byte
	pos, end int

	text  []byte
	long  bool
	cr    bool // a CR that may belong to CR LF or CR NUL
	state byte // 0, or telnetIAC or telnetOption
}

const (
	telnetSE     = 0xF0 // the first of the commands
	telnetWILL   = 0xFB // the first of four with an option
	telnetIAC    = 0xFF
	telnetOption = 1
)

// next returns a line without its end. After an error there is no next line;
// what came of an unfinished one is dropped.
func (r *lineReader) next() (text string, tooLong bool, err error) {
	for {
		for r.pos < r.end {
			b := r.buf[r.pos]
			r.pos++
			if !r.take(b) {
				continue
			}
			text, tooLong = string(r.text), r.long
			r.text, r.long = r.text[:0], false
			return text, tooLong, nil
		}
		n, err := r.src.Read(r.buf[:])
		r.pos, r.end = 0, n
		if n == 0 && err != nil {
			return "", false, err
		}
	}
}

// take looks at one byte and reports whether it ends the line.
func (r *lineReader) take(b byte) bool {
	switch {
	case r.state == telnetOption:
		r.state = 0
		return false
	case r.state == telnetIAC:
		r.state = 0
		switch {
		case b == telnetIAC: // the byte itself
			r.put(b)
			return false
		case b >= telnetWILL:
			r.state = telnetOption
			return false
		case b >= telnetSE:
			return false
		}
	case b == telnetIAC:
		r.state = telnetIAC
		return false
	case b >= telnetSE && len(r.text) == 0 && !r.long:
		return false
	}
	switch {
	case b == '\n':
		r.cr = false
		return true
	case b == 0 && r.cr:
		r.cr = false
		r.append('\r')
	case b == '\r':
		if r.cr {
			r.append('\r')
		}
		r.cr = true
	default:
		r.put(b)
	}
	return false
}

// put adds a byte that is no line's end, and the CR before it.
func (r *lineReader) put(b byte) {
	if r.cr {
		r.cr = false
		r.append('\r')
	}
	r.append(b)
}

func (r *lineReader) append(b byte) {
	if len(r.text) >= r.max {
		r.text, r.long = r.text[:0], true
	}
	if !r.long {
		r.text = append(r.text, b)
	}
}
