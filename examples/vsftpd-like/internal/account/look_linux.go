package account

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// grain is more than that of any kernel's file times.
const grain = 50 * time.Millisecond

// A Look is what files were at one time.
type Look struct {
	files []*os.File
	then  []syscall.Stat_t
}

// LookAt looks at files before they are read. It waits, at most for a moment
// each, until a change that comes while they are read can't be invisible for
// coming within the clock's grain of another.
func LookAt(files []*os.File) (*Look, error) {
	l := &Look{files: files, then: make([]syscall.Stat_t, len(files))}
	for i, f := range files {
		for fresh := true; fresh; {
			if err := stat(f, &l.then[i]); err != nil {
				return nil, err
			}
			age := time.Since(time.Unix(l.then[i].Ctim.Unix()))
			if fresh = 0 <= age && age < grain; fresh {
				time.Sleep(grain - age)
			}
		}
	}
	return l, nil
}

// Changed reports whether a file is no more what it was, or no more where it
// was: to write one, or to put another in its place as passwd(1) and vipw(8)
// do, changes its ctime. Whoever was removed since must not get in.
func (l *Look) Changed() bool {
	for i, f := range l.files {
		var now syscall.Stat_t
		then := &l.then[i]
		if stat(f, &now) != nil || now.Ctim != then.Ctim || now.Mtim != then.Mtim || now.Size != then.Size || now.Nlink != then.Nlink {
			return true
		}
	}
	return false
}

func stat(f *os.File, into *syscall.Stat_t) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.ErrUnsupported
	}
	*into = *s
	return nil
}
