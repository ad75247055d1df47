package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/sla"
)

const (
	start  = 100 * time.Second
	hello  = "/helloworld.Greeter/SayHello"
	noTime = -1 * time.Second // the caller sets no deadline
)

func newTestService(p Policy, addresses ...string) *Service {
	s := NewService("greeter", Settings{Policy: p}, nil)
	var specs []balancer.Spec
	for _, a := range addresses {
		specs = append(specs, balancer.Spec{Address: a})
	}
	s.SetEndpoints(specs)
	return s
}

// begin is a call's arrival and its admission, where it does not wait.
func begin(c *Call, m *Method, now Instant, timeout time.Duration, rnd uint64) *Refusal {
	c.Begin(m, now, Arrival{Timeout: timeout})
	return c.Admit(now, rnd).Refusal
}

// one makes a whole call with one attempt.
func one(t *testing.T, s *Service, now Instant, r Result) (endpoint string, refusal *Refusal) {
	t.Helper()
	var c Call
	var a Attempt
	if refusal := begin(&c, s.Method(hello), now, noTime, 1); refusal != nil {
		c.End(now, Refused(refusal), 1)
		return "", refusal
	}
	if refusal := c.Pick(now, 1, &a); refusal != nil {
		c.End(now, Refused(refusal), 1)
		return "", refusal
	}
	endpoint = a.Endpoint.Address()
	c.Settle(&a, now, r, 1)
	c.End(now, r, 1)
	return endpoint, nil
}

func TestWhatFallsDueAndWhoIsToBlame(t *testing.T) {
	p := Policy{Timeout: 3 * time.Second, PerTryTimeout: time.Second, Stream: StreamLimits{IdleTimeout: 5 * time.Second, MaxDuration: time.Minute}}
	for _, tc := range []struct {
		about    string
		deadline time.Duration
		stream   bool
		touched  Instant // after start
		due      Instant // after start
		reason   Reason
		policy   string
	}{
		{"the attempt's time is over first", noTime, false, 0, time.Second, Timeout, "per_try_timeout"},
		{"a caller in a hurry", 200 * time.Millisecond, false, 0, 200 * time.Millisecond, Deadline, ""},
		{"a silent stream", noTime, true, 2 * time.Second, 7 * time.Second, Timeout, "stream.idle_timeout"},
		{"a long stream", noTime, true, 58 * time.Second, time.Minute, Timeout, "stream.max_duration"},
		{"a stream has its caller's deadline too", 4 * time.Second, true, 0, 4 * time.Second, Deadline, ""},
	} {
		s := newTestService(p, "a:1")
		var c Call
		var a Attempt
		if r := begin(&c, s.Method(hello), start, tc.deadline, 1); r != nil {
			t.Fatal(r)
		}
		if r := c.Pick(start, 1, &a); r != nil {
			t.Fatal(r)
		}
		if tc.stream {
			c.MarkStream()
		}
		c.Touch(start + tc.touched)

		due := c.Expiry(&a)

		if due != start+tc.due {
			t.Errorf("%s: due after %v, want %v", tc.about, due-start, tc.due)
		}
		if r := expire(&c, due-time.Millisecond, &a); r != nil {
			t.Errorf("%s: expired early: %v", tc.about, r)
		}
		if r := expire(&c, due, &a); r == nil || r.Reason != tc.reason || r.Policy != tc.policy {
			t.Errorf("%s: got %v, want %v (%s)", tc.about, r, tc.reason, tc.policy)
		}
	}
}

func TestTheTimeoutOfTheWholeCall(t *testing.T) {
	s := newTestService(Policy{Timeout: 3 * time.Second}, "a:1")
	var c Call
	if r := begin(&c, s.Method(hello), start, 10*time.Second, 1); r != nil {
		t.Fatal(r)
	}
	if r := c.Expire(start+3*time.Second, nil); r == nil || r.Reason != Timeout || r.Code() != DeadlineExceeded {
		t.Fatalf("got %v", r)
	}
	if left, ok := c.Remaining(start + 3*time.Second); !ok || left != 7*time.Second {
		t.Fatalf("the upstream would be told %v, %v; the caller's own 7s are left", left, ok)
	}
}

