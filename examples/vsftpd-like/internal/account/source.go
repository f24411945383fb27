package account

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

// What an account file may be. /etc/group has the longest lines, one member
// after the other.
const (
	maxFile = 16 << 20
	maxLine = 64 << 10
)

// A LineError names the place of a mistake and what would be right there.
type LineError struct {
	File    string
	Line    int // from 1; 0 is the file as a whole
	Problem string
	Remedy  string
}

func (e *LineError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Problem + ": " + e.Remedy
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.File, e.Line, e.Problem, e.Remedy)
}

// source is a file whole in memory.
type source struct {
	path string
	data []byte
}

// readSource reads an account file that only its owner can write and, if it is
// private, that not everybody can read. A file that others write decides
// nothing here.
func readSource(path string, f *os.File, private bool) (*source, error) {
	s := &source{path: path}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	bad := func(problem, remedy string) (*source, error) {
		return nil, &LineError{path, 0, problem, remedy}
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return bad("not a regular file", "name a text file")
	case !ok || owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return bad("belongs to another user", "chown it to root")
	case mode.Perm()&0o022 != 0:
		return bad(fmt.Sprintf("others may write it (mode %04o)", mode.Perm()), "chmod go-w")
	case private && mode.Perm()&0o004 != 0:
		return bad(fmt.Sprintf("everybody may read its hashes (mode %04o)", mode.Perm()), "chmod o-r")
	}
	if s.data, err = io.ReadAll(io.NewSectionReader(f, 0, maxFile+1)); err != nil {
		return nil, err
	}
	if len(s.data) > maxFile {
		return bad(fmt.Sprintf("larger than %d MiB", maxFile>>20), "split it")
	}
	return s, nil
}

// errLine is a parser's complaint; lines adds the place.
type errLine struct{ problem, remedy string }

func (e errLine) Error() string { return e.problem }

// maxMistakes is how many of one file's are told.
const maxMistakes = 5

// lines calls parse with each line but empty ones and comments. It goes on after
// a mistake, to tell the next one too.
func (s *source) lines(parse func(n int, line string) error) error {
	n := 0
	var wrong []error
	for line := range bytes.Lines(s.data) {
		n++
		text := strings.TrimSuffix(string(line), "\n")
		err := error(nil)
		switch t := strings.TrimSpace(text); {
		case len(text) > maxLine:
			err = errLine{"line is too long", fmt.Sprintf("keep it within %d bytes", maxLine)}
		case strings.ContainsAny(text, "\x00\r"):
			err = errLine{"NUL or carriage return in the line", "end lines with a newline alone"}
		case t == "" || t[0] == '#':
		default:
			err = parse(n, text)
		}
		if bad := (errLine{}); errors.As(err, &bad) {
			wrong = append(wrong, &LineError{s.path, n, bad.problem, bad.remedy})
		} else if err != nil {
			wrong = append(wrong, &LineError{s.path, n, err.Error(), "correct the line"})
		}
		if len(wrong) == maxMistakes {
			break
		}
	}
	return errors.Join(wrong...)
}
