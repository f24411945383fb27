// Package listing writes directory entries as FTP clients read them: LIST in
// the form of ls -l, NLST as names, MLSD and MLST as the facts of RFC 3659.
//
// What you get: a listing of any length in constant memory, each line whole,
// no line that a file's name made up. What it costs: entries come in the
// directory's own order, since sorting needs them all at once. Times are UTC.
//
// Where a name holds a byte that can't be sent in a line (CR, LF), LIST shows a
// question mark, because people read it; NLST and MLSD leave the entry out,
// because programs send the names back and no command could name this one.
// LIST shows every other control character as a question mark too. Where a link
// leads is not shown: it may be a path outside the root, and nobody needs it.
//
// Nothing here opens a file or knows an account.
package listing

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// Style is how entries are shown, and to whom.
type Style struct {
	Now     time.Time // what is recent, in LIST; the zero time shows years only
	HideIDs bool      // owner and group are shown as ftp
	Viewer  Viewer
}

// Viewer is whom the perm fact speaks about; the zero Viewer is root without
// its powers. It is advice for the client's
// buttons; the kernel decides.
type Viewer struct {
	UID      uint32
	GIDs     []uint32
	ReadOnly bool
	Parent   bool // the directory that holds the entry may be written
}

// Valid reports whether name can stand in a line that a program reads.
func Valid(name string) bool { return name != "" && !strings.ContainsAny(name, "\r\n\x00") }

// Long appends the entry as a line of ls -l, CRLF included. It is never empty.
func Long(dst []byte, i files.Info, s Style) []byte {
	dst = mode(dst, i.Mode)
	dst = number(dst, uint64(i.Links), 5)
	if s.HideIDs {
		dst = append(dst, " ftp      ftp     "...)
	} else {
		dst = append(left(append(dst, ' '), uint64(i.UID), 8), ' ')
		dst = left(dst, uint64(i.GID), 8)
	}
	dst = number(dst, uint64(max(i.Size, 0)), 13)
	// The C locale's form, as ls does it: the year where the time of day says
	// nothing, which is half a year back or more, or any time ahead.
	at := clock(i.ModTime)
	if age := s.Now.Sub(at); age >= 0 && age < 31556952/2*time.Second {
		dst = at.AppendFormat(dst, " Jan _2 15:04 ")
	} else {
		dst = at.AppendFormat(dst, " Jan _2  2006 ")
	}
	for _, c := range []byte(i.Name) {
		if c < ' ' || c == 0x7f {
			c = '?'
		}
		dst = append(dst, c)
	}
	return append(dst, "\r\n"...)
}

// Name appends the name as a line, or nothing if no line can hold it.
func Name(dst []byte, name string) []byte {
	if !Valid(name) {
		return dst
	}
	return append(append(dst, name...), "\r\n"...)
}

// Machine appends the entry as a line of MLSD, or nothing if no line can hold
// its name.
func Machine(dst []byte, i files.Info, f files.Facts, s Style) []byte {
	if !Valid(i.Name) {
		return dst
	}
	dst = Facts(dst, i, f, s)
	return append(append(append(dst, ' '), i.Name...), "\r\n"...)
}

// Facts appends what an MLST reply has before the space and the path. Each
// fact ends with a semicolon, as RFC 3659 section 7.2 has it.
func Facts(dst []byte, i files.Info, f files.Facts, s Style) []byte {
	if f&files.FactType != 0 {
		dst = append(append(append(dst, "type="...), kind(i.Mode)...), ';')
	}
	if f&files.FactSize != 0 && i.IsRegular() {
		dst = append(strconv.AppendInt(append(dst, "size="...), max(i.Size, 0), 10), ';')
	}
	if f&files.FactModify != 0 {
		dst = append(clock(i.ModTime).AppendFormat(append(dst, "modify="...), "20060102150405"), ';')
	}
	if f&files.FactPerm != 0 {
		dst = append(perm(append(dst, "perm="...), i, s.Viewer), ';')
	}
	if f&files.FactUnique != 0 {
		dst = strconv.AppendUint(append(dst, "unique="...), i.Device, 16)
		dst = append(strconv.AppendUint(append(dst, 'g'), i.Inode, 16), ';')
	}
	if f&files.FactUnixMode != 0 {
		m := i.Mode & 0o7777
		dst = append(dst, "UNIX.mode="...)
		dst = append(dst, '0'+byte(m>>9), '0'+byte(m>>6&7), '0'+byte(m>>3&7), '0'+byte(m&7), ';')
	}
	if f&files.FactUnixOwner != 0 && !s.HideIDs {
		dst = append(strconv.AppendUint(append(dst, "UNIX.owner="...), uint64(i.UID), 10), ';')
	}
	if f&files.FactUnixGroup != 0 && !s.HideIDs {
		dst = append(strconv.AppendUint(append(dst, "UNIX.group="...), uint64(i.GID), 10), ';')
	}
	return dst
}