func TestAMethodThatStreamedIsRemembered(t *testing.T) {
	s := newTestService(Policy{Timeout: time.Second}, "a:1")
	var c Call
	_ = begin(&c, s.Method(hello), start, noTime, 1)
	c.MarkStream()

	var next Call
	_ = begin(&next, s.Method(hello), start, noTime, 1)

	if due := next.Expiry(nil); due != 0 {
		t.Fatalf("due after %v, want never", due-start)
	}
}

func TestADeadlineThatIsOverIsRefusedAtTheDoor(t *testing.T) {
	s := newTestService(Policy{}, "a:1")
	var c Call
	if r := begin(&c, s.Method(hello), start, 0, 1); r == nil || r.Reason != Deadline {
		t.Fatalf("got %v", r)
	}
}

func TestWhoseFault(t *testing.T) {
	for _, tc := range []struct {
		result  Result
		breaker breaker.Outcome
		sla     sla.Outcome
	}{
		{Result{Code: OK}, breaker.Success, sla.Success},
		{Result{Code: NotFound}, breaker.Success, sla.Success},
		{Result{Code: PermissionDenied}, breaker.Success, sla.Success},
		{Result{Code: Internal}, breaker.Failure, sla.Failure},
		{Result{Code: Unknown}, breaker.Failure, sla.Failure},
		{Result{Code: DataLoss}, breaker.Failure, sla.Failure},
		{Result{Code: Unavailable}, breaker.Failure, sla.Unavailable},
		{Result{Code: DeadlineExceeded}, breaker.Failure, sla.Unavailable},
		{Result{Code: ResourceExhausted}, breaker.Ignored, sla.Success},
		{Result{Code: DeadlineExceeded, Reason: Timeout}, breaker.Failure, sla.Unavailable},
		{Result{Code: DeadlineExceeded, Reason: Deadline}, breaker.Ignored, sla.Unavailable},
		{Result{Code: Unavailable, Reason: ConnectFailed}, breaker.Failure, sla.Unavailable},
		{Result{Code: Unavailable, Reason: ConnectionLost}, breaker.Failure, sla.Unavailable},
		{Result{Code: Unavailable, Reason: BreakerOpen}, breaker.Ignored, sla.Unavailable},
		{Result{Code: Internal, Reason: Protocol}, breaker.Failure, sla.Failure},
		{Result{Code: Canceled, Reason: CallerCanceled}, breaker.Ignored, sla.Excluded},
	} {
		if b, a := tc.result.breakerOutcome(), tc.result.slaOutcome(); b != tc.breaker || a != tc.sla {
			t.Errorf("%v %v: breaker %v, sla %v; want %v, %v", tc.result.Code, tc.result.Reason, b, a, tc.breaker, tc.sla)
		}
	}
}

func TestAServerThatSaysItFirstIsNotToBlameForTheCallersDeadline(t *testing.T) {
	for _, tc := range []struct {
		after time.Duration
		want  breaker.Outcome
	}{{500 * time.Millisecond, breaker.Failure}, {995 * time.Millisecond, breaker.Ignored}, {1001 * time.Millisecond, breaker.Ignored}} {
		s := newTestService(Policy{}, "a:1")
		var c Call
		_ = begin(&c, s.Method(hello), start, time.Second, 1)
		if got := c.blame(start+tc.after, Result{Code: DeadlineExceeded}); got != tc.want {
			t.Errorf("DEADLINE_EXCEEDED after %v of 1s: %v, want %v", tc.after, got, tc.want)
		}
	}
}

