package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// maxUnique bounds how many names a Unique create tries.
const maxUnique = 1000

// Create opens a regular file for writing and returns it with the path it has,
// which for [files.Unique] is path.1, path.2 and so on if path is taken, and a
// name of its own in it if path is a directory.
func (s *Store) Create(ctx context.Context, name string, mode files.CreateMode) (*os.File, string, error) {
	rel, err := s.change(ctx, name)
	if err == nil && !mode.Valid() {
		err = syscall.EINVAL
	}
	if err != nil {
		return nil, "", fail("create", name, err)
	}
	if mode == files.Unique {
		f, got, err := s.unique(ctx, rel)
		if err != nil {
			return nil, "", fail("create", name, err)
		}
		return f, "/" + got, nil
	}
	if rel == "." {
		return nil, "", fail("create", name, syscall.EISDIR)
	}
	flag := os.O_WRONLY | os.O_CREATE
	switch mode {
	case files.Truncate:
		flag |= os.O_TRUNC
	case files.Append:
		flag |= os.O_APPEND
	}
	f, _, err := s.open(rel, flag, s.perm())
	if err != nil {
		return nil, "", fail("create", name, err)
	}
	return f, "/" + rel, nil
}

// unique relies on O_EXCL alone, so two clients never get the same file.
func (s *Store) unique(ctx context.Context, rel string) (*os.File, string, error) {
	if fi, err := s.tree.Stat(rel); err == nil && fi.IsDir() {
		rel = path.Join(rel, "ftp")
	}
	for n := range maxUnique {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		try := rel
		if n > 0 {
			try += "." + strconv.Itoa(n)
		}
		f, _, err := s.open(try, os.O_WRONLY|os.O_CREATE|os.O_EXCL, s.perm())
		if err == nil || !errors.Is(err, syscall.EEXIST) {
			return f, try, err
		}
	}
	return nil, "", syscall.EEXIST
}

// Mkdir makes one directory.
func (s *Store) Mkdir(ctx context.Context, name string) error {
	rel, err := s.change(ctx, name)
	switch {
	case err != nil:
	case rel == ".":
		err = syscall.EEXIST
	default:
		perm := s.perm()
		err = s.tree.Mkdir(rel, perm|perm>>2&0o111)
	}
	return fail("mkdir", name, err)
}

// Rmdir removes an empty directory; anything else is ENOTDIR.
func (s *Store) Rmdir(ctx context.Context, name string) error {
	return s.remove(ctx, "rmdir", name, true)
}

// Remove removes a file, a link, or any other name that is no directory: that
// is EISDIR.
func (s *Store) Remove(ctx context.Context, name string) error {
	return s.remove(ctx, "remove", name, false)
}

// remove looks first because os.Remove removes either kind. Who can swap the
// two in between may remove both.
func (s *Store) remove(ctx context.Context, op, name string, dir bool) error {
	rel, err := s.change(ctx, name)
	if err == nil && rel == "." {
		err = syscall.EBUSY
	}
	if err == nil {
		var fi fs.FileInfo
		switch fi, err = s.tree.Lstat(rel); {
		case err != nil:
		case dir && !fi.IsDir():
			err = syscall.ENOTDIR
		case !dir && fi.IsDir():
			err = syscall.EISDIR
		default:
			err = s.tree.Remove(rel)
		}
	}
	return fail(op, name, err)
}

// Rename moves a name to another within the root. A file that had the new name
// is gone; a directory that had it is EEXIST. Links are moved, not followed.
func (s *Store) Rename(ctx context.Context, from, to string) error {
	old, err := s.change(ctx, from)
	if err == nil {
		var rel string
		switch rel, err = s.change(ctx, to); {
		case err != nil:
		case old == "." || rel == ".":
			err = syscall.EBUSY
		default:
			err = s.tree.Rename(old, rel)
		}
	}
	return fail("rename", from, err)
}

// change is clean, for what only a writable store does.
func (s *Store) change(ctx context.Context, name string) (string, error) {
	if !s.o.Writable {
		return "", syscall.EROFS
	}
	return clean(ctx, name)
}

func (s *Store) perm() fs.FileMode {
	if s.o.Perm == 0 {
		return 0o600
	}
	return fs.FileMode(s.o.Perm & 0o666)
}
