package main

import (
	"context"
	"errors"
	"os"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/store"
	"github.com/go-privsep/sallyport/privsep"
)

var filesRole = privsep.Role{Name: "files", Main: filesMain, Check: aUsersFiles}

// FilesConfig is what a files worker is told beside its channel. What it says
// of writing, Landlock enforces; here it makes the better error.
type FilesConfig struct {
	Writable bool
	Beneath  bool // the root may be the host's: let no path leave the working directory
	Perm     uint32
	HideIDs  bool
	UID      uint32
	GIDs     []uint32 `privsep:"max=65"`
}

// filesMain serves the user's files to one session worker. It runs as the
// user, in the user's root, and asks its monitor nothing.
func filesMain(ctx context.Context, w *privsep.Worker) error {
	var config FilesConfig
	if err := w.Message(&config); err != nil {
		return err
	}
	if len(w.Files()) != 1 {
		return errors.New("no channel")
	}
	options := store.Options{
		Writable: config.Writable, Perm: config.Perm, HideIDs: config.HideIDs, UID: config.UID, GIDs: config.GIDs,
	}
	s := store.NewChrooted(options)
	if config.Beneath {
		root, err := os.OpenRoot(".")
		if err != nil {
			return err
		}
		defer root.Close()
		s = store.New(root, options)
	}
	_, serving := newFilesPolicy()
	return privsep.ServeConn(ctx, serving, &fileServer{s}, w.Files()[0])
}
