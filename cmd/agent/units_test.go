package main

import (
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		milliseconds(0):             "–",
		milliseconds(0.0123):        "12 µs",
		milliseconds(0.9996):        "1.0 ms",
		milliseconds(12.34):         "12.3 ms",
		milliseconds(99.96):         "100 ms",
		milliseconds(250.4):         "250 ms",
		milliseconds(12_345):        "12.3 s",
		rate(0):                     "0/s",
		rate(0.26):                  "0.3/s",
		rate(42.4):                  "42/s",
		rate(1234):                  "1.2k/s",
		rate(123_456):               "123k/s",
		count(uint64(999)):          "999",
		count(uint64(4_500_000)):    "4.5M",
		percentage(99.9999, 2):      "99.99 %",
		percentage(100, 2):          "100.00 %",
		percentage(99.9, 3):         "99.900 %",
		quantile(0.5):               "p50",
		quantile(0.999):             "p99.9",
		quantile(0.9999):            "p99.99",
		elapsed(-time.Second):       "0s",
		elapsed(59_900_000_000):     "59s",
		elapsed(75 * time.Second):   "1m15s",
		elapsed(75 * time.Minute):   "1h15m",
		elapsed(49 * time.Hour):     "2d01h",
		plural(1, "call"):           "1 call",
		plural(int64(2), "call"):    "2 calls",
		cause("connection refused"): "connection refused",
		cause(`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`): "dial tcp 127.0.0.1:1: connect: connection refused",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
