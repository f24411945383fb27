package bench

import (
	"context"
	"errors"
	"math"
	"os"
	"testing"
	"time"

	"github.com/go-privsep/sallyport/bench/ftpload"
	"github.com/go-privsep/sallyport/bench/peer"
	"github.com/go-privsep/sallyport/bench/rows"
	"github.com/go-privsep/sallyport/internal/testenv"
)

// tmpfs is where sites are.
const tmpfs = "/dev/shm"

// servers returns whom the FTP rows are measured of.
func servers(t testing.TB) []*peer.Server {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "vsftpd")
	vsftpd, err := peer.Vsftpd()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := peer.Sallyport(t.TempDir())
	if errors.Is(err, os.ErrNotExist) {
		t.Logf("only the peer is measured: %v", err)
		return []*peer.Server{vsftpd}
	}
	if err != nil {
		t.Fatal(err)
	}
	return []*peer.Server{ours, vsftpd}
}

func start(t testing.TB, s *peer.Server, opt peer.Options) *peer.Instance {
	t.Helper()
	opt.Spares = 2
	in, err := peer.Start(t.Context(), s, tmpfs, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Stop(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// TestRows does a little of each row, so that none can rot.
func TestRows(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.Name, func(t *testing.T) {
			shared := start(t, s, peer.Options{})
			for _, row := range rows.All {
				t.Run(row.Figures[0].Name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					in := shared
					if row.Fresh {
						in = start(t, s, row.Options)
					}
					got, err := row.Measure(ctx, in, rows.Short)
					if err != nil {
						t.Fatal(err)
					}
					for i, f := range row.Figures {
						idle := f.Unit == "ms/s" // who does nothing may need no time that counts
						if !(got[i] > 0) && !math.IsNaN(got[i]) && !(idle && got[i] == 0) {
							t.Errorf("%s: got %v %s, want more than 0", f.Name, got[i], f.Unit)
						}
						t.Logf("%s: %.1f %s", f.Name, got[i], f.Unit)
					}
				})
			}
		})
	}
}

// A row must not pass on a server that loses bytes or refuses.
func TestRowsNotice(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "vsftpd")
	s, err := peer.Vsftpd()
	if err != nil {
		t.Fatal(err)
	}
	in := start(t, s, peer.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	once := ftpload.Limit{Count: 1, Time: time.Minute}

	names, err := in.Files("cut", 1, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ftpload.Retrieve(ctx, in.Addr, 1, names, 1001, once); err == nil {
		t.Error("download of 1000 bytes passed for one of 1001")
	}
	if _, err := ftpload.Store(ctx, in.Addr, 1, in.Site.Upload+"/up", 1000, once); err != nil {
		t.Error(err)
	}
	if err := in.TakeUploads(1, 1001); err == nil {
		t.Error("upload of 1000 bytes passed for one of 1001")
	}
	if err := in.TakeUploads(1, 1000); err == nil {
		t.Error("missing upload passed")
	}
	_, err = ftpload.Logins(ctx, in.Addr, ftpload.Account{User: peer.Local.User, Password: "wrong"}, 1, once)
	if reply := new(ftpload.ReplyError); !errors.As(err, &reply) || reply.Reply[:3] != "530" {
		t.Errorf("wrong password: got %v, want reply 530", err)
	}
}

// A stopped server leaves nothing, and the host's users are what they were.
func TestStopLeavesNothing(t *testing.T) {
	before, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers(t) {
		in, err := peer.Start(t.Context(), s, tmpfs, peer.Options{MemoryCgroup: true})
		if err != nil {
			t.Fatal(err)
		}
		end, err := ftpload.Idle(t.Context(), in.Addr, 3)
		if err != nil {
			t.Error(err)
		}
		pids := in.PIDs()
		if len(pids) < 4 {
			t.Errorf("%s: %d processes serve 3 sessions", s.Name, len(pids))
		}
		end()
		if err := in.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(in.Site.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: site left behind: %v", s.Name, err)
		}
	}
	after, err := os.ReadFile("/etc/passwd")
	if err != nil || string(after) != string(before) {
		t.Errorf("/etc/passwd has changed (%v)", err)
	}
}

// BenchmarkFTP measures with b.N operations. The table with paired rounds is
// cmd/ftpbench's.
func BenchmarkFTP(b *testing.B) {
	for _, s := range servers(b) {
		b.Run(s.Name, func(b *testing.B) {
			for _, row := range rows.All {
				if row.Fresh {
					continue
				}
				b.Run(row.Figures[0].Name, func(b *testing.B) {
					in := start(b, s, peer.Options{})
					ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
					defer cancel()
					size := rows.Size{
						Time: time.Minute, Logins: int64(b.N), FileBytes: 16 << 20,
						Transfers: int64(min(b.N, 100)), SmallFiles: int64(b.N),
					}
					b.ResetTimer()
					got, err := row.Measure(ctx, in, size)
					b.StopTimer()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(0, "ns/op") // the row's unit is the figure
					b.ReportMetric(got[0], row.Figures[0].Unit)
				})
			}
		})
	}
}
