package policy

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestFaultsAreOfThePercentages(t *testing.T) {
	for _, tc := range []struct{ delay, abort float64 }{{0, 5}, {30, 0}, {25, 40}, {0.5, 99.5}, {100, 100}} {
		p := FaultPolicy{Delay: time.Second, DelayPercent: tc.delay, Abort: Unavailable, AbortPercent: tc.abort}
		rnd := rand.New(rand.NewPCG(1, 2))
		const draws = 1_000_000
		var delays, aborts, both float64
		for range draws {
			f := p.decide(rnd.Uint64(), "")
			if f.Delay > 0 {
				delays += 100. / draws
			}
			if f.Abort {
				aborts += 100. / draws
			}
			if f.Abort && f.Delay > 0 {
				both += 100. / draws
			}
		}
		for about, v := range map[string][2]float64{"delays": {delays, tc.delay}, "aborts": {aborts, tc.abort}, "both": {both, tc.delay * tc.abort / 100}} {
			if math.Abs(v[0]-v[1]) > 0.2 {
				t.Errorf("delay %v %%, abort %v %%: %s of %.3f %%, want %v %%", tc.delay, tc.abort, about, v[0], v[1])
			}
		}
	}
}

func TestWhichCallsGetFaults(t *testing.T) {
	all := FaultPolicy{Abort: Internal, AbortPercent: 100}
	named := FaultPolicy{Abort: Internal, AbortPercent: 100, Header: "x-game-day"}
	valued := FaultPolicy{Abort: Internal, AbortPercent: 100, Header: "x-game-day", Value: "red"}
	for _, tc := range []struct {
		about  string
		policy FaultPolicy
		header string
		abort  bool
	}{
		{"without a header all do", all, "", true},
		{"the header is missing", named, "", false},
		{"any value", named, "blue", true},
		{"the value is missing", valued, "", false},
		{"another value", valued, "blue", false},
		{"the value", valued, "red", true},
		{"none by default", FaultPolicy{}, "", false},
		{"off", FaultPolicy{Abort: Internal, AbortPercent: 100, Mode: Off}, "", false},
		{"OBSERVE decides the same", FaultPolicy{Abort: Internal, AbortPercent: 100, Mode: Observe}, "", true},
		{"never", FaultPolicy{Delay: time.Second, DelayPercent: 100}, "", false},
	} {
		for _, rnd := range []uint64{0, 1, 1 << 63, ^uint64(0)} {
			f := tc.policy.decide(rnd, tc.header)
			if f.Abort != tc.abort || f.Abort && f.Code != Internal {
				t.Errorf("%s: got %+v", tc.about, f)
			}
		}
	}
}

func TestOneCallMayBeHeldBackAndAborted(t *testing.T) {
	p := FaultPolicy{Delay: 3 * time.Second, DelayPercent: 100, Abort: DataLoss, AbortPercent: 100}
	if f := p.decide(7, ""); f != (Fault{Delay: 3 * time.Second, Abort: true, Code: DataLoss}) {
		t.Fatalf("got %+v", f)
	}
}

func BenchmarkFault(b *testing.B) { // budget: 15 ns, 0 allocs
	p := FaultPolicy{Delay: time.Second, DelayPercent: 10, Abort: Unavailable, AbortPercent: 10, Header: "x-game-day", Value: "red"}
	b.ReportAllocs()
	rnd := uint64(0)
	for b.Loop() {
		rnd++
		p.decide(rnd, "red")
	}
}
