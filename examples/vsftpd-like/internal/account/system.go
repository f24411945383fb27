package account

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Local lets users of the system log in: those of passwd(5) whose password is
// in shadow(5).
type Local struct {
	Passwd, Shadow, Group, Shells string // empty: the file in /etc

	MinUID   uint32 // lower ones are refused; 0 is 1000. uid 0 never logs in
	AnyShell bool   // also users whose shell isn't listed in Shells
	Write    bool   // they may change their files
}

// Reserved ids: nobody, and the -1 of 16 and of 32 bits, which several system
// calls take for "leave as it is".
func reserved(id uint32) bool { return id == 65534 || id == 65535 || id == 1<<32-1 }

// passwdLine is one line of passwd(5).
type passwdLine struct {
	name, password string
	uid, gid       uint32
	home, shell    string
}

func parsePasswd(line string) (p passwdLine, err error) {
	f := strings.Split(line, ":")
	if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
		return p, errLine{"NIS entries are not supported", "remove the line, or serve these users from a virtual_users file"}
	}
	if len(f) != 7 || f[0] == "" {
		return p, errLine{"not a passwd line", "write name:x:uid:gid:comment:home:shell"}
	}
	uid, ok1 := number(f[2], 1<<32-1)
	gid, ok2 := number(f[3], 1<<32-1)
	if !ok1 || !ok2 {
		return p, errLine{"uid or gid is not a number of 32 bits", "write decimal digits without sign or leading zero"}
	}
	return passwdLine{f[0], f[1], uint32(uid), uint32(gid), f[5], f[6]}, nil
}

// aging is when an account or its password ends, in days since 1970; -1 is never.
type aging struct{ changed, max, expire int64 }

// reason is inGoodStanding on a day when the account may be used. The rules
// are pam_unix's, but a password to be changed is a refusal: FTP has no way
// to change it.
func (a aging) reason(now time.Time) Reason {
	day := now.Unix() / 86400
	switch {
	case a.expire >= 0 && day >= a.expire:
		return AccountExpired
	case a.changed == 0:
		return PasswordChangeDue
	case a.max >= 0 && a.changed > 0 && day-a.changed > a.max:
		return PasswordExpired
	}
	return inGoodStanding
}

var never = aging{-1, -1, -1}

func parseShadow(line string) (name, hash string, a aging, err error) {
	f := strings.Split(line, ":")
	if len(f) != 9 || f[0] == "" {
		return "", "", never, errLine{"not a shadow line", "write the nine fields of shadow(5)"}
	}
	a = never
	for _, p := range []struct {
		field int
		days  *int64
	}{{3, &a.changed}, {5, &a.max}, {8, &a.expire}} {
		text := f[p.field-1]
		if text == "" || text == "-1" {
			continue
		}
		v, ok := number(text, 1<<31)
		if !ok {
			return "", "", never, errLine{fmt.Sprintf("field %d is not a number of days", p.field), "write decimal digits, or nothing"}
		}
		*p.days = int64(v)
	}
	return f[0], f[1], a, nil
}

// parseGroup returns the members of one line of group(5).
func parseGroup(line string) (gid uint32, members []string, err error) {
	f := strings.Split(line, ":")
	if strings.HasPrefix(line, "+") || strings.HasPrefix(line, "-") {
		return 0, nil, errLine{"NIS entries are not supported", "remove the line"}
	}
	if len(f) != 4 || f[0] == "" {
		return 0, nil, errLine{"not a group line", "write name:x:gid:member,member"}
	}
	id, ok := number(f[2], 1<<32-1)
	if !ok {
		return 0, nil, errLine{"gid is not a number of 32 bits", "write decimal digits without sign or leading zero"}
	}
	return uint32(id), strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' }), nil
}

// located is l with every file named.
func (l *Local) located() Local {
	to := *l
	for _, f := range []struct {
		path *string
		def  string
	}{{&to.Passwd, "/etc/passwd"}, {&to.Shadow, "/etc/shadow"}, {&to.Group, "/etc/group"}, {&to.Shells, "/etc/shells"}} {
		if *f.path == "" {
			*f.path = f.def
		}
	}
	if to.MinUID == 0 {
		to.MinUID = 1000
	}
	return to
}

// load adds the system's users to r.
func (l *Local) load(r *roll) error {
	at := l.located()
	users, shell := map[string]*entry{}, map[string]string{}
	hidden := map[string]bool{} // the password is in shadow, where it belongs
	passwd := r.each(at.Passwd, false, func(_ int, line string) error {
		p, err := parsePasswd(line)
		if err != nil {
			return err
		}
		if p.shell == "" {
			p.shell = "/bin/sh" // passwd(5)
		}
		e := &entry{name: p.name, uid: p.uid, gid: p.gid, home: p.home, write: l.Write, aging: never, standing: inGoodStanding}
		switch {
		case p.uid == 0 || p.uid < at.MinUID || reserved(p.uid):
			e.standing = SystemAccount
		case p.gid == 0 || reserved(p.gid):
			e.standing = RootGroup
		case !validHome(p.home):
			e.standing = BadHome
		}
		hidden[p.name] = p.password == "x"
		users[p.name], shell[p.name] = e, p.shell
		return r.add(e)
	})

	seen := map[string]bool{}
	shadow := r.each(at.Shadow, true, func(_ int, line string) error {
		name, hash, a, err := parseShadow(line)
		if err != nil {
			return err
		}
		if seen[name] {
			return errLine{"name occurs twice", "remove one of the lines"}
		}
		seen[name] = true
		if e := users[name]; e != nil && hidden[name] {
			e.aging = a
			e.secret, err = parseSecret(hash)
			if err != nil && strings.HasPrefix(hash, "$") {
				e.fault(UnsupportedHash)
			}
		}
		return nil
	})
	for _, e := range users {
		if e.secret == nil {
			e.fault(Locked)
		}
	}

	group := r.each(at.Group, false, func(_ int, line string) error {
		gid, members, err := parseGroup(line)
		if err != nil {
			return err
		}
		for _, m := range members {
			if e := users[m]; e != nil && gid != 0 && gid != e.gid && !slices.Contains(e.groups, gid) {
				e.groups = append(e.groups, gid)
				slices.Sort(e.groups)
			}
		}
		return nil
	})
	if l.AnyShell {
		return errors.Join(passwd, shadow, group)
	}
	shells := map[string]bool{}
	listed := r.each(at.Shells, false, func(_ int, line string) error { shells[line] = true; return nil })
	for name, e := range users {
		if !shells[shell[name]] {
			e.fault(BadShell)
		}
	}
	return errors.Join(passwd, shadow, group, listed)
}

// fault makes an entry refuse for a reason, unless it has one already.
func (e *entry) fault(why Reason) {
	if e.standing == inGoodStanding {
		e.standing = why
	}
}
