package breaker

import (
	"testing"
	"time"

	eapache "github.com/eapache/go-resiliency/breaker"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/sony/gobreaker/v2"

	"github.com/outrigger-rpc/outrigger/breaker"
)

// contenders let one successful call through a closed breaker that opens after
// 5 failures in a row.
func contenders() map[string]func() {
	ours := breaker.New(breaker.Reference(), nil)
	sony := gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 5 }})
	failsafe := circuitbreaker.NewBuilder[any]().WithFailureThreshold(5).WithDelay(30 * time.Second).Build()
	resiliency := eapache.New(5, 1, 30*time.Second)
	nothing := func() error { return nil }
	return map[string]func(){
		"outrigger": func() {
			p, _, _ := ours.Acquire(time.Second, 1)
			ours.Report(p, time.Second, breaker.Success, 0, 1)
		},
		"gobreaker": func() {
			if done, err := sony.Allow(); err == nil {
				done(nil)
			}
		},
		"failsafe": func() {
			if failsafe.TryAcquirePermit() {
				failsafe.RecordSuccess()
			}
		},
		"eapache": func() { _ = resiliency.Run(nothing) },
	}
}

var order = []string{"outrigger", "gobreaker", "failsafe", "eapache"}

func BenchmarkSerial(b *testing.B) {
	for _, name := range order {
		call := contenders()[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call()
			}
		})
	}
}

func Benchmark64Goroutines(b *testing.B) {
	for _, name := range order {
		call := contenders()[name]
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(32) // times 2 cores
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call()
				}
			})
		})
	}
}

// TestContendersAreClosed: the benchmark measures what it says.
func TestContendersAreClosed(t *testing.T) {
	for name, call := range contenders() {
		if n := testing.AllocsPerRun(100, call); n > 10 {
			t.Errorf("%s allocates %v times: is it open?", name, n)
		}
	}
}
