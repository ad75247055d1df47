package balancer

import (
	"testing"
	"time"
)

// interval is what one endpoint does between two sweeps.
type interval struct {
	successes, failures int
	took                time.Duration
	stream              bool
}

func TestAnIntervalIsJudged(t *testing.T) {
	rate := OutlierOptions{FailureRate: 0.5}
	deviation := OutlierOptions{SuccessRateDeviation: 1.9}
	latency := OutlierOptions{LatencyFactor: 3}
	ms := func(n int) interval { return interval{successes: 20, took: time.Duration(n) * time.Millisecond} }
	good, bad := interval{successes: 100}, interval{successes: 80, failures: 20}
	for name, test := range map[string]struct {
		options   OutlierOptions
		endpoints []interval
		out       []int
		reason    string // of the first
	}{
		"half of the attempts fail": {rate, []interval{{successes: 10, failures: 10}, good}, []int{0}, "10 of 20 attempts failed"},
		"less than half":            {rate, []interval{{successes: 11, failures: 9}, good}, nil, ""},
		"too few to tell":           {rate, []interval{{failures: 19}, good}, nil, ""},
		"the worst goes where the bound lets one": {rate,
			[]interval{{successes: 9, failures: 11}, {failures: 20}, {successes: 5, failures: 15}}, []int{1}, "20 of 20 attempts failed"},
		"a tenth, exactly": {OutlierOptions{FailureRate: 0.1}, []interval{{successes: 18, failures: 2}, good}, []int{0}, "2 of 20 attempts failed"},

		"one of six is far below the others": {deviation, []interval{good, good, bad, good, good, good}, []int{2},
			"80.0 % of 100 attempts succeeded, 82.5 % is the least among 6 endpoints"},
		"of four none can be 1.9 deviations away": {deviation, []interval{good, good, bad, good}, nil, ""},
		"all are equally bad":                     {deviation, []interval{bad, bad, bad, bad, bad, bad}, nil, ""},
		"too few hosts with calls enough": {OutlierOptions{SuccessRateDeviation: 0.5, MinimumHosts: 4},
			[]interval{good, good, bad, {successes: 19}}, nil, ""},

		"one is twenty times slower":      {latency, []interval{ms(10), ms(10), ms(200), ms(12), ms(9)}, []int{2}, "typical latency 200ms, 20.0 times that of the median of 5 endpoints"},
		"just at the factor":              {latency, []interval{ms(10), ms(10), ms(30)}, nil, ""},
		"two endpoints, if so few may do": {OutlierOptions{LatencyFactor: 3, MinimumHosts: 2}, []interval{ms(10), ms(200)}, []int{1}, "typical latency 200ms, 20.0 times that of the median of 2 endpoints"},
		"two endpoints are too few":       {latency, []interval{ms(10), ms(200)}, nil, ""},
		"how long streams live says nothing": {latency,
			[]interval{ms(10), ms(10), ms(11), {successes: 50, took: time.Hour, stream: true}}, nil, ""},
	} {
		set, o := newTestSet(make([]uint32, len(test.endpoints))...), NewOutliers(test.options, nil)
		o.Sweep(set, start, 1)
		for i, e := range test.endpoints {
			for range e.successes {
				o.Observe(set, set.All()[i], start+9*time.Second, Attempt{Outcome: Success, Took: e.took, Stream: e.stream}, 1)
			}
			observe(o, set, i, start+9*time.Second, Failure, e.failures)
		}
		o.Sweep(set, start+10*time.Second-1, 1)
		if early := outOf(o, set); early != nil {
			t.Errorf("%s: %v went before the interval was over", name, early)
		}
		o.Sweep(set, start+10*time.Second, 1)
		out := o.Snapshot().Out
		if len(out) != len(test.out) {
			t.Errorf("%s: out are %+v, want %v", name, out, test.out)
			continue
		}
		for i := range out {
			if out[i].Endpoint != set.All()[test.out[i]] {
				t.Errorf("%s: %s is out, want %s", name, out[i].Endpoint.Address(), set.All()[test.out[i]].Address())
			}
		}
		if len(out) > 0 && out[0].Reason != test.reason {
			t.Errorf("%s: the reason is %q, want %q", name, out[0].Reason, test.reason)
		}
	}
}

func TestAFewStragglersDontMakeAnEndpointSlow(t *testing.T) {
	set, o := newTestSet(1, 1, 1), NewOutliers(OutlierOptions{LatencyFactor: 2}, nil)
	o.Sweep(set, start, 1)
	for i, e := range set.All() {
		for n := range 100 {
			took := 10 * time.Millisecond
			if i == 0 && n == 7 {
				took = 8 * time.Second // the arithmetic mean is 9 times the others'
			}
			o.Observe(set, e, start+9*time.Second, Attempt{Outcome: Success, Took: took}, 1)
		}
	}
	o.Sweep(set, start+10*time.Second, 1)
	wantOut(t, o, set)
}

func TestAnIntervalStartsWithNothing(t *testing.T) {
	set, o := newTestSet(1, 1), NewOutliers(OutlierOptions{FailureRate: 0.5}, nil)
	o.Sweep(set, start, 1)
	observe(o, set, 0, start+time.Second, Failure, 19)
	o.Sweep(set, start+10*time.Second, 1)
	observe(o, set, 0, start+11*time.Second, Failure, 19)
	o.Sweep(set, start+20*time.Second, 1)
	wantOut(t, o, set)
	observe(o, set, 0, start+21*time.Second, Failure, 20)
	o.Sweep(set, start+30*time.Second, 1)
	wantOut(t, o, set, 0)
}

func TestADrainedEndpointIsNotCompared(t *testing.T) {
	set, o := newTestSet(1, 1, 1), NewOutliers(OutlierOptions{FailureRate: 0.5}, nil)
	set.All()[0].SetDraining(true)
	o.Sweep(set, start, 1)
	observe(o, set, 0, start+time.Second, Failure, 100)
	o.Sweep(set, start+10*time.Second, 1)
	set.All()[0].SetDraining(false)
	o.Sweep(set, start+20*time.Second, 1)
	wantOut(t, o, set)
}
