package forward

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// spans remembers what the trace of one call is told.
type spans struct {
	mu     sync.Mutex
	events []string
	open   map[int]bool
	ended  []int
}

func (s *spans) StartCall(policy.Instant, string, string, string, string) policy.Trace { return s }
func (s *spans) TraceID() string                                                       { return "id" }

func (s *spans) StartAttempt(_ policy.Instant, _ string, number int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = make(map[int]bool)
	}
	s.open[number] = true
	return "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0" + string(rune('0'+number))
}

func (s *spans) EndAttempt(_ policy.Instant, number int, _ policy.Result, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, number)
	s.ended = append(s.ended, number)
}

func (s *spans) Event(_ policy.Instant, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, name)
}

func (s *spans) End(policy.Instant, *policy.Record) {}

func TestWhatIsRefusedSaysWhy(t *testing.T) {
	broken := policy.BreakerPolicy{Options: breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Minute}}
	for _, tc := range []struct {
		about    string
		policy   policy.Policy
		headers  []string
		before   int // requests that come first and fail
		code     int
		reason   string
		retry    bool // Retry-After is told
		attempts string
	}{
		{about: "an open breaker", policy: policy.Policy{Breaker: broken}, before: 1, code: 503, reason: "BREAKER_OPEN", retry: true, attempts: "0"},
		{about: "an open breaker of the endpoint", policy: policy.Policy{Breaker: policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: broken.Options}},
			before: 1, code: 503, reason: "BREAKER_OPEN", retry: true, attempts: "0"},
		{about: "the rate limit", policy: policy.Policy{RateLimit: policy.RateLimitPolicy{PerSecond: 0.1, Burst: 1}}, before: 1, code: 429, reason: "RATE_LIMIT", retry: true, attempts: "0"},
		{about: "an injected fault", policy: policy.Policy{Fault: policy.FaultPolicy{Abort: policy.ResourceExhausted, AbortPercent: 100}}, code: 429, reason: "FAULT_INJECTED", attempts: "0"},
		{about: "an injected fault of those that have a header", policy: policy.Policy{Fault: policy.FaultPolicy{Abort: policy.Unavailable, AbortPercent: 100, Header: "x-game-day", Value: "yes"}},
			headers: []string{"X-Game-Day", "yes"}, code: 503, reason: "FAULT_INJECTED", attempts: "0"},
		{about: "a deadline that is over", headers: []string{"Outrigger-Timeout-Ms", "0"}, code: 504, reason: "DEADLINE", attempts: "0"},
		{about: "a deadline during an injected delay", policy: policy.Policy{Fault: policy.FaultPolicy{Delay: time.Minute, DelayPercent: 100}},
			headers: []string{"Outrigger-Timeout-Ms", "50"}, code: 504, reason: "DEADLINE", attempts: "0"},
		{about: "the timeout during an injected delay", policy: policy.Policy{Timeout: 50 * time.Millisecond, Fault: policy.FaultPolicy{Delay: time.Minute, DelayPercent: 100}},
			code: 504, reason: "TIMEOUT", attempts: "0"},
		{about: "deferring", headers: []string{"Outrigger-Defer", "true"}, code: 400, reason: "NOT_DEFERRABLE", attempts: "0"},
	} {
		t.Run(tc.about, func(t *testing.T) {
			up := startWeb(t, status(500))
			s := start(t, tc.policy, Options{}, up.address)
			for range tc.before {
				s.ask("GET", "")
			}

			got := s.ask("POST", "text", tc.headers...)

			if got.code != tc.code || got.reason(t) != tc.reason || got.attempts() != tc.attempts || (got.Get("Retry-After") != "") != tc.retry {
				t.Errorf("got %+v", got)
			}
			if n := up.calls.Load(); n != int64(tc.before) {
				t.Errorf("%d requests arrived, want %d", n, tc.before)
			}
			eventually(t, "it is recorded", func() bool {
				r := s.lastRecord()
				return r.Reason.String() == tc.reason && r.Service == "web"
			})
		})
	}
}

func TestAnInjectedDelayHoldsARequestBack(t *testing.T) {
	up := startWeb(t, nil)
	trace := &spans{}
	s := start(t, policy.Policy{Fault: policy.FaultPolicy{Delay: 30 * time.Millisecond, DelayPercent: 100}}, Options{Tracer: trace}, up.address)
	began := time.Now()

	got := s.ask("GET", "")

	if took := time.Since(began); got.code != 200 || took < 30*time.Millisecond {
		t.Errorf("got %d after %v", got.code, took)
	}
	trace.mu.Lock()
	defer trace.mu.Unlock()
	if len(trace.events) != 1 || !strings.HasPrefix(trace.events[0], "FAULT_INJECTED: delay 30ms") {
		t.Errorf("the span has %q", trace.events)
	}
}

