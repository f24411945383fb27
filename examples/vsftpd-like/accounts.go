package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/account"
	"github.com/go-privsep/sallyport/privsep"
)

// What the monitor asks the accounts keeper, which alone has the account files.
var (
	// CheckAccounts tells what is wrong with the files.
	CheckAccounts = privsep.Op[Ask, MistakesReply]{Name: "check-accounts", Calls: privsep.Unlimited, Size: 16 << 10}
	// Verify proves a name and a password. ESTALE: the files have changed.
	Verify = privsep.Op[LoginRequest, VerifyReply]{Name: "verify", Calls: privsep.Unlimited, Timeout: time.Minute, Parallel: true}
)

// Ask is a request where there is nothing to say.
type Ask struct{}

type MistakesReply struct {
	Mistakes []string `privsep:"max=20,each=500"`
}

// VerifyReply says what the files do. What the monitor knows by itself is not
// in it: an anonymous or virtual user's uid, and who may write.
type VerifyReply struct {
	Refused  string `privsep:"max=500"` // for the log, of the zero Kind
	Kind     AccountKind
	UID, GID uint32   // of a local user
	Groups   []uint32 `privsep:"max=64"`
	Home     string   `privsep:"max=1024"`
	Writable bool     // of a virtual user
}

// AccountKind is whose account it is. The zero kind is nobody's.
type AccountKind uint8

const (
	anonymousAccount AccountKind = iota + 1
	localAccount
	virtualAccount
)

// An identity is who a client has proved to be. Only identify makes one.
type identity struct {
	name      string
	uid, gid  uint32
	groups    []uint32
	home      string
	writable  bool
	anonymous bool
}

// A loginRefusal is a login denied. The client gets the errno, whatever the reason.
type loginRefusal struct{ reason string }

func (r *loginRefusal) Error() string { return "login refused: " + r.reason }
func (r *loginRefusal) Unwrap() error { return syscall.EACCES }

// accounts is the keeper, and what its files were when it was started.
type accounts struct {
	keeper *privsep.Keeper
	launch privsep.Launch
	paths  []string

	mu    sync.Mutex
	age   int // how often it was restarted
	files []fileID
}

