package main

import (
	"context"

	"github.com/go-privsep/sallyport/privsep"
)

type (
	preauth struct{}
	authed  struct{}
	admin   struct{}

	empty struct{}
	other struct{}
)

var (
	policy privsep.Policy
	before = privsep.NewPhase(&policy, "preauth", func(*preauth) privsep.Launch { return privsep.Launch{} })
	after  = privsep.NewPhase[authed](&policy, "authed", nil)
	last   = privsep.NewPhase[admin](&policy, "admin", nil)

	login  = privsep.Op[empty, empty]{Name: "login", Calls: 3}
	bind   = privsep.Op[empty, empty]{Name: "bind", Calls: 1}
	rename = privsep.Op[other, empty]{Name: "rename", Calls: 1}
)

func (*preauth) login(context.Context, empty) (empty, *authed, error) { return empty{}, nil, nil }
func (*authed) bind(context.Context, empty) (empty, error)            { return empty{}, nil }
func free(context.Context, empty) (empty, error)                      { return empty{}, nil }

// A phase proves one type of state, and none can be had of it.
// want: cannot use after (variable of type *privsep.Phase[authed]) as *privsep.Phase[admin] value in argument to privsep.Permit
func main() {
	privsep.Advance(before, login, after, (*preauth).login)
	privsep.Permit[admin, empty, empty](after, bind, nil)
}
