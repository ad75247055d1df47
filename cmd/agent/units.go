package main

import (
	"fmt"
	"math"
	"time"
)

// milliseconds writes a latency with the unit that fits; a dash for none.
func milliseconds(ms float64) string {
	switch {
	case ms <= 0:
		return "–"
	case ms < 0.9995:
		return fmt.Sprintf("%.0f µs", ms*1000)
	case ms < 99.95:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 9999.5:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// rate writes a number of calls a second.
func rate(perSecond float64) string {
	switch {
	case perSecond <= 0:
		return "0/s"
	case perSecond < 9.95:
		return fmt.Sprintf("%.1f/s", perSecond)
	}
	return amount(perSecond) + "/s"
}

// count writes a number of things.
func count[N int32 | int64 | uint32 | uint64](n N) string { return amount(float64(n)) }

func amount(n float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		switch scaled := n / unit.size; {
		case scaled >= 99.95:
			return fmt.Sprintf("%.0f%s", scaled, unit.name)
		case scaled >= 1:
			return fmt.Sprintf("%.1f%s", scaled, unit.name)
		}
	}
	return fmt.Sprintf("%.0f", n)
}

// kibibytes writes a size in memory.
func kibibytes(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", (n+1023)>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// percentage writes a share of 100. It never rounds up: what is not all must
// not read as all.
func percentage(p float64, decimals int) string {
	scale := math.Pow10(decimals)
	return fmt.Sprintf("%.*f %%", decimals, math.Floor(p*scale+1e-6)/scale)
}

// quantile writes 0.95 as p95.
func quantile(q float64) string { return fmt.Sprintf("p%g", math.Round(q*1e6)/1e4) }

// elapsed writes a length of time to the second, or to the minute from an hour
// on.
func elapsed(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Truncate(time.Second).Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// dash stands for an empty word.
func dash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// plural writes a number of things by name.
func plural[N int | int32 | int64 | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
