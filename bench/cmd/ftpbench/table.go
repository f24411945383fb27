package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/go-privsep/sallyport/bench/peer"
	"github.com/go-privsep/sallyport/bench/rows"
)

// A table is written in Markdown, with a last column of ratios if there are
// servers to compare.
type table struct {
	servers []*peer.Server
	lines   [][]string
}

func newTable(servers []*peer.Server) *table {
	head := []string{"work"}
	for _, s := range servers {
		head = append(head, s.Name)
	}
	t := &table{servers: servers}
	if len(servers) > 1 {
		head = append(head, servers[0].Name+" / "+servers[len(servers)-1].Name)
	}
	t.lines = append(t.lines, head)
	return t
}

// add appends a line for each figure of a row; values is as measure returns it.
func (t *table) add(row rows.Row, values [][][]float64) {
	for i, figure := range row.Figures {
		name := figure.Name + ", " + figure.Unit
		if figure.Lower {
			name += " (lower is better)"
		}
		line := []string{name}
		for _, rounds := range values[i] {
			line = append(line, spread(rounds, number))
		}
		if n := len(t.servers); n > 1 {
			line = append(line, spread(ratios(values[i][0], values[i][n-1]), func(v float64) string {
				return fmt.Sprintf("%.2f", v)
			}))
		}
		t.lines = append(t.lines, line)
	}
}

func (t *table) write(w io.Writer) {
	widths := make([]int, len(t.lines[0]))
	for _, line := range t.lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for n, line := range t.lines {
		for i, cell := range line {
			fmt.Fprintf(w, "| %-*s ", widths[i], cell)
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for _, width := range widths {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}

// ratios pairs the rounds of two servers.
func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}

// spread says a median, with the least and the greatest if there are several.
func spread(values []float64, format func(float64) string) string {
	switch {
	case len(values) == 0:
		return "failed"
	case slices.ContainsFunc(values, math.IsNaN):
		return "not available"
	case len(values) == 1:
		return format(values[0])
	}
	return fmt.Sprintf("%s (%s–%s)", format(median(values)), format(slices.Min(values)), format(slices.Max(values)))
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

func number(v float64) string {
	if math.Abs(v) < 100 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}
