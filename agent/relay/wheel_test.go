package relay

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// alarm notes when it fired.
type alarm struct {
	timer timer
	at    atomic.Int64
	fired atomic.Int32
}

func (a *alarm) expire(b *batch) {
	a.at.Store(int64(b.now))
	a.fired.Add(1)
}

func newAlarm() *alarm {
	a := &alarm{}
	a.timer.owner = a
	return a
}

// inWheel runs the test in virtual time with a turning wheel.
func inWheel(t *testing.T, test func(t *testing.T, w *wheel, now func() policy.Instant)) {
	synctest.Test(t, func(t *testing.T) {
		origin := time.Now().Add(-time.Hour)
		now := func() policy.Instant { return time.Since(origin) }
		w := newWheel(now)
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() { w.run(stop); close(done) }()
		test(t, w, now)
		close(stop)
		<-done
	})
}

func TestTimerFiresWithinTwoTicks(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Millisecond, 30 * time.Millisecond, time.Second, 3 * time.Second, time.Minute} {
		inWheel(t, func(t *testing.T, w *wheel, now func() policy.Instant) {
			a := newAlarm()
			due := now() + wait

			w.arm(&a.timer, due)
			time.Sleep(wait + 3*wheelTick)

			if a.fired.Load() != 1 {
				t.Fatalf("%v: fired %d times, want once", wait, a.fired.Load())
			}
			if late := time.Duration(a.at.Load()) - due; late < 0 || late > 2*wheelTick {
				t.Fatalf("%v: fired %v late", wait, late)
			}
		})
	}
}

func TestCancelledTimerStaysSilent(t *testing.T) {
	inWheel(t, func(t *testing.T, w *wheel, now func() policy.Instant) {
		a := newAlarm()
		w.arm(&a.timer, now()+50*time.Millisecond)

		w.cancel(&a.timer)
		time.Sleep(time.Second)

		if a.fired.Load() != 0 {
			t.Fatal("a cancelled timer fired")
		}
	})
}

func TestMovedTimerFiresOnceAtTheNewTime(t *testing.T) {
	inWheel(t, func(t *testing.T, w *wheel, now func() policy.Instant) {
		a := newAlarm()
		w.arm(&a.timer, now()+50*time.Millisecond)

		w.arm(&a.timer, now()+200*time.Millisecond)
		time.Sleep(100 * time.Millisecond)
		if a.fired.Load() != 0 {
			t.Fatal("fired at the old time")
		}
		time.Sleep(120 * time.Millisecond)

		if a.fired.Load() != 1 {
			t.Fatalf("fired %d times, want once", a.fired.Load())
		}
	})
}

func TestWheelWakesAfterASleep(t *testing.T) {
	inWheel(t, func(t *testing.T, w *wheel, now func() policy.Instant) {
		for range 3 {
			time.Sleep(10 * time.Second) // long enough that the wheel stops
			if !w.asleep.Load() {
				t.Fatal("an empty wheel turns")
			}
			a := newAlarm()
			w.arm(&a.timer, now()+20*time.Millisecond)
			time.Sleep(40 * time.Millisecond)
			if a.fired.Load() != 1 {
				t.Fatal("a timer armed on a sleeping wheel did not fire")
			}
		}
	})
}

func BenchmarkWheelArmCancel(b *testing.B) { // budget: 80 ns, 0 allocs
	w := newWheel(func() policy.Instant { return 1 })
	w.asleep.Store(false)
	a := newAlarm()
	b.ReportAllocs()
	for b.Loop() {
		w.arm(&a.timer, 3*time.Second)
		w.cancel(&a.timer)
	}
}
