package ftp

import (
	"context"
	"strings"
)

// rule says what a command's argument must be, and what its handler is given.
type rule uint8

const (
	_        rule = iota
	noArg         // ignored if there
	mayArg        // as it came
	mustArg       // as it came, never empty
	mustPath      // resolved
	mayPath       // resolved; without one the working directory
)

// command is one line of the table. In help the argument's notation stands
// before a colon.
type command struct {
	name, alias string
	login       bool // only after a login
	arg         rule
	do          func(e *engine, ctx context.Context, arg string)
	help        string
}

const open, shut = false, true

// table is everything that a client can ask for. The aliases are RFC 775's.
func table() []command {
	return []command{
		{"USER", "", open, mustArg, (*engine).user, "<name>: log in as"},
		{"PASS", "", open, mayArg, (*engine).pass, "<password>: prove it"},
		{"REIN", "", open, noArg, (*engine).rein, ": log out, and stay"},
		{"QUIT", "", open, noArg, (*engine).quit, ": leave, after a transfer under way"},
		{"NOOP", "", open, noArg, (*engine).noop, ": nothing"},
		{"SYST", "", open, noArg, (*engine).syst, ": what system this looks like"},
		{"FEAT", "", open, noArg, (*engine).feat, ": what is known beyond RFC 959"},
		{"HELP", "", open, mayArg, (*engine).help, "[<command>]: this"},
		{"OPTS", "", open, mustArg, (*engine).opts, "UTF8 ON | MLST <facts>: set options"},
		{"AUTH", "", open, mayArg, (*engine).auth, "TLS: go on under TLS"},
		{"PBSZ", "", open, mayArg, (*engine).setPbsz, "0: needed before PROT"},
		{"PROT", "", open, mayArg, (*engine).setProt, "P | C: data connections under TLS, or not"},
		{"ACCT", "", open, mayArg, (*engine).no, "(not implemented)"},
		{"SMNT", "", open, mayArg, (*engine).no, "(not implemented)"},
		{"SITE", "", shut, mustArg, (*engine).site, "HELP: there are no commands of this site's own"},

		{"TYPE", "", shut, mustArg, (*engine).setType, "A [N] | I | L 8: text or bytes"},
		{"MODE", "", shut, mustArg, (*engine).setMode, "S: stream is the only one"},
		{"STRU", "", shut, mustArg, (*engine).setStru, "F: file is the only one"},
		{"ALLO", "", shut, mayArg, (*engine).allo, "<bytes>: not needed here"},
		{"REST", "", shut, mustArg, (*engine).setRest, "<byte>: where the next RETR or STOR begins"},
		{"PORT", "", shut, mustArg, (*engine).port, "<h,h,h,h,p,p>: connect there"},
		{"EPRT", "", shut, mustArg, (*engine).eprt, "|1|<address>|<port>| or |2|...: connect there"},
		{"PASV", "", shut, noArg, (*engine).pasv, ": listen, IPv4"},
		{"EPSV", "", shut, mayArg, (*engine).epsv, "[1 | 2 | ALL]: listen"},

		{"PWD", "XPWD", shut, noArg, (*engine).pwd, ": the working directory"},
		{"CWD", "XCWD", shut, mustPath, (*engine).cwdTo, "<path>: go there"},
		{"CDUP", "XCUP", shut, noArg, (*engine).cdup, ": go to the parent"},
		{"STAT", "", open, mayArg, (*engine).stat, "[<path>]: this session, or a listing as reply"},
		{"SIZE", "", shut, mustPath, (*engine).size, "<path>: bytes that RETR would send in binary"},
		{"MDTM", "", shut, mustPath, (*engine).mdtm, "<path>: when it was changed, UTC"},
		{"MLST", "", shut, mayPath, (*engine).mlst, "[<path>]: facts about it"},
		{"MKD", "XMKD", shut, mustPath, (*engine).mkd, "<path>: make a directory"},
		{"RMD", "XRMD", shut, mustPath, (*engine).rmd, "<path>: remove an empty directory"},
		{"DELE", "", shut, mustPath, (*engine).dele, "<path>: remove a file"},
		{"RNFR", "", shut, mustPath, (*engine).rnfr, "<path>: rename this ..."},
		{"RNTO", "", shut, mustPath, (*engine).rnto, "<path>: ... to this"},

		{"LIST", "", shut, mayArg, (*engine).list, "[-a] [<path>]: list as ls -l"},
		{"NLST", "", shut, mayArg, (*engine).nlst, "[-a] [<path>]: list names"},
		{"MLSD", "", shut, mayPath, (*engine).mlsd, "[<path>]: list facts"},
		{"RETR", "", shut, mustPath, (*engine).retr, "<path>: get a file"},
		{"STOR", "", shut, mustPath, (*engine).stor, "<path>: put a file"},
		{"APPE", "", shut, mustPath, (*engine).appe, "<path>: put at a file's end"},
		{"STOU", "", shut, mayPath, (*engine).stou, "[<path>]: put under a new name"},
		{"ABOR", "", open, noArg, (*engine).abor, ": stop the transfer under way"},
	}
}

func (e *engine) lookup(verb string) *command {
	for i := range e.table {
		if c := &e.table[i]; c.name == verb || c.alias == verb && verb != "" {
			return c
		}
	}
	return nil
}

// parse cuts a line at its first space. Further spaces are the argument's.
func parse(text string) (verb, arg string) {
	verb, arg, _ = strings.Cut(text, " ")
	if len(verb) > 8 {
		return "", arg // no command's, and not worth folding
	}
	return strings.ToUpper(verb), arg
}

// http are the methods by which a browser, or a page that it was tricked by,
// shows itself: such a session ends before the body is read as commands
// (cross-protocol scripting).
func http(verb string) bool {
	switch verb {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH":
		return true
	}
	return false
}

// execute carries out one line.
func (e *engine) execute(ctx context.Context, l line) {
	if l.tooLong {
		e.reply(ctx, 500, "Line too long.")
		return
	}
	verb, arg := parse(l.text)
	if http(verb) {
		e.reply(ctx, 421, "This is FTP.")
		e.end(ErrNotFTP)
		return
	}
	c := e.lookup(verb)
	if verb != "RNTO" {
		e.renameFrom = "" // RNTO comes at once or not at all
	}
	switch {
	case c == nil:
		e.reply(ctx, 500, "Unknown command.")
		return
	case c.login && e.files == nil:
		e.reply(ctx, 530, "Log in with USER and PASS.")
		return
	case arg == "" && (c.arg == mustArg || c.arg == mustPath):
		e.reply(ctx, 501, "An argument is missing.")
		return
	}
	if c.arg == mustPath || c.arg == mayPath {
		p, err := resolve(e.dir, arg)
		if err != nil {
			e.refuse(ctx, err)
			return
		}
		arg = p
	}
	c.do(e, ctx, arg)
}
