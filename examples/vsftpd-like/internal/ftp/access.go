package ftp

import (
	"context"
	"errors"
	"io/fs"
)

// maxFailures is how many logins may fail. The one after them is not asked for.
const maxFailures = 3

func (e *engine) user(ctx context.Context, name string) {
	if e.files != nil {
		e.reply(ctx, 530, "Logged in already; REIN logs out.")
		return
	}
	if e.refusedInTheClear(ctx, false) {
		return
	}
	e.name = name
	e.reply(ctx, 331, "Password, please.")
}

func (e *engine) pass(ctx context.Context, password string) {
	switch {
	case e.files != nil:
		e.reply(ctx, 230, "Logged in already.")
		return
	case e.name == "":
		e.reply(ctx, 503, "USER first.")
		return
	}
	name := e.name
	e.name = ""
	f, info, err := e.Login.Login(ctx, name, password)
	if err == nil && f == nil {
		err = fs.ErrPermission // what isn't there proves nothing
	}
	if err == nil {
		e.files, e.info = f, info
		if info.Dir != "" {
			e.dir, err = resolve("/", info.Dir)
			if err != nil {
				e.dir = "/"
			}
		}
		e.reply(ctx, 230, append(info.Message, "Logged in.")...)
		return
	}
	e.failures++
	text := "Login incorrect."
	if !errors.Is(err, fs.ErrPermission) {
		text = "No login now."
	}
	if e.failures < maxFailures {
		e.reply(ctx, 530, text)
		return
	}
	e.add(530, text)
	e.reply(ctx, 421, "Too many failures.")
	e.end(ErrLogins)
}

// rein forgets the user and all settings. Failures stay counted.
func (e *engine) rein(ctx context.Context, _ string) {
	if e.files != nil && e.Config.LoginOnce {
		e.reply(ctx, 502, "Logged in for good; connect again to be somebody else.")
		return
	}
	if e.files != nil {
		e.files.Close()
	}
	e.reset()
	e.reply(ctx, 220, e.Config.greeting())
}

func (e *engine) quit(ctx context.Context, _ string) {
	e.reply(ctx, 221, "Goodbye.")
	e.end(nil)
}
