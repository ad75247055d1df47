package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table prints aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) *table {
	return &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// row adds a line. Cells are shown in one line each, whatever they hold.
func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return ' ' // no control sequence of a server's reaches the terminal
			}
			return r
		}, c)
	}
	fmt.Fprintln(t.w, strings.TrimRight(strings.Join(cells, "\t"), "\t "))
}

func (t *table) flush() error { return t.w.Flush() }

// millis writes milliseconds with a fitting unit.
func millis(ms float64) string {
	switch {
	case ms == 0:
		return "–"
	case ms < 1:
		return fmt.Sprintf("%.0f µs", ms*1000)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// rate writes a number of calls a second.
func rate(perSecond float64) string {
	switch {
	case perSecond >= 10_000:
		return fmt.Sprintf("%.1fk/s", perSecond/1000)
	case perSecond >= 100 || perSecond == 0:
		return fmt.Sprintf("%.0f/s", perSecond)
	}
	return fmt.Sprintf("%.1f/s", perSecond)
}

// quantile writes 0.95 as p95.
func quantile(q float64) string { return fmt.Sprintf("p%g", q*100) }

// ahead writes how long it is until t; empty when that is over.
func ahead(t, now time.Time) string {
	if d := t.Sub(now); d > 0 {
		return d.Round(time.Second).String()
	}
	return ""
}

func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}