// authenticate asks the keeper, and makes an identity of its answer.
func (s *server) authenticate(ctx context.Context, r LoginRequest) (*identity, error) {
	var err error
	for range 3 {
		age := s.accounts.fresh()
		var reply VerifyReply
		if reply, err = Verify.Call(ctx, s.accounts.keeper, r); err == nil {
			return s.identify(r.User, &reply)
		}
		var failed *privsep.KeeperError
		if errors.Is(err, syscall.ESTALE) {
			s.accounts.restart(age)
		} else if !errors.As(err, &failed) {
			break
		} // else it died, or was restarted for another login: ask its successor
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, fmt.Errorf("accounts: %v", err) // no errno of the keeper's
}

// identify takes from the keeper's word only what the monitor does not know.
// One that was taken over can call anybody any user, but root, a system user
// or one of this server's own nobody.
func (s *server) identify(name string, r *VerifyReply) (*identity, error) {
	c := &s.config
	who := &identity{name: name, uid: r.UID, gid: r.GID, groups: r.Groups, home: r.Home}
	switch {
	case r.Kind == 0:
		return nil, &loginRefusal{r.Refused}
	case r.Kind == anonymousAccount && c.Anonymous:
		a := s.settings.Anonymous
		return &identity{name: "anonymous", uid: a.UID, gid: a.GID, home: a.Root, writable: a.Write, anonymous: true}, nil
	case r.Kind == virtualAccount && s.settings.Virtual != nil:
		who.uid, who.gid, who.groups, who.writable = s.settings.Virtual.UID, s.settings.Virtual.GID, nil, r.Writable
	case slices.Contains(asGoodAsRoot, r.GID):
		return nil, fmt.Errorf("%q has group %d, which is as good as root: give it another", name, r.GID)
	case r.Kind == localAccount && c.LocalUsers && r.UID >= max(c.MinUID, 1) && !c.Reserved(r.UID) && r.GID != 0:
		who.writable = c.LocalWrite
		who.groups = slices.DeleteFunc(who.groups, func(g uint32) bool { return slices.Contains(asGoodAsRoot, g) })
	default:
		return nil, fmt.Errorf("accounts keeper: %q can't be uid %d, gid %d, kind %d", name, r.UID, r.GID, r.Kind)
	}
	if who.home == "/" || !path.IsAbs(who.home) || path.Clean(who.home) != who.home || strings.ContainsRune(who.home, 0) || slices.Contains(who.groups, 0) {
		return nil, fmt.Errorf("accounts keeper: %q can't have home %q and groups %v", name, who.home, who.groups)
	}
	return who, nil
}

// keepAccounts starts the keeper and has it read the files.
func (i *instance) keepAccounts(c AccountsConfig, paths []string) (*accounts, error) {
	a := &accounts{paths: paths}
	if err := missing(paths...); err != nil {
		return nil, err
	}
	a.files = fileIDs(paths)
	a.launch = i.accountsLaunch(c, paths)
	var err error
	if a.keeper, err = i.monitor.Keep(func() (privsep.Launch, error) { return a.launch, nil }); err != nil {
		return nil, err
	}
	r, err := CheckAccounts.Call(context.Background(), a.keeper, Ask{})
	if err == nil && len(r.Mistakes) > 0 {
		err = errors.New(strings.Join(r.Mistakes, "\n"))
	}
	if err != nil {
		a.keeper.Close()
		return nil, err
	}
	return a, nil
}

// missing tells of a file that is not there before a keeper does, which would do
// so among what else its end brings. Who may not look goes on.
func missing(paths ...string) error {
	for _, p := range paths {
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// accountsLaunch is that of a worker with the files, and no path, no network and
// no user of anybody's. Memory is for two checks at the dearest that is accepted.
func (i *instance) accountsLaunch(c AccountsConfig, paths []string) privsep.Launch {
	return privsep.Launch{
		Role:    &accountsRole,
		Sandbox: privsep.Sandbox{Open: paths, Memory: 1 << 30, Without: i.without},
		Message: &c,
	}
}

// A fileID is which file has a name. The zero one is of a file that can't be
// looked up: then the keeper's own look at what it has open must do.
type fileID struct{ dev, ino uint64 }

func fileIDs(paths []string) (all []fileID) {
	for _, p := range paths {
		var id fileID
		if info, err := os.Stat(p); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				id = fileID{uint64(s.Dev), s.Ino}
			}
		}
		all = append(all, id)
	}
	return all
}

// fresh restarts the keeper if a name now has another file than the keeper has.
func (a *accounts) fresh() (age int) {
	now := fileIDs(a.paths)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(now, a.files) {
		a.files = now // before the start: a file of later is seen next time
		a.age++
		a.keeper.Restart()
	}
	return a.age
}

// restart has the keeper started again, unless it was since age.
func (a *accounts) restart(age int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.age == age {
		a.age++
		a.keeper.Restart()
	}
}

// AccountsConfig is what the keeper is told beside its files, which are those of
// its settings' Paths.
type AccountsConfig struct {
	Local         bool
	MinUID        uint32
	AnyShell      bool
	Virtual       string `privsep:"max=1024"`
	VirtualUID    uint32
	VirtualGID    uint32
	UserList      string `privsep:"max=1024"`
	UserListAllow bool
	Anonymous     bool
}

func newAccountsConfig(s *account.Settings) AccountsConfig {
	c := AccountsConfig{UserList: s.UserList, UserListAllow: s.UserListAllow, Anonymous: s.Anonymous != nil}
	if s.Local != nil {
		c.Local, c.MinUID, c.AnyShell = true, s.Local.MinUID, s.Local.AnyShell
	}
	if s.Virtual != nil {
		c.Virtual, c.VirtualUID, c.VirtualGID = s.Virtual.File, s.Virtual.UID, s.Virtual.GID
	}
	return c
}
