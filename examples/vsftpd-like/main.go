// Command vsftpd-like is an FTP server in processes of five roles. A session
// worker speaks with one client and has no file, no network and no user of its
// own. A files worker has one user's files and nothing else. One keeper has the
// password file, another the TLS key. The monitor between them accepts
// connections, opens data connections and starts the others; it reads no byte of
// any client and moves no data.
//
// Without a configuration it serves a small demonstration directory, read
// only, to anonymous clients on 127.0.0.1:2121.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/config"
	"github.com/go-privsep/sallyport/internal/sys"
	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/sandbox"
)

func main() { privsep.Main(monitor, &sessionRole, &filesRole, &accountsRole, &keysRole) }

func monitor() {
	file := flag.String("config", "", "serve as this `file` says, instead of a demonstration")
	verbose := flag.Bool("v", false, "log refusals and sessions, too")
	var listen []netip.AddrPort
	flag.Func("listen", "listen on this `address:port` and no other; port 0 is any. May be repeated", func(v string) error {
		a, err := netip.ParseAddrPort(v)
		listen = append(listen, a)
		return err
	})
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "vsftpd-like: unexpected argument %q: the configuration is given with -config FILE\n", flag.Arg(0))
		os.Exit(2)
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(&source{file: *file, listen: listen}, newPolicy, log); err != nil {
		fmt.Fprintln(os.Stderr, "vsftpd-like:", err)
		os.Exit(1)
	}
}

// A source is where configurations come from, at the start and at each reload.
type source struct {
	file    string           // empty: the demonstration
	listen  []netip.AddrPort // overrides the file's, if not nil
	managed bool             // by the service manager

	// secluded is a server that has no network but the sockets it was given, so
	// that it can connect to nobody.
	secluded bool
}

// manage has the service manager's socket listened on, and none but such.
func (f *source) manage(address netip.AddrPort) {
	if !f.managed {
		f.managed, f.listen = true, nil
	}
	f.listen = append(f.listen, address)
}

func (f *source) load() (config.Config, error) {
	c, err := config.Load(f.file)
	if err == nil && f.listen != nil {
		c.Listen = f.listen
	}
	c.Active = c.Active && !f.secluded
	return c, err
}

// run is the monitor. The policy is [newPolicy]'s, or one by which a test finds
// out what a monitor that was taken over could do.
func run(from *source, policyOf policyMaker, log *slog.Logger) error {
	orders := listenForOrders()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	before, err := privsep.Inherit(ctx)
	if err != nil {
		return err
	}
	m, err := newManager(log)
	if err != nil {
		return err
	}
	defer m.close()
	var given doors
	var ports *pool
	if before != nil {
		given, ports, err = inherit(before.Listeners, from)
	} else {
		given, ports, err = activate(m.sockets, from)
	}
	if err != nil {
		return err
	}
	c, without := config.Config{}, sandbox.Mechanisms(0)
	if ports.has() {
		// What workers get a network namespace for, all of this server has.
		if from.secluded, err = sys.OnlyLoopback(); err != nil {
			return err
		}
		if from.secluded {
			without = sandbox.Namespaces
		}
	}
	if from.file != "" {
		c, err = from.load()
	} else {
		var remove func()
		c, remove, err = demo(from.listen)
		defer remove()
		if os.Geteuid() != 0 {
			// An ordinary user tries it out: whatever this host does not
			// give is done without, and named below.
			without |= sandbox.Identity | sandbox.Root | sandbox.Namespaces | sandbox.Landlock |
				sandbox.LandlockScopes | sandbox.WriteExecute | sandbox.Proof
		}
	}
	if err != nil {
		return err
	}
	s, err := newServer(c, policyOf, ports, without, log, &privsep.Upgrade{Env: m.env}, before)
	if err != nil {
		return err
	}
	defer s.monitor.Close()
	s.doors = given
	all, err := s.bind()
	if err != nil {
		return err
	}
	var scraped *net.UnixListener
	scrape := s.scrape
	if before != nil {
		scrape += ".new" // the predecessor's is in its place
	}
	if s.metrics != nil {
		if scraped, err = listenMetrics(scrape); err != nil {
			return c.Mistake("metrics_socket", err.Error())
		}
		defer scraped.Close()
		go s.metrics.serve(scraped, log)
	}
	if before != nil && scraped != nil {
		// Now: afterwards the directory is no more the monitor's to change.
		if err := os.Rename(scrape, s.scrape); err != nil {
			log.Error("metrics", "err", err)
		}
	}
	if err := s.confine(from); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	go func() { end(s.monitor.Wait()) }()
	if err := s.reportProcesses(os.Stdout); err != nil {
		return err
	}
	if err := s.report(ctx, os.Stdout); err != nil {
		return err
	}
	for _, address := range s.config.Listen {
		fmt.Printf("listening on %v\n", all[address].Addr())
	}
	if ports.has() {
		fmt.Printf("passive ports: %d of the service manager's\n", len(ports.ports))
	}
	if from.secluded {
		fmt.Println("no network but these: PORT and EPRT are refused, and workers share the server's namespaces")
	}
	if from.file == "" {
		fmt.Printf("try: curl ftp://%v/\n", all[s.config.Listen[0]].Addr())
	}
	if before != nil {
		state, err := before.Halt(ctx)
		if err != nil {
			return err
		}
		if err := s.gate.UnmarshalBinary(state); err != nil {
			log.Error("penalties are lost by the upgrade", "err", err)
		}
		if err := before.Serve(ctx); err != nil {
			log.Error("the predecessor does not answer; serving all the same", "err", err)
		}
	}
	s.serve(ctx, all, func() {
		m.ready(s.addresses())
		if !s.control(ctx, from, orders, m) {
			m.tell(sd.SdNotifyStopping)
		} else if scraped != nil {
			scraped.SetUnlinkOnClose(false) // it is the successor's by now
			scraped.Close()
		}
	})
	var gone *privsep.ExitError
	if errors.As(context.Cause(ctx), &gone) {
		return lost(gone)
	}
	return nil
}

// demoUser is the monitor's in a demonstration.
const demoUser = 60706

// demo is a configuration that can hurt nobody, with something to look at.
func demo(listen []netip.AddrPort) (config.Config, func(), error) {
	dir, err := os.MkdirTemp("", "vsftpd-like-demo-")
	if err != nil {
		return config.Config{}, func() {}, err
	}
	remove := func() { os.RemoveAll(dir) }
	text := "This file came through a worker that has no network, as a user that is nobody,\n" +
		"and then through one that has no file.\n"
	err = errors.Join(
		os.Chmod(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "WELCOME.txt"), []byte(text), 0o644),
		os.Mkdir(filepath.Join(dir, "pub"), 0o755),
		os.WriteFile(filepath.Join(dir, "pub", "one-mebibyte.bin"), make([]byte, 1<<20), 0o644),
	)
	if os.Geteuid() == 0 { // who has left root removes it
		for _, name := range []string{"WELCOME.txt", "pub/one-mebibyte.bin", "pub", "."} {
			err = errors.Join(err, os.Chown(filepath.Join(dir, name), demoUser, demoUser))
		}
	}
	c := config.Default()
	if c.Listen = listen; listen == nil {
		c.Listen = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:2121")}
	}
	c.Anonymous = true
	// Also in a container that has 65536 ids; systemd gives these to nobody.
	c.WorkerIDs, c.MaxSessions = privsep.IDs{First: demoUser + 1, Last: 61183}, 400
	c.MonitorUser = config.Identity{UID: demoUser, GID: demoUser}
	c.AnonymousRoot = dir
	return c, remove, err
}
