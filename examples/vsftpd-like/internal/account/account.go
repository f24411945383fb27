// Package account decides who may log in. It runs in the monitor, so it is
// small, uses no cgo, no name service, and reads nothing but the files named
// in its [Settings].
//
// What you get: [Book.Authenticate] is the only source of an [Account]; there
// is no boolean that says "logged in". A client cannot tell a refusal from
// another, neither by its text nor by its time: an unknown name, a locked
// account and a wrong password all cost one password check.
//
// Not protected: PAM modules, LDAP, NIS and systemd-homed are not consulted.
// How often a source may try is the caller's business. Anonymous logins are
// told from others by their time, because they check no password.
//
// No network code, no file transfer, no decision about paths may live here.
package account

import (
	"slices"
	"strings"
	"syscall"
)

// MaxHome bounds what is looked at, in bytes.
const MaxHome = 1024

// An Account is a login that was proved. Only [Book.Authenticate] makes one;
// every method of a nil or a zero Account panics, so a value that was never
// proved can't be mistaken for uid 0.
type Account struct{ of *entry }

// entry is what the files say about a name, before anything is proved.
type entry struct {
	name      string
	uid, gid  uint32
	groups    []uint32
	home      string
	write     bool
	anonymous bool
	virtual   bool
	standing  Reason // only inGoodStanding lets in
	secret    *secret
	aging     aging
}

// Name is the login's name, as the files spell it.
func (a *Account) Name() string { return a.of.name }

// UID is never 0.
func (a *Account) UID() uint32 { return a.of.uid }

// GID is the primary group, never 0.
func (a *Account) GID() uint32 { return a.of.gid }

// Groups are the supplementary groups: sorted, without GID and without 0. The
// caller owns the slice.
func (a *Account) Groups() []uint32 { return slices.Clone(a.of.groups) }

// Home is an absolute path. Whether it exists, and is a directory, shows when
// the caller opens it.
func (a *Account) Home() string { return a.of.home }

// Writable reports whether the account may change anything.
func (a *Account) Writable() bool { return a.of.write }

// Anonymous reports whether nobody was identified.
func (a *Account) Anonymous() bool { return a.of.anonymous }

// Virtual reports whether the account is one of [Virtual]'s.
func (a *Account) Virtual() bool { return a.of.virtual }

// A Refusal says in the monitor's log why a login was denied. The client gets
// the errno, which is the same for each reason.
type Refusal struct {
	Name   string // as the client sent it: print it with %q
	Reason Reason
	Err    error // of Unavailable
}

func (r *Refusal) Error() string {
	if r.Err != nil {
		return "login refused: " + r.Reason.String() + ": " + r.Err.Error()
	}
	return "login refused: " + r.Reason.String()
}

// Unwrap is EACCES, whatever the reason: this is all that may reach a worker.
func (r *Refusal) Unwrap() error { return syscall.EACCES }

// Reason is why a login was refused. The zero value refuses too.
type Reason uint8

const (
	Unspecified Reason = iota
	Malformed
	Unknown
	WrongPassword
	Locked
	UnsupportedHash
	SystemAccount
	RootGroup
	BadShell
	BadHome
	AccountExpired
	PasswordExpired
	PasswordChangeDue
	NotListed
	Unavailable
	inGoodStanding // not a reason: what an entry needs to be let in
)

// String is one line for a log.
func (r Reason) String() string {
	switch r {
	case Malformed:
		return "name or password out of form"
	case Unknown:
		return "no such user"
	case WrongPassword:
		return "wrong password"
	case Locked:
		return "account is locked or has no password"
	case UnsupportedHash:
		return "password hash is of an unsupported scheme or too costly"
	case SystemAccount:
		return "uid is below the least allowed or reserved"
	case RootGroup:
		return "primary group is 0"
	case BadShell:
		return "login shell is not listed"
	case BadHome:
		return "home directory is not an absolute path"
	case AccountExpired:
		return "account has expired"
	case PasswordExpired:
		return "password is too old"
	case PasswordChangeDue:
		return "password must be changed first"
	case NotListed:
		return "user list denies this name"
	case Unavailable:
		return "account files can't be read"
	}
	return "unspecified"
}

// isAnonymous reports whether name asks for the anonymous account.
func isAnonymous(name string) bool {
	return strings.EqualFold(name, "anonymous") || strings.EqualFold(name, "ftp")
}
