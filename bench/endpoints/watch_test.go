package main

import (
	"testing"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// stretch is how an endpoint was for a time: sights every 50 ms with so many of
// 50 attempts since the one before.
type stretch struct {
	length time.Duration
	state  outriggerv1.Endpoint_State
	calls  uint64
}

func sightsOf(all ...stretch) (seen []sight) {
	s := sight{at: begin}
	for _, one := range all {
		for range one.length / look {
			s.state = one.state
			seen = append(seen, s)
			s.at, s.calls, s.others = s.at.Add(look), s.calls+one.calls, s.others+50
		}
	}
	return seen
}

const (
	ready   = outriggerv1.Endpoint_READY
	ejected = outriggerv1.Endpoint_EJECTED
)

func TestAnEndpointLeaves(t *testing.T) {
	for _, c := range []struct {
		name string
		seen []sight
		want time.Duration // negative: never
	}{
		{"ejected after 300 ms", sightsOf(stretch{300 * time.Millisecond, ready, 10}, stretch{2 * time.Second, ejected, 0}), 300 * time.Millisecond},
		{"without calls, though READY", sightsOf(stretch{400 * time.Millisecond, ready, 10}, stretch{2 * time.Second, ready, 0}), 450 * time.Millisecond},
		{"half a second is not enough", sightsOf(stretch{200 * time.Millisecond, ready, 10}, stretch{500 * time.Millisecond, ejected, 0}, stretch{time.Second, ready, 10}), -1},
		{"back and out again", sightsOf(stretch{500 * time.Millisecond, ejected, 0}, stretch{500 * time.Millisecond, ready, 10}, stretch{2 * time.Second, ejected, 0}), time.Second},
		{"a tenth of its share is a share", sightsOf(stretch{3 * time.Second, ready, 1}), -1},
	} {
		at, ok := leaves(c.seen, 5)
		if want := c.want >= 0; ok != want || ok && at.Sub(begin) != c.want {
			t.Errorf("%s: %v after %v, want %v", c.name, ok, at.Sub(begin), c.want)
		}
	}
}

func TestAnEndpointReturns(t *testing.T) {
	for _, c := range []struct {
		name string
		seen []sight
		want time.Duration // negative: never
	}{
		{"READY with its share after a second", sightsOf(stretch{time.Second, ejected, 0}, stretch{time.Second, ready, 10}), time.Second},
		{"READY without calls", sightsOf(stretch{3 * time.Second, ready, 0}), -1},
		{"not for long enough", sightsOf(stretch{time.Second, ejected, 0}, stretch{400 * time.Millisecond, ready, 10}, stretch{time.Second, ejected, 0}), -1},
		{"READY a second before the calls come", sightsOf(stretch{time.Second, ready, 0}, stretch{time.Second, ready, 10}), 750 * time.Millisecond},
	} {
		at, ok := returns(c.seen, 5)
		if want := c.want >= 0; ok != want || ok && at.Sub(begin) != c.want {
			t.Errorf("%s: %v after %v, want %v", c.name, ok, at.Sub(begin), c.want)
		}
	}
}

func TestNoAttemptsAreNoShare(t *testing.T) {
	seen := sightsOf(stretch{3 * time.Second, ready, 0})
	for i := range seen {
		seen[i].others = 7
	}
	if _, ok := leaves(seen, 5); ok {
		t.Error("an endpoint left where nobody called")
	}
}
