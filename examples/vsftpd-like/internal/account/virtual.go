package account

import (
	"fmt"
	"path"
	"strings"
)

// Virtual lets users log in that the system doesn't know. They all run as one
// system user, each in a home of its own.
//
// The file has a line for each: name:hash:home, or name:hash:home:rw. Without
// rw the user may change nothing. Hashes are those of crypt(5), as made by
// "mkpasswd -m yescrypt", or argon2's. The file must not be readable for
// everybody nor writable for anybody but its owner.
type Virtual struct {
	File     string
	UID, GID uint32 // the system user, never 0
}

// Anonymous lets anybody in, with any password.
type Anonymous struct {
	Root     string // absolute
	UID, GID uint32 // never 0
	Write    bool
}

func parseVirtual(line string) (e *entry, err error) {
	f := strings.Split(line, ":")
	if len(f) != 3 && len(f) != 4 {
		return nil, errLine{fmt.Sprintf("%d fields", len(f)), "write name:hash:home, or name:hash:home:rw"}
	}
	e = &entry{name: f[0], home: f[2], virtual: true, aging: never, standing: inGoodStanding}
	if len(f) == 4 {
		if f[3] != "rw" && f[3] != "ro" {
			return nil, errLine{fmt.Sprintf("%.20q is neither rw nor ro", f[3]), "write rw, ro or nothing"}
		}
		e.write = f[3] == "rw"
	}
	if !ValidName(e.name) {
		return nil, errLine{fmt.Sprintf("%.70q can't be a name", f[0]), fmt.Sprintf("use letters, digits and _ . - @ +, at most %d, the first a letter, digit or _", MaxName)}
	}
	if !validHome(e.home) {
		return nil, errLine{fmt.Sprintf("home %.70q is not absolute or not clean", f[2]), "write a path from / without . or .. or doubled or trailing slash, and not / itself"}
	}
	if e.secret, err = parseSecret(f[1]); err != nil {
		return nil, errLine{err.Error(), "make a hash with mkpasswd -m yescrypt"}
	}
	return e, nil
}

// validHome refuses / as well: a home is the root of what its user sees, and
// nobody is to see everything.
func validHome(home string) bool {
	return path.IsAbs(home) && path.Clean(home) == home && home != "/" && len(home) <= MaxHome
}

// load adds the virtual users to r.
func (v *Virtual) load(r *roll) error {
	if v.UID == 0 || v.GID == 0 || reserved(v.UID) || reserved(v.GID) {
		return fmt.Errorf("virtual users would run as %d:%d: name a system user of their own", v.UID, v.GID)
	}
	return r.each(v.File, true, func(_ int, line string) error {
		e, err := parseVirtual(line)
		if err != nil {
			return err
		}
		if r.anonymous != nil && isAnonymous(e.name) {
			return errLine{"the name means anonymous", "rename the user, or disallow anonymous"}
		}
		e.uid, e.gid = v.UID, v.GID
		return r.add(e)
	})
}

// entry makes the account that everybody shares.
func (a *Anonymous) entry() (*entry, error) {
	if a.UID == 0 || a.GID == 0 || a.UID == 1<<32-1 || a.GID == 1<<32-1 {
		return nil, fmt.Errorf("anonymous users would run as %d:%d: name a system user of their own", a.UID, a.GID)
	}
	if !validHome(a.Root) {
		return nil, fmt.Errorf("anonymous root %q: write an absolute path without . or .. or trailing slash, and not / itself", a.Root)
	}
	return &entry{name: "anonymous", uid: a.UID, gid: a.GID, home: a.Root, write: a.Write,
		anonymous: true, aging: never, standing: inGoodStanding}, nil
}
