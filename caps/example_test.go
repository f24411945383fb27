package caps_test

import (
	"errors"
	"fmt"
	"net"

	"github.com/go-privsep/sallyport/caps"
)

func ExampleOf() {
	mine := caps.Of(caps.SetUID, caps.NetBindService)
	fmt.Println(mine, mine.Has(caps.SetUID), mine.Has(caps.SysAdmin))
	fmt.Println(mine.Minus(caps.Of(caps.SetUID)) == caps.Of(caps.NetBindService))
	// Output:
	// cap_setuid,cap_net_bind_service true false
	// true
}

func ExampleParse() {
	s, err := caps.Parse("cap_chown,cap_kill")
	fmt.Println(s, err)
	_, err = caps.Parse("cap_chown,cap_kil")
	var unknown *caps.ParseError
	fmt.Println(errors.As(err, &unknown), err)
	// Output:
	// cap_chown,cap_kill <nil>
	// true caps: "cap_kil" is not a capability
}

func ExampleParseState() {
	s, err := caps.ParseState("cap_chown,cap_kill=p cap_kill+e")
	fmt.Println(s.Permitted, s.Effective, err)
	fmt.Println(s)
	// Output:
	// cap_chown,cap_kill cap_kill <nil>
	// cap_chown=p cap_kill+ep
}

func ExampleCap_Risk() {
	for _, c := range []caps.Cap{caps.Chown, caps.NetBindService} {
		r := c.Risk()
		fmt.Printf("%v: root: %v; under no_new_privs: %v; %s\n", r.Cap, r.Root, r.Survives, r.Way)
	}
	// Output:
	// cap_chown: root: yes; under no_new_privs: yes; make /etc/shadow or root's crontab one's own, and edit it
	// cap_net_bind_service: root: no; under no_new_privs: yes; pose as a service: NFS, rsh, ACME http-01
}

// Root keeps the right to bind low ports, and uses it for one call. This and
// the next two need a process of their own; TestExamples runs them as root.
func ExampleWith() {
	low := caps.Of(caps.NetBindService)
	if err := caps.Limit(low); err != nil {
		fmt.Println(err)
		return
	}
	var listener net.Listener
	listen := func() (err error) {
		listener, err = net.Listen("tcp", "127.99.7.1:80")
		return err
	}
	fmt.Println("without:", listen())
	fmt.Println("with:", caps.With(low, listen))
	listener.Close()
	fmt.Println(caps.With(caps.Of(caps.SysAdmin), listen))
}

func ExampleLimit() {
	err := caps.Limit(caps.Of(caps.SetUID, caps.SetGID))
	state, _ := caps.Current()
	fmt.Println(state, err)
}

// A process that may not empty its bounding set learns so, and decides.
func ExampleDrop() {
	err := caps.Drop()
	var remains *caps.RemainsError
	if errors.As(err, &remains) && remains.Field == caps.Bounding {
		err = nil // everything else is gone; harmless under no_new_privs
	}
	state, _ := caps.Current()
	fmt.Println(state, err)
}
