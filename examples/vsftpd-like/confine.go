package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/go-privsep/sallyport/privsep"
)

// confine has the monitor leave root and all that it has no more use for. What
// it may still read is what a reload takes: the configuration, and names of
// users. These are directories, because a file that is replaced is another one.
func (s *server) confine(from *source) (err error) {
	keep := privsep.Confinement{Without: s.without, Read: []string{"/etc"}}
	if keep.UID, keep.GID, err = s.config.Monitor(); err != nil {
		return err
	}
	if from.file != "" {
		path, err := filepath.Abs(from.file)
		if err != nil {
			return err
		}
		keep.Read = append(keep.Read, filepath.Dir(path))
	} else {
		keep.Write = []string{filepath.Dir(s.config.AnonymousRoot)} // to remove the demonstration
	}
	if s.missing, err = s.monitor.Confine(keep); err != nil {
		return err
	}
	if from.file == "" {
		return nil
	}
	f, err := os.Open(from.file)
	if err != nil {
		s.log.Warn("no reload will be possible: let the monitor's user read the configuration, or restart for a new one",
			"user", os.Geteuid(), "err", err)
		return nil
	}
	return f.Close()
}

// lost is the error of a server whose launcher has ended.
func lost(err error) error {
	return fmt.Errorf("the launcher ended unasked, and with it every worker: %w", err)
}
