// Package rows says what the bench measures of an FTP server: one row for each
// kind of work, the same for every server.
package rows

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/go-privsep/sallyport/bench/ftpload"
	"github.com/go-privsep/sallyport/bench/peer"
)

// Size says how much work a measurement is. Every measurement ends with its
// count or its time, whichever comes first.
type Size struct {
	Time       time.Duration // of a rate
	Logins     int64         // at most
	FileBytes  int64         // of one transfer
	Transfers  int64         // at most, with one client; twice as many with ten
	SmallFiles int64         // at most
	Sessions   int           // idle ones, for memory
}

// Full is the size behind published figures. Uploads need up to 2 GiB of the
// tmpfs that the sites are on.
var Full = Size{Time: 3 * time.Second, Logins: 6000, FileBytes: 64 << 20, Transfers: 16, SmallFiles: 20000, Sessions: 200}

// Short is enough to see that every row works; its figures say nothing.
var Short = Size{Time: 300 * time.Millisecond, Logins: 20, FileBytes: 1 << 20, Transfers: 4, SmallFiles: 50, Sessions: 5}

// smallBytes is the length of a small file.
const smallBytes = 4096

// A Figure is one result of a row.
type Figure struct {
	Name  string
	Unit  string
	Lower bool // the lower, the better
}

// A Row is one kind of work. Measure returns a value for each of Figures;
// NaN stands for what can't be had on this host.
type Row struct {
	Figures []Figure
	Fresh   bool // needs an instance that has done nothing yet, with Options
	Options peer.Options
	Measure func(context.Context, *peer.Instance, Size) ([]float64, error)
}

// All are the rows, in the order in which they are shown.
var All = []Row{
	logins("anonymous logins", ftpload.Anonymous, 1),
	logins("anonymous logins", ftpload.Anonymous, 8),
	logins("local logins (yescrypt)", peer.Local, 1),
	logins("local logins (yescrypt)", peer.Local, 8),
	store(1),
	store(10),
	retrieve(1),
	retrieve(10),
	small(8),
	memory,
}

func rate(name, unit string, clients int) []Figure {
	if clients == 1 {
		return []Figure{{Name: name + ", 1 client", Unit: unit}}
	}
	return []Figure{{Name: fmt.Sprintf("%s, %d clients", name, clients), Unit: unit}}
}

func logins(name string, who ftpload.Account, clients int) Row {
	return Row{
		Figures: rate(name, "/s", clients),
		Measure: func(ctx context.Context, in *peer.Instance, size Size) ([]float64, error) {
			r, err := ftpload.Logins(ctx, in.Addr, who, clients, ftpload.Limit{Count: size.Logins, Time: size.Time})
			return []float64{r.PerSecond()}, err
		},
	}
}

func transfers(size Size, clients int) ftpload.Limit {
	n := size.Transfers
	if clients > 1 {
		n *= 2
	}
	// Transfers are bounded by count; the time is for a server that crawls.
	return ftpload.Limit{Count: n, Time: 5 * size.Time}
}

func store(clients int) Row {
	return Row{
		Figures: rate("STOR", "MiB/s", clients),
		Measure: func(ctx context.Context, in *peer.Instance, size Size) ([]float64, error) {
			r, err := ftpload.Store(ctx, in.Addr, clients, in.Site.Upload+"/up", size.FileBytes, transfers(size, clients))
			if err != nil {
				in.TakeUploads(0, size.FileBytes)
				return nil, err
			}
			return []float64{r.MiBPerSecond()}, in.TakeUploads(r.Count, size.FileBytes)
		},
	}
}

func retrieve(clients int) Row {
	return Row{
		Figures: rate("RETR", "MiB/s", clients),
		Measure: func(ctx context.Context, in *peer.Instance, size Size) ([]float64, error) {
			names, err := in.Files("large", 1, size.FileBytes)
			if err != nil {
				return nil, err
			}
			r, err := ftpload.Retrieve(ctx, in.Addr, clients, names, size.FileBytes, transfers(size, clients))
			return []float64{r.MiBPerSecond()}, err
		},
	}
}

