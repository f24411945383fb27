package main

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"syscall"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/privsep"
)

var accountsRole = privsep.Role{Name: "accounts", Main: accountsMain, Check: noPaths}

// passwordsAtOnce is how many passwords are checked at a time: each takes a
// processor, and 16 MiB at Debian's yescrypt cost.
const passwordsAtOnce = 2

// accountsMain answers the monitor's questions about the account files, which
// are all that it has. They are read once: when they change the keeper says so,
// and is started again.
func accountsMain(ctx context.Context, w *privsep.Worker) error {
	var config AccountsConfig
	if err := w.Message(&config); err != nil {
		return err
	}
	// One more than passwords, so that who needs none checked does not wait.
	runtime.GOMAXPROCS(passwordsAtOnce + 1)
	seen, err := account.LookAt(w.Opened())
	if err != nil {
		return err
	}
	keeper := &accountsKeeper{seen: seen}
	keeper.book, keeper.wrong = account.Open(config.settings(), w.Opened())
	_, serving := newAccountsPolicy()
	return privsep.ServeConn(ctx, serving, keeper, w.Files()[0])
}

func (c *AccountsConfig) settings() account.Settings {
	s := account.Settings{UserList: c.UserList, UserListAllow: c.UserListAllow, Concurrent: passwordsAtOnce}
	if c.Anonymous {
		// Who that is, the monitor knows.
		s.Anonymous = &account.Anonymous{Root: "/anonymous", UID: 1, GID: 1}
	}
	if c.Local {
		s.Local = &account.Local{MinUID: c.MinUID, AnyShell: c.AnyShell}
	}
	if c.Virtual != "" {
		s.Virtual = &account.Virtual{File: c.Virtual, UID: c.VirtualUID, GID: c.VirtualGID}
	}
	return s
}

// newAccountsPolicy is what the monitor may ask.
// testdata/accounts-policy.txt is what it prints.
func newAccountsPolicy() (*privsep.Policy, *privsep.Phase[accountsKeeper]) {
	policy := new(privsep.Policy)
	serving := privsep.NewPhase(policy, "serving", func(*accountsKeeper) privsep.Launch { return privsep.Launch{} })
	privsep.Permit(serving, CheckAccounts, (*accountsKeeper).check)
	privsep.Permit(serving, Verify, (*accountsKeeper).verify)
	return policy, serving
}

// An accountsKeeper has read the account files.
type accountsKeeper struct {
	seen  *account.Look
	book  *account.Book // nil: the files are wrong
	wrong error
}

func (k *accountsKeeper) check(context.Context, Ask) (MistakesReply, error) {
	var r MistakesReply
	if k.wrong != nil {
		for line := range strings.Lines(k.wrong.Error()) {
			r.Mistakes = append(r.Mistakes, short(strings.TrimSuffix(line, "\n")))
		}
		r.Mistakes = r.Mistakes[:min(len(r.Mistakes), 20)]
	}
	return r, nil
}

func short(text string) string { return text[:min(len(text), 500)] }

func (k *accountsKeeper) verify(ctx context.Context, r LoginRequest) (VerifyReply, error) {
	if k.seen.Changed() {
		return VerifyReply{}, syscall.ESTALE
	}
	if k.book == nil {
		return VerifyReply{Refused: short("account files can't be read: " + k.wrong.Error())}, nil
	}
	a, err := k.book.Authenticate(ctx, r.User, r.Password)
	var refused *account.Refusal
	if errors.As(err, &refused) {
		return VerifyReply{Refused: short(refused.Reason.String())}, nil
	}
	if err != nil {
		return VerifyReply{}, err
	}
	switch {
	case a.Anonymous():
		return VerifyReply{Kind: anonymousAccount, Home: "/"}, nil
	case a.Virtual():
		return VerifyReply{Kind: virtualAccount, Home: a.Home(), Writable: a.Writable()}, nil
	}
	groups := a.Groups()
	return VerifyReply{Kind: localAccount, UID: a.UID(), GID: a.GID(), Groups: groups[:min(len(groups), 64)], Home: a.Home()}, nil
}
