// Package store does the files worker's work: it opens, lists, renames and
// removes what its user names, below one root.
//
// It is not what keeps a user within the root, nor within the user's rights:
// the kernel does, because the worker runs as that user, chrooted into the
// home and under Landlock. [New] adds os.Root's own resolution, which no link
// leaves even without a chroot. What the package itself sees to: nothing but
// regular files is opened, no open ever blocks, a read-only account changes
// nothing, and paths can't climb.
//
// Every error has a [syscall.Errno] inside, so that it can cross to the session
// worker as one. The files handed out belong to the caller.
//
// Nothing about FTP's commands, accounts or sockets may live here.
package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

// maxPath is PATH_MAX, which os.Root would not enforce.
const maxPath = 4096

// Options of a store. The zero value changes nothing and gives new files to
// their owner alone.
type Options struct {
	Writable bool

	// Perm are the permission bits of new files; 0 is 0600. A new directory
	// also gets an x for every r. The process's umask narrows them further:
	// a worker that wants them whole sets its umask to 0 first.
	Perm uint32

	// HideIDs shows owner and group as ftp in listings.
	HideIDs bool

	// UID and GIDs are whom the perm fact of MLSD speaks about.
	UID  uint32
	GIDs []uint32
}

// tree is what *os.Root and a chroot have in common.
type tree interface {
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Stat(name string) (fs.FileInfo, error)
	Lstat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	Remove(name string) error
	Rename(from, to string) error
}

// A Store serves one user's root. Its methods may be called from several
// goroutines. The zero Store is not usable.
type Store struct {
	tree tree
	o    Options
}

// New serves what is below root. The caller closes root, after the last call.
// A link with an absolute target leads nowhere: os.Root takes it for an escape.
func New(root *os.Root, o Options) *Store { return &Store{root, o} }

// NewChrooted serves the process's whole root. It is for a worker whose chroot
// is the user's root: there links with absolute targets work, and a path
// costs one system call where os.Root needs one for each element.
func NewChrooted(o Options) *Store { return &Store{chroot{"/"}, o} }

// Stat describes what the path names; see [files.Info] about links.
func (s *Store) Stat(ctx context.Context, name string) (files.Info, error) {
	rel, err := clean(ctx, name)
	if err != nil {
		return files.Info{}, fail("stat", name, err)
	}
	fi, err := s.tree.Stat(rel)
	if err != nil {
		fi, err = s.tree.Lstat(rel) // a link that leads nowhere is still there
	}
	if err != nil {
		return files.Info{}, fail("stat", name, err)
	}
	return describe(fi, base(rel)), nil
}

// Open opens a regular file for reading. Directories are EISDIR, everything
// else that isn't a regular file EACCES.
func (s *Store) Open(ctx context.Context, name string) (*os.File, files.Info, error) {
	rel, err := clean(ctx, name)
	if err != nil {
		return nil, files.Info{}, fail("open", name, err)
	}
	f, i, err := s.open(rel, os.O_RDONLY, 0)
	if err != nil {
		return nil, files.Info{}, fail("open", name, err)
	}
	return f, i, nil
}

// List writes the directory's entries to w, which stays the caller's and open.
// When ctx ends, a write that waits for the reader ends too, if w can time out.
func (s *Store) List(ctx context.Context, name string, o files.ListOptions, w *os.File) error {
	rel, err := clean(ctx, name)
	if err != nil {
		return fail("list", name, err)
	}
	if !o.Valid() {
		return fail("list", name, syscall.EINVAL)
	}
	dir, err := s.tree.OpenFile(rel, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fail("list", name, err)
	}
	defer dir.Close()
	self, err := dir.Stat()
	if err != nil {
		return fail("list", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = w.SetWriteDeadline(past) })
	defer stop()
	err = listing.Write(w, dir, o, s.style(self), func(fi fs.FileInfo) files.Info { return describe(fi, fi.Name()) }, ctx.Err)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fail("list", name, err)
}

// open opens what must be a regular file. O_NONBLOCK: a FIFO without a peer
// would hang the worker, and a device might act on being opened.
func (s *Store) open(rel string, flag int, perm fs.FileMode) (*os.File, files.Info, error) {
	f, err := s.tree.OpenFile(rel, flag|syscall.O_NONBLOCK|syscall.O_NOCTTY, perm)
	if err != nil {
		return nil, files.Info{}, err
	}
	fi, err := f.Stat()
	switch {
	case err != nil:
	case fi.IsDir():
		err = syscall.EISDIR
	case !fi.Mode().IsRegular():
		err = syscall.EACCES
	default:
		return f, describe(fi, base(rel)), nil
	}
	f.Close()
	return nil, files.Info{}, err
}

// clean makes an FTP path one below the root, "." for the root itself. Dots
// are resolved by the text, so that a/../b is b even where a is a link: the
// client's idea of where it is must hold.
func clean(ctx context.Context, name string) (string, error) {
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case len(name) >= maxPath:
		return "", syscall.ENAMETOOLONG
	case strings.IndexByte(name, 0) >= 0:
		return "", syscall.EINVAL
	}
	if rel := path.Clean("/" + name)[1:]; rel != "" {
		return rel, nil
	}
	return ".", nil
}

// base is the last element of a cleaned path, "/" for the root.
func base(rel string) string { return path.Base(path.Clean("/" + rel)) }

// fail makes err a *fs.PathError with the path as the client named it and an
// errno inside; nil stays nil. What os.Root says without an errno is that a link leaves it.
func fail(op, name string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	errno := syscall.EACCES
	errors.As(err, &errno)
	return &fs.PathError{Op: op, Path: name, Err: errno}
}
