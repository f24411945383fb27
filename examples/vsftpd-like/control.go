package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
)

// Orders are what signals ask for. As many of a kind as come while one is
// obeyed are one.
type orders struct{ reload, upgrade chan os.Signal }

// listenForOrders comes before anything else, because by default each of these
// signals ends the process.
func listenForOrders() orders {
	o := orders{make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(o.reload, syscall.SIGHUP)
	signal.Notify(o.upgrade, syscall.SIGUSR2)
	return o
}

// control obeys orders, one after the other, until ctx ends or a successor
// serves, and reports whether one does.
func (i *instance) control(ctx context.Context, from *source, o orders, m *manager) (replaced bool) {
	tick, stop := m.alive()
	defer stop()
	done := make(chan int)
	busy := false
	for {
		reload, upgrade := o.reload, o.upgrade
		if busy {
			reload, upgrade = nil, nil
		}
		select {
		case <-ctx.Done():
			if busy {
				<-done
			}
			return false
		case <-tick:
			m.tell(sd.SdNotifyWatchdog)
		case <-reload:
			busy = true
			go func() {
				m.reloading()
				i.reload(ctx, from)
				m.ready(i.current.Load().addresses())
				done <- 0
			}()
		case <-upgrade:
			busy = true
			go func() { done <- i.upgrade(ctx, from) }()
		case pid := <-done:
			busy = false
			if pid != 0 {
				m.tell(fmt.Sprintf("MAINPID=%d", pid))
				select {
				case <-o.reload: // it may have come after the other had read its configuration
					if err := i.monitor.HangUpSuccessor(ctx); err != nil {
						i.log.Error("a reload is lost: ask for it again", "err", err)
					}
				default:
				}
				return true
			}
		}
	}
}

// reload reads the configuration, the account files and the lists again. New
// sessions get what they say, and those that run keep what they have. If
// anything is wrong with it, nothing has changed.
func (i *instance) reload(ctx context.Context, from *source) {
	if from.file == "" {
		i.log.Warn("nothing to reload: the demonstration has no configuration file")
		return
	}
	err := i.replace(ctx, from)
	if err == nil {
		i.log.Info("configuration reloaded", "file", from.file, "listen", i.current.Load().addresses())
		return
	}
	const refused = "configuration refused, the old one stays"
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) {
		i.log.Error(refused, "file", from.file, "err", err)
	}
	for _, m := range mistakes {
		i.log.Error(refused, "file", m.File, "line", m.Line, "err", m.Problem)
	}
}

func (i *instance) replace(ctx context.Context, from *source) error {
	c, err := from.load()
	if err != nil {
		return err
	}
	s, err := i.configure(c)
	if err != nil {
		return err
	}
	// A worker of each role proves that its sandbox can be had.
	err = s.report(ctx, io.Discard)
	var all doors
	if err == nil {
		all, err = s.bind()
	}
	if err != nil {
		s.close()
		return err
	}
	i.adopt(s)
	i.enter(ctx, all)
	return nil
}