func small(clients int) Row {
	return Row{
		Figures: rate("4 KiB files (EPSV, RETR)", "/s", clients),
		Measure: func(ctx context.Context, in *peer.Instance, size Size) ([]float64, error) {
			names, err := in.Files("small", 100, smallBytes)
			if err != nil {
				return nil, err
			}
			r, err := ftpload.Retrieve(ctx, in.Addr, clients, names, smallBytes, ftpload.Limit{Count: size.SmallFiles, Time: size.Time})
			return []float64{r.PerSecond()}, err
		},
	}
}

// memory opens idle sessions on a server that has served one before, so that
// what is loaded once isn't counted for each.
var memory = Row{
	Figures: []Figure{
		{Name: "idle anonymous session, PSS", Unit: "KiB", Lower: true},
		{Name: "idle anonymous session, charged", Unit: "KiB", Lower: true},
		{Name: "server without a session, PSS", Unit: "KiB", Lower: true},
		{Name: "monitor with idle sessions, PSS", Unit: "KiB", Lower: true},
		{Name: "all processes with idle sessions, PSS", Unit: "MiB", Lower: true},
		{Name: "monitor with idle sessions, processor", Unit: "ms/s", Lower: true},
		{Name: "all processes with idle sessions, processor", Unit: "ms/s", Lower: true},
	},
	Fresh:   true,
	Options: peer.Options{MemoryCgroup: true},
	Measure: func(ctx context.Context, in *peer.Instance, size Size) ([]float64, error) {
		end, err := ftpload.Idle(ctx, in.Addr, 1)
		end()
		if err != nil {
			return nil, err
		}
		base, err := steady(ctx, in)
		if err != nil {
			return nil, err
		}
		end, err = ftpload.Idle(ctx, in.Addr, size.Sessions)
		defer end()
		if err != nil {
			return nil, err
		}
		full, err := steady(ctx, in)
		if err != nil {
			return nil, err
		}
		monitor, err := in.PSSOf(in.Monitor())
		if err != nil {
			return nil, err
		}
		own, all, err := processor(ctx, in, size.Time)
		if err != nil {
			return nil, err
		}
		each := func(i int) float64 { return (full[i] - base[i]) / 1024 / float64(size.Sessions) }
		return []float64{each(0), each(1), base[0] / 1024, float64(monitor) / 1024, full[0] / 1024 / 1024, own, all}, nil
	},
}

// processor returns how many milliseconds of a second the monitor and all
// processes run while nothing happens.
func processor(ctx context.Context, in *peer.Instance, span time.Duration) (monitor, all float64, err error) {
	var before [2]time.Duration
	pids := [2][]int{{in.Monitor()}, in.PIDs()}
	began := time.Now()
	for i := range pids {
		if before[i], err = in.Processor(pids[i]...); err != nil {
			return 0, 0, err
		}
	}
	select {
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	case <-time.After(span):
	}
	var rates [2]float64
	for i := range pids {
		after, err := in.Processor(pids[i]...)
		if err != nil {
			return 0, 0, err
		}
		rates[i] = 1000 * float64(after-before[i]) / float64(time.Since(began))
	}
	return rates[0], rates[1], nil
}

// steady waits until the server's memory stays the same for a while, at most
// for 10 seconds (spares may be starting, namespaces going), and returns PSS
// and charge.
func steady(ctx context.Context, in *peer.Instance) ([2]float64, error) {
	var last [2]float64
	for still, tries := 0, 0; still < 3 && tries < 50; tries++ {
		select {
		case <-ctx.Done():
			return last, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		pss, err := in.PSS()
		if err != nil {
			return last, err
		}
		now := [2]float64{float64(pss), math.NaN()}
		charged, err := in.Charged()
		switch {
		case err == nil:
			now[1] = float64(charged)
		case !errors.Is(err, errors.ErrUnsupported):
			return last, err
		}
		if math.Abs(now[0]-last[0]) <= 0.002*now[0] && !(math.Abs(now[1]-last[1]) > 0.002*now[1]) {
			still++
		} else {
			still = 0
		}
		last = now
	}
	return last, nil
}