func TestEveryReasonHasItsStatus(t *testing.T) {
	want := map[string]Code{
		"NO_ROUTE": Unimplemented, "BREAKER_OPEN": Unavailable, "NO_ENDPOINTS": Unavailable, "ALL_UNHEALTHY": Unavailable,
		"CONNECT_FAILED": Unavailable, "CONNECTION_LOST": Unavailable, "CONCURRENCY_LIMIT": ResourceExhausted, "QUEUE_TIMEOUT": ResourceExhausted,
		"RATE_LIMIT": ResourceExhausted, "TIMEOUT": DeadlineExceeded, "DEADLINE": DeadlineExceeded, "PROTOCOL": Internal,
		"REQUEST_TOO_LARGE": ResourceExhausted, "DRAINING": Unavailable, "TLS": Unavailable, "DEFER_OFF": FailedPrecondition,
		"THROTTLED": ResourceExhausted, "FAULT_INJECTED": Unavailable, "NOT_CACHED": NotFound,
		"NOT_DEFERRABLE": FailedPrecondition, "TASK_QUEUE_FULL": ResourceExhausted, "TASK_STORE": Unavailable,
	}
	for _, r := range Reasons() {
		if code, ok := want[r.String()]; !ok || code != r.Code() {
			t.Errorf("%v: %v, want %v", r, r.Code(), code)
		}
		delete(want, r.String())
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

func TestARefusalOnTheWire(t *testing.T) {
	r := &Refusal{Reason: BreakerOpen, Service: "greeter", Endpoint: "a:1", Policy: "circuit_breaker", Message: "open", RetryAfter: 2500 * time.Millisecond}
	var got spb.Status
	if err := proto.Unmarshal(r.AppendDetails(nil), &got); err != nil {
		t.Fatal(err)
	}
	var info errdetails.ErrorInfo
	var retry errdetails.RetryInfo
	if got.GetCode() != 14 || got.GetMessage() != "open" || len(got.GetDetails()) != 2 ||
		got.GetDetails()[0].UnmarshalTo(&info) != nil || got.GetDetails()[1].UnmarshalTo(&retry) != nil {
		t.Fatalf("got %v", &got)
	}
	if info.GetReason() != "BREAKER_OPEN" || info.GetDomain() != "outrigger" || info.GetMetadata()["service"] != "greeter" ||
		info.GetMetadata()["endpoint"] != "a:1" || info.GetMetadata()["policy"] != "circuit_breaker" || retry.GetRetryDelay().AsDuration() != 2500*time.Millisecond {
		t.Fatalf("got %v, %v", &info, &retry)
	}
}

func TestAnEndpointsOpenBreakerSteersAway(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 1
	s := newTestService(Policy{Breaker: BreakerPolicy{Scope: ScopeEndpoint, Options: o}, LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, "a:1", "b:1")
	bad, _ := one(t, s, start, Result{Code: Unavailable})

	for range 10 {
		if e, r := one(t, s, start, Result{Code: OK}); r != nil || e == bad {
			t.Fatalf("went to %s, %v", e, r)
		}
	}
	good, _ := one(t, s, start, Result{Code: Unavailable})
	_, r := one(t, s, start, Result{Code: OK})

	if good == bad || r == nil || r.Reason != BreakerOpen || r.Endpoint == "" || r.RetryAfter < 25*time.Second {
		t.Fatalf("all open: %v", r)
	}
}

func TestARetryGoesToAnotherEndpoint(t *testing.T) {
	s := newTestService(Policy{}, "a:1", "b:1", "c:1")
	var c Call
	_ = begin(&c, s.Method(hello), start, noTime, 1)
	seen := make(map[string]bool)
	for c.Untried() {
		var a Attempt
		if r := c.Pick(start, uint64(len(seen)), &a); r != nil {
			t.Fatal(r)
		}
		seen[a.Endpoint.Address()] = true
		c.Settle(&a, start, Result{Code: Unavailable, Reason: ConnectFailed}, 1)
	}
	if len(seen) != 3 || c.Attempts() != 3 || s.Retries() != 2 {
		t.Fatalf("%v in %d attempts, %d retries", seen, c.Attempts(), s.Retries())
	}
}

func TestAnAdaptiveLimitLearnsFromTheServerNotFromItsOwnQueue(t *testing.T) {
	s := newTestService(Policy{Concurrency: ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, Adaptive: true}}, "a:1")
	limiter := s.Method(hello).rule.limiter
	var first, second Call
	var a, b Attempt
	first.Begin(s.Method(hello), start, Arrival{Timeout: noTime})
	second.Begin(s.Method(hello), start, Arrival{Timeout: noTime})
	first.Admit(start, 1)
	if !second.Admit(start, 1).Wait {
		t.Fatal("the second call does not wait")
	}
	first.Pick(start, 1, &a)
	first.Settle(&a, start+50*time.Millisecond, Result{}, 1)
	first.End(start+50*time.Millisecond, Result{}, 1)

	second.Admit(start+50*time.Millisecond, 1)
	second.Pick(start+50*time.Millisecond, 1, &b)
	second.Settle(&b, start+60*time.Millisecond, Result{}, 1)
	second.End(start+60*time.Millisecond, Result{}, 1)

	if us := limiter.gradient.Load().samples.Load() & sumMask; us != 50_000+10_000 {
		t.Fatalf("it learned of %d µs in all, want the 50 ms of the first and the 10 ms of the second", us)
	}
}

func TestNoEndpointsAndAllDrained(t *testing.T) {
	if _, r := one(t, newTestService(Policy{}), start, Result{}); r == nil || r.Reason != NoEndpoints || r.RetryAfter == 0 {
		t.Errorf("none: %v", r)
	}
	s := newTestService(Policy{}, "a:1")
	s.Endpoints().All()[0].SetDraining(true)
	if _, r := one(t, s, start, Result{}); r == nil || r.Reason != AllUnhealthy {
		t.Errorf("drained: %v", r)
	}
}

func TestOverridesByMethodAndPrefix(t *testing.T) {
	s := NewService("greeter", Settings{Policy: Policy{Timeout: 1}, Methods: map[string]Policy{
		"/a.B/": {Timeout: 2}, "/a.B/C": {Timeout: 3},
	}}, nil)
	for method, want := range map[string]time.Duration{"/x.Y/Z": 1, "/a.B/D": 2, "/a.B/C": 3, "/a.B/CC": 2} {
		if got := s.Method(method).Policy().Timeout; got != want {
			t.Errorf("%s: %d, want %d", method, got, want)
		}
	}
}

func TestMethodsAreBounded(t *testing.T) {
	s := newTestService(Policy{}, "a:1")
	for i := range maxMethods + 10 {
		s.Method(fmt.Sprintf("/a.B/M%d", i))
	}
	if name := s.Method("/a.B/OneMore").Name(); name != OtherMethods {
		t.Fatalf("got %s", name)
	}
}

func TestAnUpdateKeepsBreakersAndWindows(t *testing.T) {
	p := Policy{Breaker: BreakerPolicy{Options: breaker.Reference()}}
	s := newTestService(p, "a:1")
	for range 5 {
		_, _ = one(t, s, start, Result{Code: Internal})
	}
	p.Timeout = time.Second

	s.Update(Settings{Policy: p})

	_, r := one(t, s, start, Result{Code: OK})
	if r == nil || r.Reason != BreakerOpen || !strings.Contains(r.Message, "5 failures in a row") {
		t.Fatalf("got %v", r)
	}
	if n := s.Recorder().Lifetime().Calls; n != 6 {
		t.Fatalf("%d calls remembered, want 6", n)
	}
}

// TestEverythingIsGivenBack: whatever calls do, in the end no endpoint has an
// attempt in flight, and every call was counted once.
func TestEverythingIsGivenBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		scope := rapid.SampledFrom([]Scope{ScopeService, ScopeMethod, ScopeEndpoint}).Draw(t, "scope")
		o := breaker.Reference()
		o.ConsecutiveFailures = rapid.IntRange(1, 3).Draw(t, "failures")
		s := newTestService(Policy{Breaker: BreakerPolicy{Scope: scope, Options: o}}, "a:1", "b:1")
		now, calls := start, rapid.IntRange(1, 40).Draw(t, "calls")
		for range calls {
			now += time.Duration(rapid.IntRange(0, 20_000).Draw(t, "wait")) * time.Millisecond
			result := Result{Code: rapid.SampledFrom([]Code{OK, Internal, NotFound}).Draw(t, "code")}
			var c Call
			refusal := begin(&c, s.Method(hello), now, noTime, 1)
			for range rapid.IntRange(1, 3).Draw(t, "attempts") {
				var a Attempt
				if refusal != nil {
					break
				}
				if refusal = c.Pick(now, rapid.Uint64().Draw(t, "rnd"), &a); refusal == nil {
					c.Settle(&a, now, result, 1)
				}
			}
			if refusal != nil {
				result = Refused(refusal)
			}
			c.End(now, result, 1)
		}
		for _, e := range s.Endpoints().All() {
			if e.InFlight() != 0 {
				t.Fatalf("%s has %d in flight", e.Address(), e.InFlight())
			}
		}
		total := uint64(0)
		for _, n := range s.Codes() {
			total += n.Total
		}
		if total != uint64(calls) || s.Recorder().Lifetime().Calls != total {
			t.Fatalf("%d calls, %d counted, %d recorded", calls, total, s.Recorder().Lifetime().Calls)
		}
	})
}