func TestACallerThatLeavesWhileItWaits(t *testing.T) {
	up := startWeb(t, nil)
	s := start(t, policy.Policy{Fault: policy.FaultPolicy{Delay: time.Minute, DelayPercent: 100}}, Options{}, up.address)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)

	_, err := s.try(ctx, "GET", "")

	if r := s.lastRecord(); err == nil || r.Reason != policy.CallerCanceled || r.Attempts != 0 || up.calls.Load() != 0 {
		t.Errorf("got %v, recorded %+v", err, r)
	}
}

func TestEachAttemptHasItsSpan(t *testing.T) {
	fails, trace := startWeb(t, status(503)), &spans{}
	s := start(t, policy.Policy{Retry: retries(3)}, Options{Tracer: trace}, fails.address)

	s.ask("GET", "")

	eventually(t, "each span is over", func() bool {
		trace.mu.Lock()
		defer trace.mu.Unlock()
		return len(trace.open) == 0 && len(trace.ended) == 3 && trace.ended[0] == 1 && trace.ended[2] == 3
	})
}

// TestTheQueueOfAConcurrencyLimit: one request is in flight; of those that come
// then the queue lets in, sends away, or is left.
func TestTheQueueOfAConcurrencyLimit(t *testing.T) {
	for _, tc := range []struct {
		about    string
		queue    int
		wait     time.Duration // queue_timeout
		headers  []string
		finishes bool // the first request ends while the second waits
		code     int
		reason   string
	}{
		{about: "no queue", queue: 0, wait: time.Minute, code: 429, reason: "CONCURRENCY_LIMIT"},
		{about: "let in", queue: 1, wait: time.Minute, finishes: true, code: 200},
		{about: "waited in vain", queue: 1, wait: 50 * time.Millisecond, code: 429, reason: "QUEUE_TIMEOUT"},
		{about: "its deadline comes first", queue: 1, wait: time.Minute, headers: []string{"Outrigger-Timeout-Ms", "50"}, code: 504, reason: "DEADLINE"},
	} {
		t.Run(tc.about, func(t *testing.T) {
			release := make(chan struct{})
			var once sync.Once
			finish := func() { once.Do(func() { close(release) }) }
			up := startWeb(t, func(http.ResponseWriter, *http.Request) { <-release })
			s := start(t, policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: tc.queue, QueueTimeout: tc.wait}}, Options{}, up.address)
			defer finish()
			first := make(chan struct{})
			go func() {
				defer close(first)
				_, _ = s.try(t.Context(), "GET", "")
			}()
			defer func() { <-first }()
			defer finish()
			eventually(t, "the first is in flight", func() bool { return up.calls.Load() == 1 })
			if tc.finishes {
				time.AfterFunc(50*time.Millisecond, finish)
			}

			got := s.ask("GET", "", tc.headers...)

			if got.code != tc.code || tc.reason != "" && (got.reason(t) != tc.reason || got.attempts() != "0") {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestWhoWaitsIsWokenByWhoEnds: of many at once all get through, one at a time.
func TestWhoWaitsIsWokenByWhoEnds(t *testing.T) {
	var inFlight, most atomic.Int64
	up := startWeb(t, func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), inFlight.Add(1)))
		time.Sleep(time.Millisecond)
		inFlight.Add(-1)
	})
	s := start(t, policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 100, QueueTimeout: time.Minute}}, Options{}, up.address)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			if got, err := s.try(t.Context(), "POST", "text"); err != nil || got.code != 200 {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	callers.Wait()
	if most.Load() != 1 || up.calls.Load() != 20 {
		t.Errorf("%d requests, up to %d at once", up.calls.Load(), most.Load())
	}
}

// TestTheLeastCriticalGoesFirst: a full queue gives up who matters less.
func TestTheLeastCriticalGoesFirst(t *testing.T) {
	release := make(chan struct{})
	up := startWeb(t, func(_ http.ResponseWriter, r *http.Request) { <-release })
	s := start(t, policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, QueueTimeout: time.Minute}}, Options{}, up.address)
	answers := make(map[string]answer)
	var mu sync.Mutex
	var callers sync.WaitGroup
	ask := func(criticality string) {
		callers.Go(func() {
			got, err := s.try(t.Context(), "GET", "", "Outrigger-Criticality", criticality)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			answers[criticality] = got
		})
	}
	ask("CRITICAL")
	eventually(t, "the first is in flight", func() bool { return up.calls.Load() == 1 })
	ask("SHEDDABLE")
	eventually(t, "the second waits", func() bool { return s.service.Limiter().Snapshot(s.now()).Waiting == 1 })
	ask("CRITICAL_PLUS")
	eventually(t, "the sheddable one is refused", func() bool { mu.Lock(); defer mu.Unlock(); return answers["SHEDDABLE"].code != 0 })
	close(release)
	callers.Wait()

	if a, b := answers["SHEDDABLE"], answers["CRITICAL_PLUS"]; a.code != 429 || a.reason(t) != "CONCURRENCY_LIMIT" || b.code != 200 {
		t.Errorf("the sheddable one got %d %s, the critical one %d", a.code, a.body, b.code)
	}
}
