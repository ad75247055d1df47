package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

const rowFormat = "%-21s %11s %9s %8s  %-28s %-13s %-4s %-6s %s\n"

func printHeader(w io.Writer) {
	fmt.Fprintf(w, rowFormat, "attack", "cut/opened", "cut after", "good ok", "good p99 (worst)", "agent RSS MiB", "log", "metric", "verdict")
}

// printRow prints an outcome on a line.
func printRow(w io.Writer, o *outcome) {
	verdict := "ok"
	if o.failed() {
		var broken []string
		for _, f := range o.Failures {
			name, _, _ := strings.Cut(f, ":")
			broken = append(broken, name)
		}
		verdict = "FAILED " + strings.Join(broken, ", ")
	}
	cut := "never"
	switch {
	case o.Cut > 0 && o.Crowd:
		cut = round(o.FirstCut).String()
	case o.Cut > 0:
		cut = round(o.LastCut).String()
	}
	counted := "no"
	if len(o.Moved) > 0 {
		counted = "yes"
	}
	if o.Tries > 1 {
		verdict += fmt.Sprintf(" (try %d)", o.Tries)
	}
	fmt.Fprintf(w, rowFormat, o.Attack, fmt.Sprintf("%d/%d", o.Cut, o.Opened), cut,
		fmt.Sprintf("%.2f%%", 100*o.During.Success),
		fmt.Sprintf("%v→%v (%v)", round(o.Quiet.P99), round(o.During.P99), round(o.During.Worst)),
		fmt.Sprintf("%.1f %+.1f", mib(o.RSSBefore), mib(o.growth())),
		fmt.Sprint(o.LinesOfHost), counted, verdict)
}

// printFailures explains the rows: how each attack was cut off, and what is
// wrong where a verdict failed.
func printFailures(w io.Writer, outcomes []outcome) {
	fmt.Fprintln(w)
	failed := 0
	for i := range outcomes {
		o := &outcomes[i]
		fmt.Fprintf(w, "%s (%s): %d frames", o.Attack, o.About, o.Frames)
		if o.How != "" {
			fmt.Fprintf(w, "; %s", o.How)
		}
		if o.NotOpened > 0 {
			fmt.Fprintf(w, "; %d connections not made", o.NotOpened)
		}
		fmt.Fprintln(w)
		if seen := append(o.Moved, o.Refusals...); len(seen) > 0 {
			fmt.Fprintf(w, "  counted  %s\n", strings.Join(seen, " "))
		}
		if o.Line != "" {
			fmt.Fprintf(w, "  logged   %s\n", o.Line)
		}
		if o.CallLines > 0 {
			fmt.Fprintf(w, "  logged   %d lines of the access log\n", o.CallLines)
		}
		for _, f := range o.Failures {
			fmt.Fprintf(w, "  FAILED   %s\n", f)
		}
		if o.failed() {
			failed++
		}
	}
	fmt.Fprintf(w, "\n%d attacks: %d kept every promise, %d did not\n", len(outcomes), len(outcomes)-failed, failed)
}

func printJSON(w io.Writer, outcomes []outcome) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(outcomes)
}

func mib(kib int) float64 { return float64(kib) / 1024 }

// round leaves three digits or so.
func round(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= 10*time.Millisecond:
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(10 * time.Microsecond)
}
