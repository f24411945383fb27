package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/privsep"
)

// TestRoleCheck: what no monitor gets a worker for, and that what an honest one
// asks for it does get.
func TestRoleCheck(t *testing.T) {
	home := privsep.Sandbox{UID: 1000, GID: 1000, Root: "/home/alice", Write: []string{"/"}, Groups: []uint32{27, 33}}
	files := privsep.Sandbox{Open: []string{"/etc/shadow"}}
	with := func(p privsep.Sandbox, groups ...uint32) privsep.Sandbox {
		p.Groups = slices.Clone(groups)
		return p
	}
	shadow := home
	shadow.GID = 42
	for _, c := range []struct {
		role    *privsep.Role
		sandbox privsep.Sandbox
		want    string
	}{
		{&sessionRole, privsep.Sandbox{UID: 90000, GID: 90000}, ""},
		{&sessionRole, home, "no path"},
		{&sessionRole, privsep.Sandbox{Read: []string{"/etc"}}, "no path"},
		{&sessionRole, files, "no file"},
		{&sessionRole, privsep.Sandbox{GID: 42}, "group 42"},
		{&filesRole, home, ""},
		{&filesRole, files, "opens its files itself"},
		{&filesRole, shadow, "group 42"},
		{&filesRole, with(home, 27, 42), "group 42"},
		{&filesRole, with(home, 6), "group 6"},
		{&filesRole, with(home, 15), "group 15"},
		{&accountsRole, files, ""},
		{&accountsRole, home, "no path"},
		{&keysRole, files, ""},
		{&keysRole, home, "no path"},
	} {
		err := c.role.Check(&c.sandbox)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s, %v: got %v, want %q", c.role.Name, &c.sandbox, err, c.want)
		}
	}
}
