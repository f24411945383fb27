//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/go-privsep/sallyport/ipc"
	"github.com/go-privsep/sallyport/privsep"
)

// The mutants are the server's policy with one defence taken out. Each attack
// is a violation before and none after.

type mutant struct{ reached string }

func (m *mutant) login(_ context.Context, r LoginRequest) (LoginReply, error) {
	m.reached = r.User
	return LoginReply{}, syscall.EACCES
}

func (m *mutant) connect(context.Context, ConnectDataRequest) (DataReply, error) {
	m.reached = "connect"
	return DataReply{}, syscall.EACCES
}

func (m *mutant) loose(_ context.Context, r looseRequest) (DataReply, error) {
	m.reached = "connect"
	return DataReply{}, syscall.EACCES
}

func (m *mutant) attached(_ context.Context, r attachedRequest) (DataReply, error) {
	m.reached = "attached"
	r.File.Close()
	return DataReply{}, syscall.EACCES
}

// looseRequest is ConnectDataRequest without its check.
type looseRequest struct{ Port uint16 }

func (*looseRequest) Check() error { return nil }

// attachedRequest declares a descriptor.
type attachedRequest struct {
	Port uint16
	File *os.File `privsep:"kind=pipe-write"`
}

func (*attachedRequest) Check() error { return nil }

func TestHostileMutants(t *testing.T) {
	loose := privsep.Op[looseRequest, DataReply]{Name: "connect-data", Calls: privsep.Unlimited}
	attached := privsep.Op[attachedRequest, DataReply]{Name: "connect-data", Calls: privsep.Unlimited}
	endless := Login
	endless.Calls = privsep.Unlimited
	type phase = *privsep.Phase[mutant]
	permitLogin := func(p phase) { privsep.Permit(p, Login, (*mutant).login) }
	permitConnect := func(p phase) { privsep.Permit(p, ConnectData, (*mutant).connect) }
	high, low := object(field{"Port", []byte{0xcd, 0xfd, 0xe8}}), object(field{"Port", []byte{22}})
	name := object(field{"User", str("somebody")}, field{"Password", str("x")})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, c := range []struct {
		name            string
		strict, lenient func(phase)
		reached         string // in the mutant, by the attack
		send            func(*attacker)
	}{
		{"the phase permits it", permitLogin, func(p phase) { permitLogin(p); permitConnect(p) }, "connect",
			func(a *attacker) { a.ask("connect-data", high) }},
		{"calls are unlimited", permitLogin, func(p phase) { privsep.Permit(p, endless, (*mutant).login) }, "somebody",
			func(a *attacker) {
				for range 4 {
					a.ask("login", name)
				}
			}},
		{"the check is gone", permitConnect, func(p phase) { privsep.Permit(p, loose, (*mutant).loose) }, "connect",
			func(a *attacker) { a.ask("connect-data", low) }},
		{"the descriptor is declared", permitConnect, func(p phase) { privsep.Permit(p, attached, (*mutant).attached) }, "attached",
			func(a *attacker) { a.ask("connect-data", high, int(fdOf(w))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			confront := func(declare func(phase)) (reached string, err error) {
				p := privsep.NewPhase(new(privsep.Policy), "only", func(*mutant) privsep.Launch { return privsep.Launch{} })
				declare(p)
				m := new(mutant)
				mine, theirs, err := ipc.Pair()
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error)
				go func() { done <- privsep.ServeConn(t.Context(), p, m, theirs) }()
				a := &attacker{channel: int(fdOf(mine))}
				c.send(a)
				for ok := true; ok; { // until the other side has dealt with all
					_, _, ok = a.take(300 * time.Millisecond)
				}
				mine.Close()
				return m.reached, <-done
			}
			var violation *privsep.ViolationError
			if _, err := confront(c.strict); !errors.As(err, &violation) {
				t.Errorf("with the defence: got %v, want a violation", err)
			}
			if reached, err := confront(c.lenient); err != nil || reached != c.reached {
				t.Errorf("without: got %v and reached %q, want %q", err, reached, c.reached)
			}
		})
	}
}

// TestHostileCodecControl: the codec alone takes what the scan before it
// refuses. (That it also allocates what a length claims is shown in package
// ipc.)
func TestHostileCodecControl(t *testing.T) {
	for _, c := range wireCases() {
		if c.body == nil {
			continue
		}
		switch c.name {
		case "trailing byte", "field repeated", "field unknown", "field missing", "map not shortest", "value not shortest", "nil for the first field":
		default:
			continue
		}
		target := targets()[0]
		var r LoginRequest
		if err := msgpack.Unmarshal(c.body(target), &r); err != nil {
			t.Errorf("%s: without the scan: %v", c.name, err)
		}
	}
}
