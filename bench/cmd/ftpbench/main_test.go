package main

import (
	"bytes"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/go-privsep/sallyport/bench/peer"
	"github.com/go-privsep/sallyport/bench/rows"
	"github.com/go-privsep/sallyport/internal/testenv"
)

func TestMain(m *testing.M) {
	peer.Main()
	os.Exit(m.Run())
}

// A server compared with itself: the ratio must be there, for each row.
func TestSelf(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "vsftpd")
	var out, log bytes.Buffer
	args := []string{"-servers", "vsftpd,vsftpd", "-short", "-rounds", "2", "-settle", "0", "-rows", "anonymous logins, 8|RETR, 10"}
	if err := run(t.Context(), args, &out, &log); err != nil {
		t.Fatalf("%v\n%s", err, log.Bytes())
	}
	t.Logf("\n%s", out.Bytes())
	for _, want := range []string{
		`\| vsftpd / vsftpd +\|`,
		`(?m)^\| anonymous logins, 8 clients, /s .*\d \([\d.]+–[\d.]+\) +\| \d+\.\d\d \([\d.]+–[\d.]+\) +\|$`,
		`(?m)^\| RETR, 10 clients, MiB/s .*\|$`,
		`cores, Linux \d.*go1\.`,
	} {
		if !regexp.MustCompile(want).Match(out.Bytes()) {
			t.Errorf("no match for %s", want)
		}
	}
	if strings.Contains(out.String(), "STOR") {
		t.Error("a row that wasn't asked for was measured")
	}
}

func TestTable(t *testing.T) {
	table := newTable([]*peer.Server{{Name: "a"}, {Name: "b"}})
	table.add(rows.Row{Figures: []rows.Figure{{Name: "speed", Unit: "/s"}, {Name: "size", Unit: "KiB", Lower: true}, {Name: "lost", Unit: "/s"}}},
		[][][]float64{
			{{100, 400, 300}, {100, 200, 100}},      // the ratios are 1, 2, 3; that of the medians would be 3
			{{math.NaN(), math.NaN()}, {1.25, 2.5}}, // one side not to be had
			{nil, {1}},                              // one side failed
		})
	var got strings.Builder
	table.write(&got)
	want := `| work                        | a             | b             | a / b            |
|-----------------------------|---------------|---------------|------------------|
| speed, /s                   | 300 (100–400) | 100 (100–200) | 2.00 (1.00–3.00) |
| size, KiB (lower is better) | not available | 1.9 (1.2–2.5) | not available    |
| lost, /s                    | failed        | 1.0           | failed           |
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

func TestBadArguments(t *testing.T) {
	for _, args := range [][]string{{"-servers", "nobody"}, {"-rounds", "0"}, {"-rows", "("}, {"-nothing"}} {
		if err := run(t.Context(), args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil {
			t.Errorf("%q passed", args)
		}
	}
}
