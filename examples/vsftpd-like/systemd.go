package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"
)

// A manager is the service manager that started this process, as far as there
// is one. Its zero value is none.
type manager struct {
	log      *slog.Logger
	socket   *net.UnixConn
	watchdog time.Duration // it wants to hear something within this; 0: it does not
	sockets  []*os.File    // that it has opened for this process
	env      []string      // of a successor
}

// newManager takes what the manager says out of the environment, where it would
// be everybody's. The socket is opened here and once, unlike daemon.SdNotify
// does it, because a monitor that is confined can't.
func newManager(log *slog.Logger) (*manager, error) {
	m := &manager{log: log}
	name, limit := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC")
	os.Unsetenv("NOTIFY_SOCKET")
	var err error
	if m.watchdog, err = sd.SdWatchdogEnabled(true); err != nil {
		return nil, fmt.Errorf("WATCHDOG_USEC: %w", err)
	}
	m.sockets = activation.Files(true)
	m.env = os.Environ()
	if name == "" {
		return m, nil
	}
	m.env = append(m.env, "NOTIFY_SOCKET="+name)
	if m.watchdog > 0 {
		m.env = append(m.env, "WATCHDOG_USEC="+limit)
	}
	m.socket, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return m, nil
}

// tell sends lines such as READY=1 (sd_notify(3)). A manager that does not read
// holds up neither an order nor the next that it could be told: what does not
// fit within a moment is lost.
func (m *manager) tell(lines ...string) {
	if m.socket == nil {
		return
	}
	_ = m.socket.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := m.socket.Write([]byte(strings.Join(lines, "\n"))); err != nil {
		m.log.Error("the service manager can't be told", "what", lines[0], "err", err)
	}
}

func (m *manager) ready(doors []string) {
	m.tell(sd.SdNotifyReady, "STATUS=listening on "+strings.Join(doors, ", "))
}

func (m *manager) reloading() {
	m.tell(sd.SdNotifyReloading, strings.TrimSpace(sd.SdNotifyMonotonicUsec()))
}

// alive is to be told twice in the time that the manager waits.
func (m *manager) alive() (tick <-chan time.Time, stop func()) {
	if m.socket == nil || m.watchdog <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(m.watchdog / 2)
	return t.C, t.Stop
}

func (m *manager) close() {
	if m.socket != nil {
		m.socket.Close()
	}
}
