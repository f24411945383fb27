package listing

import (
	"errors"
	"io"
	"io/fs"
	"strings"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

// Dir is a directory being read, as *os.File is.
type Dir interface {
	Readdirnames(n int) ([]string, error)
	Readdir(n int) ([]fs.FileInfo, error)
}

// chunk is how many entries are in memory at once.
const chunk = 128

// Write lists a directory, without . and .., to w. Describe turns what Readdir
// gave into an Info. An entry that is gone by the time it is looked at is left
// out, and so is one whose status can't be had: a dead network mount must not
// hide its neighbours. Before each chunk, more is asked whether to go on.
func Write(w io.Writer, dir Dir, o files.ListOptions, s Style, describe func(fs.FileInfo) files.Info, more func() error) error {
	if !o.Valid() {
		return fs.ErrInvalid
	}
	buf := make([]byte, 0, 32<<10)
	shown := func(name string) bool { return o.All || !strings.HasPrefix(name, ".") }
	for {
		if err := more(); err != nil {
			return err
		}
		var end error
		if o.Format == files.Names {
			var names []string
			names, end = dir.Readdirnames(chunk)
			for _, name := range names {
				if shown(name) {
					buf = Name(buf, name)
				}
			}
		} else {
			var infos []fs.FileInfo
			infos, end = dir.Readdir(chunk)
			for _, fi := range infos {
				switch i := describe(fi); {
				case !shown(i.Name):
				case o.Format == files.Long:
					buf = Long(buf, i, s)
				default:
					buf = Machine(buf, i, o.Facts, s)
				}
			}
		}
		// A chunk adds at most 128 lines of 255 bytes and their columns, so
		// the buffer stays within 80 KiB.
		if len(buf) >= 16<<10 || end != nil && len(buf) > 0 {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
		// Readdir stops at an entry that it can't stat, and goes on behind it
		// when called again. The end and a failing getdents do not.
		var one *fs.PathError
		if errors.As(end, &one) && one.Op == "fstatat" {
			continue
		}
		if end == io.EOF {
			return nil
		}
		if end != nil {
			return end
		}
	}
}
