package main

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/store"
	"github.com/go-privsep/sallyport/privsep"
)

// What a session worker may ask its files worker. The monitor has no part in
// it: the two share a socketpair that it gave them.
var (
	StatFile   = filesOp[PathRequest, InfoReply]("stat")
	OpenFile   = filesOp[PathRequest, OpenReply]("open")
	CreateFile = filesOp[CreateRequest, CreateReply]("create")
	ListDir    = privsep.Op[ListRequest, Done]{Name: "list", Calls: privsep.Unlimited, Timeout: listTimeout, Parallel: true}
	MakeDir    = filesOp[PathRequest, Done]("mkdir")
	RemoveDir  = filesOp[PathRequest, Done]("rmdir")
	RemoveFile = filesOp[PathRequest, Done]("remove")
	RenameFile = privsep.Op[RenameRequest, Done]{Name: "rename", Calls: privsep.Unlimited, Size: 3 * maxPath}
)

// A client may read a listing as slowly as it may read a file.
const listTimeout = 24 * time.Hour

const maxPath = 2048

func filesOp[Request, Reply any](name string) privsep.Op[Request, Reply] {
	return privsep.Op[Request, Reply]{Name: name, Calls: privsep.Unlimited}
}

// newFilesPolicy has one phase: the files worker was started for a user who
// had logged in. testdata/files-policy.txt is what it prints.
func newFilesPolicy() (*privsep.Policy, *privsep.Phase[fileServer]) {
	policy := new(privsep.Policy)
	serving := privsep.NewPhase(policy, "serving", noLaunch)
	privsep.Permit(serving, StatFile, (*fileServer).stat)
	privsep.Permit(serving, OpenFile, (*fileServer).open)
	privsep.Permit(serving, CreateFile, (*fileServer).create)
	privsep.Permit(serving, ListDir, (*fileServer).list)
	privsep.Permit(serving, MakeDir, (*fileServer).mkdir)
	privsep.Permit(serving, RemoveDir, (*fileServer).rmdir)
	privsep.Permit(serving, RemoveFile, (*fileServer).remove)
	privsep.Permit(serving, RenameFile, (*fileServer).rename)
	return policy, serving
}

func noLaunch(*fileServer) privsep.Launch { return privsep.Launch{} }

// checkPath judges the form of a virtual path.
func checkPath(p string) error {
	if !strings.HasPrefix(p, "/") || path.Clean(p) != p || strings.ContainsRune(p, 0) {
		return errors.New("path is not absolute and clean")
	}
	return nil
}

type PathRequest struct {
	Path string `privsep:"max=2048"`
}

func (r *PathRequest) Check() error { return checkPath(r.Path) }

type InfoReply struct{ Info files.Info }

type OpenReply struct {
	File *os.File `privsep:"kind=regular"`
	Info files.Info
}

type CreateRequest struct {
	Path string `privsep:"max=2048"`
	Mode files.CreateMode
}

func (r *CreateRequest) Check() error {
	if !r.Mode.Valid() {
		return errors.New("unknown mode")
	}
	return checkPath(r.Path)
}

type CreateReply struct {
	File *os.File `privsep:"kind=regular"`
	Path string   `privsep:"max=2560"`
}

type ListRequest struct {
	Path   string `privsep:"max=2048"`
	Format files.Format
	Facts  files.Facts
	All    bool
	Output *os.File `privsep:"kind=pipe-write"`
}

func (r *ListRequest) Check() error {
	if !r.options().Valid() {
		return errors.New("unknown format or facts")
	}
	return checkPath(r.Path)
}

func (r *ListRequest) options() files.ListOptions {
	return files.ListOptions{Format: r.Format, Facts: r.Facts, All: r.All}
}

type RenameRequest struct {
	From string `privsep:"max=2048"`
	To   string `privsep:"max=2048"`
}

func (r *RenameRequest) Check() error { return errors.Join(checkPath(r.From), checkPath(r.To)) }

// Done is the answer where there is nothing to say.
type Done struct{}

// A fileServer answers in the files worker, as the user and in the user's
// root. It holds no more than the user has.
type fileServer struct{ store *store.Store }

func (s *fileServer) stat(ctx context.Context, r PathRequest) (InfoReply, error) {
	info, err := s.store.Stat(ctx, r.Path)
	return InfoReply{info}, err
}

func (s *fileServer) open(ctx context.Context, r PathRequest) (OpenReply, error) {
	f, info, err := s.store.Open(ctx, r.Path)
	return OpenReply{f, info}, err
}

func (s *fileServer) create(ctx context.Context, r CreateRequest) (CreateReply, error) {
	f, name, err := s.store.Create(ctx, r.Path, r.Mode)
	return CreateReply{f, name}, err
}

func (s *fileServer) list(ctx context.Context, r ListRequest) (Done, error) {
	return Done{}, s.store.List(ctx, r.Path, r.options(), r.Output)
}

func (s *fileServer) mkdir(ctx context.Context, r PathRequest) (Done, error) {
	return Done{}, s.store.Mkdir(ctx, r.Path)
}

func (s *fileServer) rmdir(ctx context.Context, r PathRequest) (Done, error) {
	return Done{}, s.store.Rmdir(ctx, r.Path)
}

func (s *fileServer) remove(ctx context.Context, r PathRequest) (Done, error) {
	return Done{}, s.store.Remove(ctx, r.Path)
}

func (s *fileServer) rename(ctx context.Context, r RenameRequest) (Done, error) {
	return Done{}, s.store.Rename(ctx, r.From, r.To)
}
