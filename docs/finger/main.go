// Command finger binds the finger port as root and answers on it as nobody. It
// is the README's program.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/seccomp"
)

var Bind = privsep.Op[BindRequest, BindReply]{Name: "bind", Calls: 1}

type BindRequest struct{} // the monitor knows which port
type BindReply struct {
	Listener *os.File `privsep:"kind=listener"`
}

type daemon struct{} // what the monitor knows of a session

func (*daemon) bind(context.Context, BindRequest) (reply BindReply, err error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 79})
	if err == nil {
		defer l.Close()
		reply.Listener, err = l.File()
	}
	return reply, err // of an error, the worker sees an errno
}

func (*daemon) launch() privsep.Launch {
	keep := privsep.Sandbox{Promises: seccomp.Accept | seccomp.Streams}
	return privsep.Launch{Role: &finger, Sandbox: keep, Timeout: -1}
}

var finger = privsep.Role{Name: "finger", Main: func(ctx context.Context, w *privsep.Worker) error {
	reply, err := Bind.Call(ctx, w, BindRequest{})
	if err != nil {
		return err
	}
	l, err := net.FileListener(reply.Listener)
	for err == nil {
		var c net.Conn
		if c, err = l.Accept(); err == nil {
			fmt.Fprint(c, "Nobody is logged in.\r\n")
			c.Close()
		}
	}
	return err
}}

func main() { privsep.Main(monitor, &finger) } // first: in a worker it does not return

func monitor() {
	policy := new(privsep.Policy)
	serving := privsep.NewPhase(policy, "serving", (*daemon).launch)
	privsep.Permit(serving, Bind, (*daemon).bind, caps.NetBindService)

	m, err := privsep.NewMonitor(policy, privsep.Config{})
	if err == nil {
		_, err = m.Confine(privsep.Confinement{}) // from here this process is nobody, and a capability effective in bind only
	}
	if err == nil {
		err = privsep.Serve(context.Background(), m, serving, new(daemon))
	}
	log.Fatal(err)
}