// clock keeps years within the four digits that both forms have room for: a
// file system may hold any number.
func clock(seconds int64) time.Time {
	const year9999 = 253402300799
	return time.Unix(min(max(seconds, 0), year9999), 0).UTC()
}

// kind is the type fact. OS.unix=slink is what clients know for a link
// (RFC 3659 section 7.5.1.5 leaves the words to each system).
func kind(mode uint32) string {
	switch mode & files.ModeType {
	case files.ModeRegular:
		return "file"
	case files.ModeDir:
		return "dir"
	case files.ModeLink:
		return "OS.unix=slink"
	case files.ModeChar:
		return "OS.unix=chr"
	case files.ModeBlock:
		return "OS.unix=blk"
	case files.ModeFIFO:
		return "OS.unix=fifo"
	case files.ModeSocket:
		return "OS.unix=socket"
	}
	return "OS.unix=unknown"
}

// rights are the rwx bits that hold for v: the first class that fits, as in
// path_resolution(7).
func (v Viewer) rights(i files.Info) uint32 {
	switch {
	case i.UID == v.UID:
		return i.Mode >> 6 & 7
	case slices.Contains(v.GIDs, i.GID):
		return i.Mode >> 3 & 7
	}
	return i.Mode & 7
}

// Writable reports whether names in the directory dir can be made and removed:
// it is what [Viewer].Parent of its entries is.
func Writable(dir files.Info, v Viewer) bool { return v.rights(dir)&3 == 3 && !v.ReadOnly }

// perm appends the letters of RFC 3659 section 7.5.5.
func perm(dst []byte, i files.Info, v Viewer) []byte {
	bits := v.rights(i)
	read, write, exec := bits&4 != 0, bits&2 != 0 && !v.ReadOnly, bits&1 != 0
	put := func(ok bool, letters string) {
		if ok {
			dst = append(dst, letters...)
		}
	}
	switch {
	case i.IsRegular():
		put(write, "a")
		put(v.Parent && !v.ReadOnly, "df")
		put(read, "r")
		put(write, "w")
	case i.IsDir():
		put(write && exec, "c")
		put(v.Parent && !v.ReadOnly, "d")
		put(exec, "e")
		put(v.Parent && !v.ReadOnly, "f")
		put(read, "l")
		put(write && exec, "mp")
	default: // never opened, but a name like any other
		put(v.Parent && !v.ReadOnly, "df")
	}
	return dst
}

// mode appends the ten characters of ls -l.
func mode(dst []byte, m uint32) []byte {
	c := byte('?')
	switch m & files.ModeType {
	case files.ModeRegular:
		c = '-'
	case files.ModeDir:
		c = 'd'
	case files.ModeLink:
		c = 'l'
	case files.ModeChar:
		c = 'c'
	case files.ModeBlock:
		c = 'b'
	case files.ModeFIFO:
		c = 'p'
	case files.ModeSocket:
		c = 's'
	}
	dst = append(dst, c)
	for i := range 9 {
		if m>>(8-i)&1 != 0 {
			dst = append(dst, "rwx"[i%3])
		} else {
			dst = append(dst, '-')
		}
	}
	for i, special := range [3]struct {
		bit        uint32
		with, bare byte
	}{{0o4000, 's', 'S'}, {0o2000, 's', 'S'}, {0o1000, 't', 'T'}} {
		if m&special.bit == 0 {
			continue
		}
		at := &dst[len(dst)-7+3*i]
		if *at == 'x' {
			*at = special.with
		} else {
			*at = special.bare
		}
	}
	return dst
}

// number appends v right-aligned in width, always after a space.
func number(dst []byte, v uint64, width int) []byte {
	var b [20]byte
	digits := strconv.AppendUint(b[:0], v, 10)
	dst = append(dst, ' ')
	for range width - 1 - len(digits) {
		dst = append(dst, ' ')
	}
	return append(dst, digits...)
}

// left appends v left-aligned in width.
func left(dst []byte, v uint64, width int) []byte {
	n := len(dst)
	dst = strconv.AppendUint(dst, v, 10)
	for len(dst)-n < width {
		dst = append(dst, ' ')
	}
	return dst
}
