package main

import (
	"errors"
	"os"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/privsep"
)

// What a session worker may ask the monitor. Nothing here names a user, a
// path or an address that the monitor does not look up or know by itself.
var (
	// TLSCertificate gives the certificate's chain, in PEM.
	TLSCertificate = privsep.Op[Ask, ChainReply]{Name: "tls-certificate", Calls: 1, Size: 32 << 10}
	// TLSSign signs the handshake of the control connection, before the login.
	TLSSign = privsep.Op[SignRequest, SignReply]{Name: "tls-sign", Calls: 1}
	// TLSSignData signs those of data connections that resume nothing, once for
	// each that AcceptData or ConnectData made.
	TLSSignData = privsep.Op[SignRequest, SignReply]{Name: "tls-sign-data", Calls: privsep.Unlimited}
	// Login proves a name and a password, and is the only way to be somebody.
	Login = privsep.Op[LoginRequest, LoginReply]{Name: "login", Calls: 3, Timeout: time.Minute}
	// ListenData opens a port for one data connection and forgets the one before.
	ListenData = privsep.Op[ListenDataRequest, ListenDataReply]{Name: "listen-data", Calls: privsep.Unlimited}
	// AcceptData waits for the control connection's peer to connect there.
	AcceptData = privsep.Op[AcceptDataRequest, DataReply]{Name: "accept-data", Calls: privsep.Unlimited, Timeout: dataTimeout}
	// ConnectData connects to a port of the control connection's peer.
	ConnectData = privsep.Op[ConnectDataRequest, DataReply]{Name: "connect-data", Calls: privsep.Unlimited, Timeout: dataTimeout}
)

// dataTimeout is how long either side may take to make a data connection, as
// vsftpd's accept_timeout and connect_timeout.
const dataTimeout = time.Minute

type LoginRequest struct {
	User     string `privsep:"max=64"`
	Password string `privsep:"max=255"`
}

func (r *LoginRequest) Check() error {
	if !account.ValidName(r.User) || !account.ValidPassword(r.Password) {
		return errors.New("name or password of a form that no account has")
	}
	return nil
}

type LoginReply struct {
	Files    *os.File `privsep:"kind=channel"` // to the user's files worker
	UID      uint32   // for the facts of a listing, as the two after it
	GIDs     []uint32 `privsep:"max=65"`
	Writable bool
	HideIDs  bool
}

type ListenDataRequest struct{}

type ListenDataReply struct {
	Address string `privsep:"max=64"` // what the client shall be told
	Port    uint16
}

type AcceptDataRequest struct{}

type ConnectDataRequest struct{ Port uint16 }

// A server that connects to low ports of its clients can be made to speak to
// their rlogin or their mail server (RFC 2577, the bounce attack).
func (r *ConnectDataRequest) Check() error {
	if r.Port < 1024 {
		return errors.New("port below 1024")
	}
	return nil
}

type DataReply struct {
	Data *os.File `privsep:"kind=stream"`
}
