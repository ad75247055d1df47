package policy

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// to makes a call with one attempt at one endpoint, whatever the picker would
// say, and reports how it ended at now, having begun took earlier.
func to(t *testing.T, s *Service, address string, now Instant, took time.Duration, e Ending, stream bool) {
	t.Helper()
	var c Call
	var a Attempt
	if refusal := begin(&c, s.Method(hello), now-took, noTime, 1); refusal != nil {
		t.Fatal(refusal)
	}
	if refusal := c.Send(now-took, 1, &a); refusal != nil {
		t.Fatal(refusal)
	}
	a.Endpoint = s.Endpoints().Find(address)
	a.Endpoint.Begin()
	if stream {
		c.MarkStream()
	}
	c.Finish(&a, now, e, 1)
	c.End(now, e.Result, 1)
}

func threeInARow() Policy {
	return Policy{Outlier: balancer.OutlierOptions{ConsecutiveFailures: 3, ConsecutiveLocal: 2}}
}

func TestWhatAnEndingMeansForTheEndpoint(t *testing.T) {
	unavailable := Result{Code: Unavailable}
	for about, tc := range map[string]struct {
		ending Ending
		stream bool
		local  bool // ejected by the second
		failed bool // ejected by the third
	}{
		"an answer":                          {ending: Ending{}},
		"the caller's fault":                 {ending: Ending{Result: Result{Code: NotFound}}},
		"UNAVAILABLE":                        {ending: Ending{Result: unavailable}, failed: true},
		"INTERNAL":                           {ending: Ending{Result: Result{Code: Internal}}, failed: true},
		"the endpoint broke the protocol":    {ending: Ending{Result: Result{Code: Internal, Reason: Protocol}}, failed: true},
		"UNAVAILABLE with pushback":          {ending: Ending{Result: unavailable, Pushback: time.Second}},
		"UNAVAILABLE, and never again":       {ending: Ending{Result: unavailable, Pushback: NoMore}},
		"INTERNAL with pushback":             {ending: Ending{Result: Result{Code: Internal}, Pushback: time.Second}, failed: true},
		"RESOURCE_EXHAUSTED":                 {ending: Ending{Result: Result{Code: ResourceExhausted}}},
		"left alone by a GOAWAY":             {ending: Ending{Result: Result{Code: Unavailable, Reason: ConnectionLost}, Unprocessed: true}},
		"no connection":                      {ending: Ending{Result: Result{Code: Unavailable, Reason: ConnectFailed}, Unreached: true}, local: true},
		"the connection was lost":            {ending: Ending{Result: Result{Code: Unavailable, Reason: ConnectionLost}}, local: true},
		"our timeout":                        {ending: Ending{Result: Result{Code: DeadlineExceeded, Reason: Timeout}}, local: true},
		"its certificate":                    {ending: Ending{Result: Result{Code: Unavailable, Reason: TLS}}, local: true},
		"the caller's deadline":              {ending: Ending{Result: Result{Code: DeadlineExceeded, Reason: Deadline}}},
		"the caller gave up":                 {ending: Ending{Result: Result{Code: Canceled, Reason: CallerCanceled}}},
		"a stream lived as long as it may":   {ending: Ending{Result: Result{Code: DeadlineExceeded, Reason: Timeout}}, stream: true},
		"a stream whose connection was lost": {ending: Ending{Result: Result{Code: Unavailable, Reason: ConnectionLost}}, stream: true, local: true},
	} {
		s := newTestService(threeInARow(), "a:1", "b:1")
		for n := 1; n <= 3; n++ {
			to(t, s, "a:1", start+time.Duration(n)*time.Second, 10*time.Millisecond, tc.ending, tc.stream)
			c, reason, _ := s.Endpoints().Find("a:1").Condition()
			if want := tc.local && n >= 2 || tc.failed && n == 3; (c == balancer.Ejected) != want {
				t.Errorf("%s: after %d its condition is %v %q", about, n, c, reason)
			}
		}
	}
}

func TestAnEjectedEndpointGetsNoCallsUntilItsTimeIsOver(t *testing.T) {
	p := Policy{Outlier: balancer.OutlierOptions{ConsecutiveFailures: 3, EjectFor: 30 * time.Second}, LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}
	s := newTestService(p, "a:1", "b:1")
	s.Sweep(start, 1)
	for range 3 {
		to(t, s, "a:1", start, 0, Ending{Result: Result{Code: Unavailable}}, false)
	}
	for range 10 {
		if endpoint, _ := one(t, s, start+time.Second, Result{}); endpoint != "b:1" {
			t.Fatalf("a call went to %s", endpoint)
		}
	}
	for now, next := start, s.Sweep(start, 1); now < start+30*time.Second; now, next = next, s.Sweep(next, 1) {
		if next <= now || next > start+40*time.Second {
			t.Fatalf("swept at %v, and again at %v", now, next)
		}
	}
	s.Sweep(start+33*time.Second, 1)
	seen := make(map[string]int)
	for range 10 {
		endpoint, _ := one(t, s, start+34*time.Second, Result{})
		seen[endpoint]++
	}
	if seen["a:1"] != 5 {
		t.Errorf("back, it got %d of 10 calls", seen["a:1"])
	}
}

// action returns one of the service's counts.
func action(s *Service, label string) uint64 {
	for _, c := range s.Actions() {
		if c.Label == label {
			return c.Total
		}
	}
	return 0
}

func TestByDefaultOutliersAreOnlyCounted(t *testing.T) {
	s := newTestService(Default(), "a:1", "b:1")
	for range 5 {
		to(t, s, "a:1", start, 0, Ending{Result: Result{Code: Unavailable}}, false)
	}
	if !s.Endpoints().Find("a:1").Fit() {
		t.Error("the endpoint is not fit")
	}
	if out := s.Outliers().Out; len(out) != 1 || out[0].Endpoint.Address() != "a:1" || out[0].Reason != "5 failures in a row" {
		t.Errorf("what would be out: %+v", out)
	}
	if ejected, would := action(s, "ejected"), action(s, "would_eject"); ejected != 0 || would != 1 {
		t.Errorf("ejected %d, would have ejected %d", ejected, would)
	}
}

func TestOutlierDetectionIsTheServices(t *testing.T) {
	override := Policy{Outlier: balancer.OutlierOptions{ConsecutiveFailures: 1}}
	s := newTestService(threeInARow(), "a:1", "b:1")
	s.Update(Settings{Policy: threeInARow(), Methods: map[string]Policy{hello: override}})
	for range 2 {
		to(t, s, "a:1", start, 0, Ending{Result: Result{Code: Unavailable}}, false)
	}
	if !s.Endpoints().Find("a:1").Fit() {
		t.Error("the override's figure ejected it")
	}
	to(t, s, "a:1", start, 0, Ending{Result: Result{Code: Unavailable}}, false)
	if s.Endpoints().Find("a:1").Fit() || action(s, "ejected") != 1 {
		t.Error("the service's figure did not")
	}
	// A reload that takes the policy away lets it back.
	s.Update(Settings{})
	s.Sweep(start+time.Second, 1)
	if !s.Endpoints().Find("a:1").Fit() {
		t.Error("without the policy it is still out")
	}
}
