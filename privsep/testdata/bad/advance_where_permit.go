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

// want: type func(*preauth, context.Context, empty) (empty, *authed, error) of (*preauth).login does not match
func main() { privsep.Permit(before, login, (*preauth).login) }
