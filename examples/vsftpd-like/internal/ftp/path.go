package ftp

import (
	"path"
	"strings"
	"syscall"
)

// MaxPath is the most bytes of a path that [Files] is given.
const MaxPath = 2048

// resolve makes what a client wrote an absolute, clean path, from the working
// directory cwd, which is one already. It never leaves "/": ".." of the root is
// the root. Dots are resolved as text, so that a/../b is b even if a is a link.
//
// A path is bytes. Leading, trailing and inner spaces belong to it, and a dash
// or a tilde at the start means nothing. An error is a [syscall.Errno]:
// EINVAL for a path with NUL, which would end it early for the kernel (a name
// that passed a check would not be the name that is opened), and with LF, which
// no listing could show; ENAMETOOLONG for one of more than MaxPath bytes.
func resolve(cwd, arg string) (string, error) {
	if strings.ContainsAny(arg, "\x00\n") {
		return "", syscall.EINVAL
	}
	if !strings.HasPrefix(arg, "/") {
		arg = cwd + "/" + arg
	}
	p := path.Clean(arg)
	if len(p) > MaxPath {
		return "", syscall.ENAMETOOLONG
	}
	return p, nil
}

// quote writes a path for a 257 reply: a quote within is doubled (RFC 959,
// appendix II).
func quote(p string) string { return `"` + strings.ReplaceAll(p, `"`, `""`) + `"` }

// listArg takes the options off the argument of LIST, NLST or STAT, as clients
// send them for the ls that they think is behind it. A first word of a dash and
// other letters than ls's is a path; so is what follows "--".
func listArg(arg string) (all bool, rest string) {
	for strings.HasPrefix(arg, "-") {
		word, after, _ := strings.Cut(arg, " ")
		if word == "--" {
			return all, after
		}
		if len(word) < 2 || strings.Trim(word[1:], "1aACdFghlLnopqRrsStuU") != "" {
			break
		}
		all = all || strings.ContainsAny(word, "aA")
		arg = after
	}
	return all, arg
}

// split cuts a pattern off a path: its last element, if that has a wildcard.
func split(arg string) (dir, pattern string) {
	dir, pattern = path.Split(arg)
	if !strings.ContainsAny(pattern, "*?[") {
		return arg, ""
	}
	return dir, pattern
}
