package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-privsep/sallyport/privsep"
)

// What follows holds in the launcher, too: it is what a monitor that was taken
// over can't have started.

// asGoodAsRoot are groups that Debian gives fixed numbers and that own what makes
// a user root: disk (every block device), kmem, shadow (the passwords), and staff
// (/usr/local, up to Debian 12, where root's PATH begins). A user who is in one of
// them is served without it.
var asGoodAsRoot = []uint32{6, 15, 42, 50}

// noFiles is for workers that have no path: descriptors are all that they get.
func noFiles(p *privsep.Sandbox) error {
	if len(p.Open) > 0 {
		return errors.New("it has no file")
	}
	return noPaths(p)
}

// noPaths is for workers that have files open, and no path.
func noPaths(p *privsep.Sandbox) error {
	if p.Root != "" || len(p.Read)+len(p.Write) > 0 {
		return errors.New("it has no path")
	}
	return someUser(p)
}

// aUsersFiles is for workers that have what a user may have.
func aUsersFiles(p *privsep.Sandbox) error {
	if len(p.Open) > 0 {
		return errors.New("it opens its files itself")
	}
	return someUser(p)
}

func someUser(p *privsep.Sandbox) error {
	for _, g := range append([]uint32{p.GID}, p.Groups...) {
		if slices.Contains(asGoodAsRoot, g) {
			return fmt.Errorf("group %d is as good as root", g)
		}
	}
	return nil
}
