package ftp

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/files"
)

func (e *engine) noop(ctx context.Context, _ string) { e.reply(ctx, 200, "Nothing done.") }
func (e *engine) no(ctx context.Context, _ string)   { e.reply(ctx, 502, "Not implemented.") }
func (e *engine) syst(ctx context.Context, _ string) { e.reply(ctx, 215, "UNIX Type: L8") }
func (e *engine) allo(ctx context.Context, _ string) { e.reply(ctx, 202, "Not needed.") }

func (e *engine) setType(ctx context.Context, arg string) {
	switch strings.ToUpper(strings.TrimSpace(arg)) {
	case "A", "A N":
		e.ascii = true
		if !e.Config.BinaryOnly {
			e.rest = 0 // it counted bytes of the file
		}
		e.reply(ctx, 200, "Type is ASCII.")
	case "I", "L 8":
		e.ascii = false
		e.reply(ctx, 200, "Type is binary.")
	case "E", "E N", "E T", "E C", "A T", "A C", "L", "L 7", "L 16", "L 32", "L 36":
		e.reply(ctx, 504, "No such type here.")
	default:
		e.reply(ctx, 501, "Not a type.")
	}
}

// text reports whether transfers convert the ends of lines.
func (e *engine) text() bool { return e.ascii && !e.Config.BinaryOnly }

func (e *engine) setMode(ctx context.Context, arg string) { e.only(ctx, arg, "S", "BC") }
func (e *engine) setStru(ctx context.Context, arg string) { e.only(ctx, arg, "F", "RP") }

// only accepts the one value that is implemented of those that RFC 959 knows.
func (e *engine) only(ctx context.Context, arg, have, known string) {
	switch arg = strings.ToUpper(strings.TrimSpace(arg)); {
	case arg == have:
		e.reply(ctx, 200, "As ever.")
	case len(arg) == 1 && strings.Contains(known, arg):
		e.reply(ctx, 504, "Only "+have+" here.")
	default:
		e.reply(ctx, 501, "Only "+have+" here.")
	}
}

func (e *engine) setRest(ctx context.Context, arg string) {
	n, err := strconv.ParseUint(strings.TrimSpace(arg), 10, 63)
	switch {
	case err != nil:
		e.reply(ctx, 501, "Not a position.")
	case n > 0 && e.text():
		e.reply(ctx, 504, "Not in ASCII; TYPE I first.")
	default:
		e.rest = int64(n)
		e.reply(ctx, 350, "The next transfer begins at "+strconv.FormatUint(n, 10)+".")
	}
}

// facts are RFC 3659's, in the order in which a listing has them.
var facts = [...]struct {
	name string
	bit  files.Facts
}{
	{"type", files.FactType}, {"size", files.FactSize}, {"modify", files.FactModify},
	{"perm", files.FactPerm}, {"unique", files.FactUnique}, {"UNIX.mode", files.FactUnixMode},
	{"UNIX.owner", files.FactUnixOwner}, {"UNIX.group", files.FactUnixGroup},
}

func (e *engine) feat(ctx context.Context, _ string) {
	mlst := "MLST "
	for _, f := range facts {
		mlst += f.name
		if e.facts&f.bit != 0 {
			mlst += "*"
		}
		mlst += ";"
	}
	lines := []string{"Features:", "EPRT", "EPSV", "MDTM", mlst, "PASV", "REST STREAM", "SIZE", "TVFS", "UTF8"}
	if e.TLS != nil {
		lines = append(lines, "AUTH TLS", "PBSZ", "PROT")
	}
	e.reply(ctx, 211, append(lines, "End")...)
}

// opts sets what FEAT told. UTF8 can only be on: names are bytes, and pass.
func (e *engine) opts(ctx context.Context, arg string) {
	name, value, _ := strings.Cut(arg, " ")
	switch strings.ToUpper(name) {
	case "UTF8", "UTF-8":
		if v := strings.ToUpper(value); v != "" && v != "ON" {
			e.reply(ctx, 504, "Always on.")
			return
		}
		e.reply(ctx, 200, "Always on.")
	case "MLST":
		e.facts = 0
		chosen := ""
		for _, f := range facts {
			if slices.ContainsFunc(strings.Split(value, ";"), func(w string) bool { return strings.EqualFold(w, f.name) }) {
				e.facts |= f.bit
				chosen += f.name + ";"
			}
		}
		e.reply(ctx, 200, strings.TrimSpace("MLST OPTS "+chosen))
	default:
		e.reply(ctx, 501, "No such option.")
	}
}

func (e *engine) help(ctx context.Context, arg string) {
	if name, _ := parse(arg); name != "" {
		switch c := e.lookup(name); {
		case name == "SITE":
			e.site(ctx, "HELP")
		case c == nil:
			e.reply(ctx, 502, "Unknown command.")
		default:
			e.reply(ctx, 214, c.name+" "+c.help)
		}
		return
	}
	lines := []string{"Commands:"}
	for i, c := range e.table {
		if i%8 == 0 {
			lines = append(lines, "")
		}
		lines[len(lines)-1] += fmt.Sprintf("%-6s", c.name)
	}
	e.reply(ctx, 214, append(lines, "HELP <command> says more.")...)
}

func (e *engine) site(ctx context.Context, arg string) {
	if strings.EqualFold(strings.TrimSpace(arg), "HELP") {
		e.reply(ctx, 214, "No commands of this site's own.")
		return
	}
	e.no(ctx, arg)
}
