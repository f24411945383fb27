// Ftpbench measures FTP servers beside each other on one machine and prints a
// table in Markdown.
//
// Every row is measured in rounds, the servers in turn within each (A B A B
// ...), after the machine has come to rest. A round before the first doesn't
// count: on a virtual machine the first use of memory is the host's work. A cell is the median of the rounds,
// with the least and the greatest; a ratio is the median of the rounds' own
// ratios, so that what slows the machine for a while slows both sides of it.
// Only ratios of one run say something.
//
// It needs root, as the servers do, starts them on 127.0.0.1 in a mount
// namespace of their own, and keeps all files on tmpfs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/bench/peer"
	"github.com/go-privsep/sallyport/bench/rows"
)

func main() {
	peer.Main()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "ftpbench:", err)
		}
		os.Exit(1)
	}
}

type bench struct {
	servers []*peer.Server
	rounds  int
	size    rows.Size
	dir     string
	spares  int
	settle  time.Duration
	log     io.Writer

	running []*peer.Instance
	started int // measurements
	busy    int // of them, those that began on a machine not at rest
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	b := &bench{log: log}
	f := flag.NewFlagSet("ftpbench", flag.ContinueOnError)
	f.SetOutput(log)
	names := f.String("servers", "sallyport,vsftpd", "whom to measure; the last is what the first is compared with. sallyport+isolation=shared sets what its configuration has")
	only := f.String("rows", "", "measure only rows whose name matches this `regexp`")
	short := f.Bool("short", false, "little of everything: shows that it works, its figures say nothing")
	f.IntVar(&b.rounds, "rounds", 5, "measurements of each row and server")
	f.StringVar(&b.dir, "dir", "/dev/shm", "where sites are; should be tmpfs")
	f.IntVar(&b.spares, "spares", 8, "workers kept ready, for servers that have them")
	sessions := f.Int("sessions", 0, "idle sessions for memory (0: 200)")
	f.DurationVar(&b.settle, "settle", 3*time.Second, "how long to wait at most for the machine to rest")
	if err := f.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	b.size = rows.Full
	if *short {
		b.size = rows.Short
	}
	if *sessions > 0 {
		b.size.Sessions = *sessions
	}
	if b.rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}

	build, err := os.MkdirTemp("", "ftpbench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(build)
	kinds := map[string]func(settings ...string) (*peer.Server, error){
		"vsftpd":    func(...string) (*peer.Server, error) { return peer.Vsftpd() },
		"sallyport": func(settings ...string) (*peer.Server, error) { return peer.Sallyport(build, settings...) },
	}
	for name := range strings.SplitSeq(*names, ",") {
		settings := strings.Split(name, "+")
		find, ok := kinds[settings[0]]
		if !ok {
			return fmt.Errorf("-servers: no %q; there are %q", name, slices.Sorted(maps.Keys(kinds)))
		}
		s, err := find(settings[1:]...)
		if err != nil {
			return err
		}
		b.servers = append(b.servers, s)
	}

	defer func() {
		for _, in := range b.running {
			err = errors.Join(err, in.Stop())
		}
	}()
	for _, s := range b.servers {
		in, err := peer.Start(ctx, s, b.dir, peer.Options{Spares: b.spares})
		if err != nil {
			return err
		}
		b.running = append(b.running, in)
	}

	start := time.Now()
	table := newTable(b.servers)
	var failed error
	for _, row := range rows.All {
		if !slices.ContainsFunc(row.Figures, func(f rows.Figure) bool { return match.MatchString(f.Name) }) {
			continue
		}
		values, err := b.measure(ctx, row)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = errors.Join(failed, err)
		table.add(row, values)
	}
	table.write(out)
	fmt.Fprintf(out, "\n%s; %s.\n", machine(), versions(b.servers))
	fmt.Fprintf(out, "%d rounds in turn after one that doesn't count, %v in all; %d of %d measurements began on a machine that was not at rest. "+
		"Files of %d MiB on tmpfs; %d idle sessions; %d spares.\n",
		b.rounds, time.Since(start).Round(time.Second), b.busy, b.started,
		b.size.FileBytes>>20, b.size.Sessions, b.spares)
	return failed
}

// measure returns values[figure][server][round]; a server that failed once has
// none.
func (b *bench) measure(ctx context.Context, row rows.Row) ([][][]float64, error) {
	values := make([][][]float64, len(row.Figures))
	for i := range values {
		values[i] = make([][]float64, len(b.servers))
	}
	failed := make([]error, len(b.servers))
	for round := range b.rounds + 1 {
		for s := range b.servers {
			if failed[s] != nil {
				continue
			}
			got, err := b.once(ctx, row, s)
			if err != nil {
				failed[s] = fmt.Errorf("%s, %s, round %d: %w", row.Figures[0].Name, b.servers[s].Name, round, err)
				for i := range values {
					values[i][s] = nil
				}
				continue
			}
			if round == 0 {
				continue
			}
			for i, v := range got {
				values[i][s] = append(values[i][s], v)
			}
			fmt.Fprintf(b.log, "%-36s %-10s %.4g\n", row.Figures[0].Name, b.servers[s].Name, got)
		}
	}
	return values, errors.Join(failed...)
}

func (b *bench) once(ctx context.Context, row rows.Row, server int) (values []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	in := b.running[server]
	if row.Fresh {
		opt := row.Options
		opt.Spares = b.spares
		if in, err = peer.Start(ctx, b.servers[server], b.dir, opt); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, in.Stop()) }()
	}
	b.started++
	if !rest(b.settle) {
		b.busy++
	}
	values, err = row.Measure(ctx, in, b.size)
	if err == nil && slices.ContainsFunc(values, func(v float64) bool { return math.IsInf(v, 0) }) {
		err = errors.New("took no time")
	}
	return values, err
}
