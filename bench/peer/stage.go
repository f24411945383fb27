package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// stageName is the argument zero of this program between the bench and the
// server: already in the server's mount namespace, about to become the server.
const stageName = "ftpbench-stage"

// Main must be called first in a program, or in a TestMain, that starts
// servers. It returns at once unless the process is to become a server.
func Main() {
	if len(os.Args) < 4 || os.Args[0] != stageName {
		return
	}
	fmt.Fprintln(os.Stderr, "ftpbench: server not started:", stage(os.Args[1], os.Args[2], os.Args[3:]))
	os.Exit(1)
}

func stage(dir, procs string, argv []string) error {
	for _, name := range []string{"passwd", "group", "shadow"} {
		path := filepath.Join("/etc", name)
		if err := syscall.Mount(filepath.Join(dir, name), path, "", syscall.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "mount", Path: path, Err: err}
		}
	}
	if procs != "" {
		if err := os.WriteFile(procs, []byte("0"), 0); err != nil {
			return err
		}
	}
	return &os.PathError{Op: "exec", Path: argv[0], Err: syscall.Exec(argv[0], argv, os.Environ())}
}
