package ftp_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/ftp"
)

// nobody knows no user.
type nobody struct{}

func (nobody) Login(ctx context.Context, user, password string) (ftp.Files, ftp.LoginInfo, error) {
	return nil, ftp.LoginInfo{}, fs.ErrPermission
}

// A session over a pipe, with a client that is not let in.
func ExampleSession_Serve() {
	client, control := net.Pipe()
	session := ftp.Session{
		Control: control,
		Peer:    netip.MustParseAddrPort("192.0.2.1:40000"),
		Login:   nobody{},
		Config:  ftp.Config{Greeting: "Members only."},
	}
	done := make(chan error)
	go func() { done <- session.Serve(context.Background()) }()

	reply := make([]byte, 100)
	for _, command := range []string{"", "USER ann", "PASS guess", "QUIT"} {
		if command != "" {
			fmt.Fprintf(client, "%s\r\n", command)
		}
		n, _ := client.Read(reply)
		fmt.Println(strings.TrimSpace(string(reply[:n])))
	}
	fmt.Println(<-done)
	// Output:
	// 220 Members only.
	// 331 Password, please.
	// 530 Login incorrect.
	// 221 Goodbye.
	// <nil>
}
