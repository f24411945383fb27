package main

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/ftp"
	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/listing"
	"github.com/go-privsep/sallyport/privsep"
)

var sessionRole = privsep.Role{Name: "session", Main: sessionMain, Check: noFiles}

// SessionConfig is what a session worker is told beside its connection.
type SessionConfig struct {
	Banner      string `privsep:"max=1024"`
	Local       string `privsep:"max=64"`
	Remote      string `privsep:"max=64"`
	Active      bool
	IdleSeconds uint32
	DataSeconds uint32
	TLS         bool
	TLSLogin    bool
	TLSData     bool
	TLSReuse    bool
}

// sessionMain speaks FTP with one client. It has the control connection, and
// asks for all else.
func sessionMain(ctx context.Context, w *privsep.Worker) error {
	var config SessionConfig
	if err := w.Message(&config); err != nil {
		return err
	}
	if len(w.Files()) != 1 {
		return errors.New("no control connection")
	}
	peer, err := netip.ParseAddrPort(config.Remote)
	if err != nil {
		return err
	}
	s := ftp.Session{
		Control: w.Files()[0],
		Peer:    peer,
		Login:   &loginClient{monitor: w},
		Data:    &dataClient{w},
		Config: ftp.Config{
			Greeting:     config.Banner,
			IdleTimeout:  time.Duration(config.IdleSeconds) * time.Second,
			StallTimeout: time.Duration(config.DataSeconds) * time.Second,
			LoginOnce:    true,
			PassiveOnly:  !config.Active,
			TLSLogin:     config.TLSLogin,
			TLSData:      config.TLSData,
			TLSReuse:     config.TLSReuse,
		},
	}
	if config.TLS {
		s.TLS = (&tlsClient{monitor: w}).config
	}
	err = s.Serve(ctx)
	if errors.Is(err, ftp.ErrIdle) || errors.Is(err, ftp.ErrLogins) || errors.Is(err, ftp.ErrNotFTP) || errors.Is(err, ftp.ErrTLS) {
		return nil // the client's doing, and it has been told
	}
	return err
}

// A loginClient asks the monitor who the client is.
type loginClient struct{ monitor *privsep.Worker }

func (l *loginClient) Login(ctx context.Context, user, password string) (ftp.Files, ftp.LoginInfo, error) {
	request := LoginRequest{User: user, Password: password}
	if request.Check() != nil || len(user) > 64 || len(password) > 255 {
		// No account has such a name: not worth one of the three calls,
		// and unsendable.
		return nil, ftp.LoginInfo{}, fs.ErrPermission
	}
	reply, err := Login.Call(ctx, l.monitor, request)
	if err != nil {
		return nil, ftp.LoginInfo{}, err
	}
	conn, err := privsep.NewConn(reply.Files)
	if err != nil {
		return nil, ftp.LoginInfo{}, err
	}
	return &filesClient{conn}, ftp.LoginInfo{
		HideIDs: reply.HideIDs,
		Viewer:  listing.Viewer{UID: reply.UID, GIDs: reply.GIDs, ReadOnly: !reply.Writable},
	}, nil
}

// A dataClient asks the monitor for data connections.
type dataClient struct{ monitor *privsep.Worker }

func (d *dataClient) Listen(ctx context.Context) (netip.AddrPort, error) {
	r, err := ListenData.Call(ctx, d.monitor, ListenDataRequest{})
	if err != nil {
		return netip.AddrPort{}, err
	}
	address, err := netip.ParseAddr(r.Address)
	return netip.AddrPortFrom(address, r.Port), err
}

func (d *dataClient) Accept(ctx context.Context) (*os.File, error) {
	r, err := AcceptData.Call(ctx, d.monitor, AcceptDataRequest{})
	if err != nil && ctx.Err() != nil {
		// If ctx ended before the monitor was asked, its port is still open
		// and a client that has connected there waits. Ask, and don't wait.
		brief, cancel := context.WithTimeout(context.WithoutCancel(ctx), 50*time.Millisecond)
		defer cancel()
		if r, err := AcceptData.Call(brief, d.monitor, AcceptDataRequest{}); err == nil {
			r.Data.Close()
		}
	}
	return r.Data, err
}

func (d *dataClient) Connect(ctx context.Context, port uint16) (*os.File, error) {
	r, err := ConnectData.Call(ctx, d.monitor, ConnectDataRequest{port})
	return r.Data, err
}

// A filesClient asks the user's files worker.
type filesClient struct{ worker *privsep.Conn }

func (f *filesClient) Close() error { return f.worker.Close() }

func (f *filesClient) Stat(ctx context.Context, path string) (files.Info, error) {
	r, err := StatFile.Call(ctx, f.worker, PathRequest{path})
	return r.Info, err
}

func (f *filesClient) Open(ctx context.Context, path string) (*os.File, files.Info, error) {
	r, err := OpenFile.Call(ctx, f.worker, PathRequest{path})
	return r.File, r.Info, err
}

func (f *filesClient) Create(ctx context.Context, path string, mode files.CreateMode) (*os.File, string, error) {
	r, err := CreateFile.Call(ctx, f.worker, CreateRequest{path, mode})
	return r.File, r.Path, err
}

func (f *filesClient) List(ctx context.Context, path string, o files.ListOptions, w *os.File) error {
	_, err := ListDir.Call(ctx, f.worker, ListRequest{path, o.Format, o.Facts, o.All, w})
	return err
}

func (f *filesClient) Mkdir(ctx context.Context, path string) error {
	_, err := MakeDir.Call(ctx, f.worker, PathRequest{path})
	return err
}

func (f *filesClient) Rmdir(ctx context.Context, path string) error {
	_, err := RemoveDir.Call(ctx, f.worker, PathRequest{path})
	return err
}

func (f *filesClient) Remove(ctx context.Context, path string) error {
	_, err := RemoveFile.Call(ctx, f.worker, PathRequest{path})
	return err
}

func (f *filesClient) Rename(ctx context.Context, from, to string) error {
	_, err := RenameFile.Call(ctx, f.worker, RenameRequest{from, to})
	return err
}
