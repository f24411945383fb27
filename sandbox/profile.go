package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/seccomp"
)

// A Profile says what a worker keeps. The zero Profile keeps nothing: no user
// but nobody's, no root directory, no path, no network, no capability, and the
// system calls of the Go runtime only.
//
// There is no way to keep a capability, uid 0, or a network: what needs them
// is an operation of the monitor's, which hands over its result.
type Profile struct {
	// UID and GID are the worker's user and group. Zero: nobody's, 65534.
	UID uint32
	GID uint32

	// Groups are the supplementary groups, at most 64. Zero: none.
	Groups []uint32

	// Root is the directory that becomes the worker's root, an absolute
	// path that is opened as UID. Zero: a directory that no longer exists,
	// in which nothing can ever be created. Either is also the working
	// directory, which is all that is left of it where it may be missing.
	Root string

	// Read and Write are the paths beneath Root that the worker may read,
	// and may also write, absolute, at most 16 each. Zero: none. Nothing is
	// ever executable.
	Read  []string
	Write []string

	// Open are files that the worker has open to read from its first moment,
	// at most 16, by absolute paths of the host's; links are followed. They
	// are opened while it is still the monitor's user, so they may be files
	// that UID may not open, and the worker needs no path for them. A file
	// that is replaced later is another file. Zero: none.
	Open []string

	// Promises are the system calls that the worker keeps. Zero: what the
	// Go runtime and the channel need.
	Promises seccomp.Promises

	// OpenFiles is the largest number of descriptors. Zero: 64.
	OpenFiles uint32
	// Memory is the size in bytes of everything writable and private
	// (RLIMIT_DATA). It stops accidents, not a worker under hostile control,
	// which can map shared memory, or over what the runtime has reserved.
	// Zero: 512 MiB. The Go runtime needs 64 MiB; with cgo each of its
	// threads takes 8 MiB more, and one too many is the worker's end.
	Memory uint64
	// FileSize is the largest size in bytes of a file that the worker
	// writes. Zero: it writes no file.
	FileSize uint64

	// Umask are the permission bits that files which the worker creates never
	// have. Zero: 077.
	Umask uint32

	// Without are the mechanisms that may be missing on this host. Zero:
	// none may.
	Without Mechanisms
}

const nobody = 65534

func (p *Profile) uid() int { return orDefault(int(p.UID), nobody) }
func (p *Profile) gid() int { return orDefault(int(p.GID), nobody) }

func orDefault[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}

// Validate reports what makes p impossible on any host.
func (p *Profile) Validate() error {
	if p.Root != "" && !cleanAbsolute(p.Root) {
		return fmt.Errorf("sandbox: root %q is not a clean absolute path", p.Root)
	}
	if p.Root == "/" {
		return errors.New("sandbox: root is the host's own: name a directory, or none")
	}
	for _, path := range slices.Concat(p.Read, p.Write, p.Open) {
		if !cleanAbsolute(path) {
			return fmt.Errorf("sandbox: path %q is not a clean absolute path", path)
		}
	}
	if len(p.Groups) > 64 || len(p.Read) > 16 || len(p.Write) > 16 || len(p.Open) > 16 {
		return errors.New("sandbox: at most 64 groups and 16 paths of each kind")
	}
	for _, g := range p.Groups {
		if g == 0 {
			return errors.New("sandbox: group 0 owns too much of the host to be kept")
		}
	}
	const unchanged = 1<<32 - 1 // to setresuid(2), so the user would be the launcher's
	if p.UID == unchanged || p.GID == unchanged || slices.Contains(p.Groups, unchanged) {
		return errors.New("sandbox: 4294967295 is no user and no group")
	}
	return nil
}

// OpenFirst opens the files of Open, in its order. A worker calls it before
// Enter, and owns them.
func (p *Profile) OpenFirst() (files []*os.File, err error) {
	for _, path := range p.Open {
		fd, err := sys.OpenRegular(path)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err} // the worker's only way on is to exit
		}
		files = append(files, os.NewFile(uintptr(fd), path))
	}
	return files, nil
}

func cleanAbsolute(path string) bool {
	return filepath.IsAbs(path) && filepath.Clean(path) == path && !strings.ContainsRune(path, 0)
}

// String prints what is kept, on one line; equal profiles print equally, and no
// others do: spares are found by it.
func (p *Profile) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "uid %d gid %d", p.uid(), p.gid())
	for _, part := range []struct {
		format string
		list   any
		n      int
	}{{" groups %d", p.Groups, len(p.Groups)}, {" read %q", p.Read, len(p.Read)}, {" write %q", p.Write, len(p.Write)}, {" open %q", p.Open, len(p.Open)}} {
		if part.n > 0 {
			fmt.Fprintf(&b, part.format, part.list)
		}
	}
	if p.Root == "" {
		b.WriteString(" no-root")
	} else {
		fmt.Fprintf(&b, " root %q", p.Root)
	}
	fmt.Fprintf(&b, " calls %v files %d memory %d filesize %d umask %03o",
		p.Promises, p.openFiles(), p.memory(), p.FileSize, p.umask())
	if p.Without != 0 {
		fmt.Fprintf(&b, " without %v", p.Without)
	}
	return b.String()
}

func (p *Profile) umask() int        { return int(orDefault(p.Umask, 0o077) & 0o777) }
func (p *Profile) openFiles() uint64 { return uint64(orDefault(p.OpenFiles, 64)) }
func (p *Profile) memory() uint64    { return orDefault(p.Memory, 512<<20) }

// Times is p for a worker that serves n sessions: OpenFiles, at most 1048576
// (Linux's fs.nr_open), and Memory are n times as much.
func (p Profile) Times(n int) Profile {
	const most = 1 << 20
	p.OpenFiles = uint32(min(p.openFiles()*uint64(n), most))
	p.Memory = p.memory() * uint64(n)
	return p
}
