// Package files holds the words in which the session worker and the files
// worker talk about files. Types only: no file is touched here, so either side
// can import it without the other's code.
//
// Every enumeration has an invalid zero, so a field that was never set, or
// that a hostile peer left empty, names nothing.
package files

// Info describes one file. Asked for by its path, a link is followed where that
// leads to something within the root, else the link itself is described; in a
// listing a link is always itself.
type Info struct {
	Name    string `privsep:"max=255"` // last element of the path, raw bytes
	Size    int64  // bytes
	Mode    uint32 // st_mode: type and permission bits
	ModTime int64  // seconds since 1970, UTC
	UID     uint32
	GID     uint32
	Links   uint32
	Device  uint64
	Inode   uint64
}

// Bits of [Info.Mode], the same on every Linux architecture. They stand here
// because package syscall has them only where the host does.
const (
	ModeType    = 0o170000
	ModeRegular = 0o100000
	ModeDir     = 0o040000
	ModeLink    = 0o120000
	ModeFIFO    = 0o010000
	ModeSocket  = 0o140000
	ModeChar    = 0o020000
	ModeBlock   = 0o060000
)

// IsDir reports whether i is a directory.
func (i Info) IsDir() bool { return i.Mode&ModeType == ModeDir }

// IsRegular reports whether i is a regular file, the only kind ever opened.
func (i Info) IsRegular() bool { return i.Mode&ModeType == ModeRegular }

// IsLink reports whether i is a symbolic link.
func (i Info) IsLink() bool { return i.Mode&ModeType == ModeLink }

// Format is how a listing is written.
type Format uint8

const (
	_       Format = iota
	Long           // LIST: as ls -l
	Names          // NLST: names alone
	Machine        // MLSD: RFC 3659 facts
)

// Valid reports whether f names a format.
func (f Format) Valid() bool { return Long <= f && f <= Machine }

// Facts selects the RFC 3659 facts of a machine listing. The empty set is
// lawful (OPTS MLST with no fact): the line then holds the name alone.
type Facts uint16

const (
	FactType Facts = 1 << iota
	FactSize
	FactModify
	FactPerm
	FactUnique
	FactUnixMode
	FactUnixOwner
	FactUnixGroup

	AllFacts     = FactUnixGroup<<1 - 1
	DefaultFacts = FactType | FactSize | FactModify | FactPerm | FactUnique | FactUnixMode
)

// Valid reports whether f selects known facts only.
func (f Facts) Valid() bool { return f&^AllFacts == 0 }

// ListOptions says how a directory is listed.
type ListOptions struct {
	Format Format
	Facts  Facts // Machine only
	All    bool  // with names that begin with a dot
}

// Valid reports whether o can be carried out.
func (o ListOptions) Valid() bool {
	return o.Format.Valid() && o.Facts.Valid() && (o.Format == Machine || o.Facts == 0)
}

// CreateMode is how a file is opened for writing. It decides what happens to
// the bytes that are there already.
type CreateMode uint8

const (
	_        CreateMode = iota
	Truncate            // STOR: create, or empty what is there
	Append              // APPE: create, or write at the end
	Resume              // STOR after REST: create, keep what is there; the writer seeks
	Unique              // STOU: create under a name that did not exist
)

// Valid reports whether m names a mode.
func (m CreateMode) Valid() bool { return Truncate <= m && m <= Unique }
