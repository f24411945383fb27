package store

import (
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
)

// chroot is the tree below a directory, resolved by the kernel alone: confined
// only where dir is / and / is the user's root. Tests give another dir.
type chroot struct{ dir string }

func (c chroot) OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(c.dir+name, flag, perm)
}
func (c chroot) Stat(name string) (fs.FileInfo, error)  { return os.Stat(c.dir + name) }
func (c chroot) Lstat(name string) (fs.FileInfo, error) { return os.Lstat(c.dir + name) }
func (c chroot) Mkdir(name string, perm fs.FileMode) error {
	return os.Mkdir(c.dir+name, perm)
}
func (c chroot) Remove(name string) error     { return os.Remove(c.dir + name) }
func (c chroot) Rename(from, to string) error { return os.Rename(c.dir+from, c.dir+to) }

// past is a deadline that is over.
var past = time.Unix(1, 0)

// describe is what the kernel said about a file, under the name it was asked
// for.
func describe(fi fs.FileInfo, name string) files.Info {
	i := files.Info{Name: name, Size: fi.Size(), ModTime: fi.ModTime().Unix()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		i.Mode, i.UID, i.GID = uint32(st.Mode), st.Uid, st.Gid
		i.Links, i.Device, i.Inode = uint32(st.Nlink), uint64(st.Dev), uint64(st.Ino)
	}
	return i
}

// style is how the entries of a directory are shown.
func (s *Store) style(dir fs.FileInfo) listing.Style {
	v := listing.Viewer{UID: s.o.UID, GIDs: s.o.GIDs, ReadOnly: !s.o.Writable}
	v.Parent = s.o.Writable && listing.Writable(describe(dir, "."), v)
	return listing.Style{Now: time.Now(), HideIDs: s.o.HideIDs, Viewer: v}
}
