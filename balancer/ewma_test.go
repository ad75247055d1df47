package balancer

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newTestEWMA(decay time.Duration) *ewma {
	e := &ewma{}
	e.decay.Store(int64(decay))
	return e
}

func (e *ewma) wantAbout(t *testing.T, now Instant, want time.Duration) {
	t.Helper()
	cost, left := e.read(e.state.Load(), now, float64(e.decay.Load()))
	if got := cost * left; math.Abs(got-float64(want)) > float64(want)/1000+1 {
		t.Errorf("at %v: %v; want %v", now, time.Duration(got), want)
	}
}

func TestAPeakCountsAtOnceAndIsForgottenSlowly(t *testing.T) {
	// Given an average with a time constant of 10 s,
	e := newTestEWMA(10 * time.Second)
	e.observe(1*time.Second, 10*time.Millisecond)
	e.wantAbout(t, 1*time.Second, 10*time.Millisecond)
	// when an answer is slower, then it is the average,
	e.observe(2*time.Second, 100*time.Millisecond)
	e.wantAbout(t, 2*time.Second, 100*time.Millisecond)
	// when one is faster 10 s later, then the old one counts 1/e:
	// 100 / e + 10 × (1 - 1/e) ms,
	e.observe(12*time.Second, 10*time.Millisecond)
	e.wantAbout(t, 12*time.Second, 43109*time.Microsecond)
	// and without any the average decays.
	e.wantAbout(t, 22*time.Second, 15859*time.Microsecond)
}

func TestAFastFailureDoesNotLookFast(t *testing.T) {
	e := newTestEWMA(10 * time.Second)
	// Given an endpoint that fails in no time: the first counts as a second,
	e.failed(1*time.Second, time.Millisecond)
	e.wantAbout(t, 1*time.Second, time.Second)
	// and so it stays as long as it fails,
	e.failed(11*time.Second, time.Millisecond)
	e.wantAbout(t, 11*time.Second, time.Second)
	// while a slow failure counts as what it is.
	e.failed(12*time.Second, 3*time.Second)
	e.wantAbout(t, 12*time.Second, 3*time.Second)
}

func TestWhatWasGivenUpOnlyRaisesTheAverage(t *testing.T) {
	e := newTestEWMA(10 * time.Second)
	e.observe(1*time.Second, 10*time.Millisecond)
	e.outlasted(1*time.Second, 5*time.Millisecond)
	e.wantAbout(t, 1*time.Second, 10*time.Millisecond)
	e.outlasted(1*time.Second, 50*time.Millisecond)
	e.wantAbout(t, 1*time.Second, 50*time.Millisecond)
}

func TestWhatNobodyAsksForIsNotKept(t *testing.T) {
	e := newTestSet(1).All()[0]
	e.Begin()
	e.End(time.Second, time.Millisecond, false)
	if e.latency.state.Load() != 0 || e.Latency(time.Second) != 0 {
		t.Error("an average that no picker asks for")
	}
}

func TestOfAnUnknownEndpointTheFirstCallIsFree(t *testing.T) {
	e := newTestEWMA(10 * time.Second)
	if c := e.estimate(1, 1e10, 0); c != 0 {
		t.Errorf("idle: %v", c)
	}
	if c := e.estimate(1, 1e10, 1); c < 1e15 {
		t.Errorf("with a call on its way: %v", c)
	}
}

func TestATimeBeforeTheLastObservationIsNoTimeAfterIt(t *testing.T) {
	e := newTestEWMA(10 * time.Second)
	e.observe(5*time.Second, 10*time.Millisecond)
	e.observe(4*time.Second, 5*time.Millisecond)
	e.wantAbout(t, 4*time.Second, 10*time.Millisecond)
}

func TestTheAverageStaysWithinWhatWasObserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e, now, least, most := newTestEWMA(time.Second), Instant(1), math.Inf(1), 0.0
		for range rapid.IntRange(1, 50).Draw(t, "answers") {
			now += Instant(rapid.Int64Range(0, 3e9).Draw(t, "passes"))
			took := rapid.Int64Range(1, 1e10).Draw(t, "took")
			least, most = min(least, float64(took)), max(most, float64(took))
			e.observe(now, time.Duration(took))
			cost, _ := e.read(e.state.Load(), now, 1e9)
			if cost < least*0.999 || cost > most*1.001 || cost < float64(took)*0.999 && cost < least*0.999 {
				t.Fatalf("%v; observed %v to %v", cost, least, most)
			}
		}
	})
}

func TestFade(t *testing.T) {
	for x := 0.0; x < 50; x += 0.01 {
		if got, want := fade(x), math.Exp(-x); math.Abs(got-want) > 2e-4 {
			t.Fatalf("of %v: %v; want %v", x, got, want)
		}
	}
}