func lifeOf(s *Service) func() {
	m := s.Method(hello)
	c, a := new(Call), new(Attempt) // part of what the shell has for a call anyway
	return func() {
		_ = begin(c, m, start, noTime, 1)
		_ = c.Pick(start, 1, a)
		c.Settle(a, start, Result{}, 1)
		c.End(start, Result{}, 1)
	}
}

func TestAGoodCallAllocatesNothing(t *testing.T) {
	life := lifeOf(newTestService(Default(), "a:1", "b:1"))
	if n := testing.AllocsPerRun(1000, life); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// everything is a policy with all that a unary call can be under.
func everything() Policy {
	p := Default()
	p.Timeout, p.PerTryTimeout, p.Idempotent = 3*time.Second, time.Second, true
	p.Retry = RetryPolicy{MaxAttempts: 3, Budget: DefaultBudget()}
	p.Hedge = HedgePolicy{Delay: 50 * time.Millisecond, DelayQuantile: 0.95, MaxAttempts: 2}
	p.Breaker.Options.Mode, p.Breaker.Options.FailureRate, p.Breaker.Options.MinimumCalls = Enforce, 0.5, 20
	p.Concurrency = ConcurrencyPolicy{MaxInFlight: 1024, MaxQueue: 128, Adaptive: true}
	p.RateLimit = RateLimitPolicy{PerSecond: 1e9, Burst: 1e9}
	p.Throttle = ThrottlePolicy{Ratio: 2}
	p.Fallback = FallbackPolicy{Enabled: true}
	p.Fault = FaultPolicy{Abort: Unavailable, AbortPercent: 1, Header: "x-chaos"}
	return p
}

func TestAGoodCallUnderEveryPolicyAllocatesNothing(t *testing.T) {
	life := lifeOf(newTestService(everything(), "a:1", "b:1"))
	if n := testing.AllocsPerRun(1000, life); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkCallUnderEveryPolicy(b *testing.B) { // budget: 600 ns, 0 allocs
	life := lifeOf(newTestService(everything(), "a:1", "b:1"))
	b.ReportAllocs()
	for b.Loop() {
		life()
	}
}

func BenchmarkCall(b *testing.B) { // budget: 150 ns, 0 allocs
	life := lifeOf(newTestService(Default(), "a:1", "b:1"))
	b.ReportAllocs()
	for b.Loop() {
		life()
	}
}

// expire asks for what is over: the call, else the attempt.
func expire(c *Call, now Instant, a *Attempt) *Refusal {
	if r := c.Expire(now, a); r != nil {
		return r
	}
	return c.ExpireAttempt(now, a)
}
