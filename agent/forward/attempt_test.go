package forward

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// retries is a policy that tries so often, with pauses too short to wait for.
func retries(attempts int) policy.RetryPolicy {
	return policy.RetryPolicy{
		MaxAttempts: attempts, BackoffBase: time.Microsecond, BackoffMax: time.Microsecond,
		Budget: policy.BudgetPolicy{Ratio: 1, MinPerSecond: 1000},
	}
}

func TestWhatIsTriedAgain(t *testing.T) {
	for _, tc := range []struct {
		about    string
		method   string
		body     string
		policy   policy.Policy
		headers  []string
		failure  int // status of the first endpoint
		code     int // what the caller gets
		attempts string
	}{
		{about: "GET", method: "GET", policy: policy.Policy{Retry: retries(3)}, failure: 503, code: 200, attempts: "2"},
		{about: "HEAD", method: "HEAD", policy: policy.Policy{Retry: retries(3)}, failure: 503, code: 200, attempts: "2"},
		{about: "PUT with a body", method: "PUT", body: "text", policy: policy.Policy{Retry: retries(3)}, failure: 502, code: 200, attempts: "2"},
		{about: "DELETE", method: "DELETE", policy: policy.Policy{Retry: retries(3)}, failure: 504, code: 200, attempts: "2"},
		{about: "POST", method: "POST", body: "text", policy: policy.Policy{Retry: retries(3)}, failure: 503, code: 503, attempts: "1"},
		{about: "POST without a body", method: "POST", policy: policy.Policy{Retry: retries(3)}, failure: 503, code: 503, attempts: "1"},
		{about: "PATCH", method: "PATCH", body: "text", policy: policy.Policy{Retry: retries(3)}, failure: 503, code: 503, attempts: "1"},
		{about: "POST that may be processed twice", method: "POST", body: "text", policy: policy.Policy{Retry: retries(3), Idempotent: true}, failure: 503, code: 200, attempts: "2"},
		{about: "a status that is not among the codes", method: "GET", policy: policy.Policy{Retry: retries(3)}, failure: 500, code: 500, attempts: "1"},
		{about: "one that was put there", method: "GET", policy: policy.Policy{Retry: policy.RetryPolicy{
			MaxAttempts: 2, BackoffBase: 1, BackoffMax: 1, Codes: policy.Codes(policy.Internal), Budget: policy.BudgetPolicy{MinPerSecond: 1000}}}, failure: 500, code: 200, attempts: "2"},
		{about: "an answer that is no failure", method: "GET", policy: policy.Policy{Retry: retries(3)}, failure: 404, code: 404, attempts: "1"},
		{about: "a caller that wants none", method: "GET", policy: policy.Policy{Retry: retries(3)}, headers: []string{"Outrigger-Retry", "off"}, failure: 503, code: 503, attempts: "1"},
		{about: "no policy", method: "GET", failure: 503, code: 503, attempts: "1"},
		{about: "OBSERVE", method: "GET", policy: policy.Policy{Retry: func() policy.RetryPolicy { p := retries(3); p.Mode = policy.Observe; return p }()}, failure: 503, code: 503, attempts: "1"},
	} {
		t.Run(tc.about, func(t *testing.T) {
			first := true
			var mu sync.Mutex
			fails := func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if first {
					first = false
					w.WriteHeader(tc.failure)
					io.WriteString(w, "no")
				}
			}
			a, b := startWeb(t, fails), startWeb(t, fails)
			s := start(t, tc.policy, Options{}, a.address, b.address)

			got := s.ask(tc.method, tc.body, tc.headers...)

			if got.code != tc.code || got.attempts() != tc.attempts {
				t.Errorf("got %d after %s attempts, want %d after %s", got.code, got.attempts(), tc.code, tc.attempts)
			}
			if n := fmt.Sprint(a.calls.Load() + b.calls.Load()); n != tc.attempts {
				t.Errorf("%s requests arrived, want %s", n, tc.attempts)
			}
			if tc.attempts == "2" && (a.calls.Load() != 1 || a.lastBody() != tc.body || b.lastBody() != tc.body) {
				t.Errorf("got %q and %q, want %q at either endpoint", a.bodies, b.bodies, tc.body)
			}
			if tc.code == 503 && got.body != "no" {
				t.Errorf("the failure's body came as %q", got.body)
			}
		})
	}
}

func TestAConnectionThatBreaksIsTriedAgainWhereTheRequestMayBe(t *testing.T) {
	for method, attempts := range map[string]string{"PUT": "2", "POST": "1"} {
		breaks := startWeb(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		works := startWeb(t, nil)
		s := start(t, policy.Policy{Retry: retries(2)}, Options{}, breaks.address, works.address)
		var got answer
		for range 2 { // one of them begins at the endpoint that breaks
			if got = s.ask(method, "text"); breaks.calls.Load() > 0 {
				break
			}
		}
		if got.attempts() != attempts {
			t.Errorf("%s: %s attempts, want %s", method, got.attempts(), attempts)
		}
		if attempts == "1" && (got.code != 503 || got.reason(t) != "CONNECTION_LOST") {
			t.Errorf("%s: got %+v", method, got)
		}
	}
}

func TestAnEndpointThatCantBeReachedIsNoAttemptOfTheRequest(t *testing.T) {
	works := startWeb(t, nil)
	s := start(t, policy.Policy{}, Options{}, "127.0.0.1:1", works.address)
	for range 4 {
		if got := s.ask("POST", "text"); got.code != 200 || works.lastBody() != "text" {
			t.Errorf("got %+v", got)
		}
	}
	if n := actions(s.service)["transparent_retry"]; n == 0 {
		t.Error("no transparent retry was counted")
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	// The caller has 5 s: an endpoint that asks for an hour gets no retry.
	patient := startWeb(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	})
	s := start(t, policy.Policy{Retry: retries(3)}, Options{}, patient.address)

	got := s.ask("GET", "", "Outrigger-Timeout-Ms", "5000")

	if got.code != 503 || got.attempts() != "1" || got.Get("Retry-After") != "3600" || actions(s.service)["too_late"] != 1 {
		t.Errorf("got %d after %s attempts, %v", got.code, got.attempts(), actions(s.service))
	}
}

func TestRetryAfterIsWaitedFor(t *testing.T) {
	var asked, early atomic.Int64
	up := startWeb(t, func(w http.ResponseWriter, _ *http.Request) {
		switch now := time.Now().UnixNano(); {
		case asked.CompareAndSwap(0, now):
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		case now-asked.Load() < int64(time.Second):
			early.Add(1)
		}
	})
	s := start(t, policy.Policy{Retry: retries(3)}, Options{}, up.address)

	got := s.ask("GET", "")

	if got.code != 200 || got.attempts() != "2" || early.Load() > 0 {
		t.Errorf("got %d after %s attempts, %d of them early", got.code, got.attempts(), early.Load())
	}
}

func TestTheBudgetHolds(t *testing.T) {
	up := startWeb(t, status(503))
	p := retries(3)
	p.Budget = policy.BudgetPolicy{Ratio: 0.2, MinPerSecond: 0}
	s := start(t, policy.Policy{Retry: p}, Options{}, up.address)

	for range 50 {
		s.ask("GET", "")
	}

	if n := up.calls.Load(); n <= 50 || n > 60 {
		t.Errorf("%d requests for 50 calls, want up to a fifth more", n)
	}
	if actions(s.service)["over_budget"] == 0 {
		t.Error("nothing was over the budget")
	}
}

func TestPerTryTimeout(t *testing.T) {
	for _, tc := range []struct {
		method, attempts string
		code             int
	}{{"GET", "2", 200}, {"POST", "1", 504}} {
		slow := &web{}
		var first atomic.Bool
		hangs := func(w http.ResponseWriter, r *http.Request) {
			if first.CompareAndSwap(false, true) {
				slow.hang(w, r)
			}
		}
		a, b := startWeb(t, hangs), startWeb(t, hangs)
		s := start(t, policy.Policy{PerTryTimeout: 200 * time.Millisecond, Retry: retries(2)}, Options{}, a.address, b.address)

		got := s.ask(tc.method, "")

		if got.code != tc.code || got.attempts() != tc.attempts {
			t.Errorf("%s: got %d after %s attempts, want %d after %s", tc.method, got.code, got.attempts(), tc.code, tc.attempts)
		}
		if tc.code == 504 && got.reason(t) != "TIMEOUT" {
			t.Errorf("%s: got %+v", tc.method, got)
		}
		eventually(t, "the slow attempt is cancelled", func() bool { return slow.gone.Load() == 1 })
	}
}

func TestAHedgeWinsOverASlowEndpoint(t *testing.T) {
	for _, tc := range []struct {
		about, method, body string
		policy              policy.Policy
	}{
		{"without a body", "GET", "", policy.Policy{}},
		{"with one", "PUT", "text", policy.Policy{}},
		{"idempotent by policy", "POST", "text", policy.Policy{Idempotent: true}},
	} {
		t.Run(tc.about, func(t *testing.T) {
			slow := &web{}
			var first atomic.Bool
			answers := func(w http.ResponseWriter, r *http.Request) {
				if first.CompareAndSwap(false, true) {
					slow.hang(w, r)
					return
				}
				w.(http.Flusher).Flush()
				for range 1000 { // the loser ends as soon as the winner begins
					if slow.gone.Load() == 1 {
						io.WriteString(w, "quick")
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}
			a, b := startWeb(t, answers), startWeb(t, answers)
			p := tc.policy
			p.Hedge = policy.HedgePolicy{Delay: 20 * time.Millisecond, MaxAttempts: 2}
			p.Retry.Budget = policy.BudgetPolicy{MinPerSecond: 1000}
			s := start(t, p, Options{}, a.address, b.address)

			got := s.ask(tc.method, tc.body)

			if got.code != 200 || got.body != "quick" || got.attempts() != "2" {
				t.Errorf("got %+v", got)
			}
			if a.calls.Load() != 1 || b.calls.Load() != 1 || a.lastBody() != tc.body || b.lastBody() != tc.body {
				t.Errorf("%d and %d requests, want one at each; bodies %q %q", a.calls.Load(), b.calls.Load(), a.bodies, b.bodies)
			}
			eventually(t, "nothing is in flight", func() bool {
				for _, e := range s.service.Endpoints().All() {
					if e.InFlight() != 0 {
						return false
					}
				}
				return true
			})
			if n := actions(s.service)["hedge"]; n != 1 {
				t.Errorf("%d hedges, want 1", n)
			}
		})
	}
}

func TestWhatIsNotIdempotentIsNotHedged(t *testing.T) {
	release := make(chan struct{})
	answers := func(http.ResponseWriter, *http.Request) { <-release }
	a, b := startWeb(t, answers), startWeb(t, answers)
	s := start(t, policy.Policy{Hedge: policy.HedgePolicy{Delay: time.Millisecond, MaxAttempts: 3}, Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{MinPerSecond: 1000}}},
		Options{}, a.address, b.address)
	time.AfterFunc(100*time.Millisecond, func() { close(release) })

	got := s.ask("POST", "text")

	if n := a.calls.Load() + b.calls.Load(); n != 1 || got.attempts() != "1" {
		t.Errorf("%d requests arrived, want 1", n)
	}
}

// TestAHedgeWaitsForTheWholeRequest: a caller that is slow is no reason to
// load a second endpoint.
func TestAHedgeWaitsForTheWholeRequest(t *testing.T) {
	a, b := startWeb(t, nil), startWeb(t, nil)
	s := start(t, policy.Policy{Hedge: policy.HedgePolicy{Delay: time.Millisecond, MaxAttempts: 3}, Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{MinPerSecond: 1000}}},
		Options{}, a.address, b.address)
	body, sent := io.Pipe()
	r, err := http.NewRequest("PUT", "http://"+s.address+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	early := make(chan int64, 1)
	go func() {
		io.WriteString(sent, "begin")
		time.Sleep(60 * time.Millisecond)
		early <- a.calls.Load() + b.calls.Load()
		sent.Close()
	}()

	res, err := s.client.Do(r)

	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if n := <-early; n != 1 || res.StatusCode != 200 {
		t.Errorf("%d requests before the body was whole, want 1; got %d", n, res.StatusCode)
	}
}

func TestAHedgeThatFindsNoEndpointLeavesTheFirstAttempt(t *testing.T) {
	var s *sidecar
	up := startWeb(t, func(w http.ResponseWriter, _ *http.Request) {
		s.service.Endpoints().All()[0].SetDraining(true)
		for range 1000 {
			if actions(s.service)["hedge"] > 0 {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		io.WriteString(w, "first")
	})
	s = start(t, policy.Policy{Hedge: policy.HedgePolicy{Delay: 20 * time.Millisecond, MaxAttempts: 2}, Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{MinPerSecond: 1000}}},
		Options{}, up.address)

	got := s.ask("GET", "")

	if got.code != 200 || got.body != "first" || got.attempts() != "1" || actions(s.service)["hedge"] != 1 {
		t.Errorf("got %+v, %v", got, actions(s.service))
	}
}

func TestAnAnswerUnderWayIsNotHedged(t *testing.T) {
	release := make(chan struct{})
	answers := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begin ")
		w.(http.Flusher).Flush()
		<-release
		io.WriteString(w, "end")
	}
	a, b := startWeb(t, answers), startWeb(t, answers)
	s := start(t, policy.Policy{Hedge: policy.HedgePolicy{Delay: 50 * time.Millisecond, MaxAttempts: 3}, Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{MinPerSecond: 1000}}},
		Options{}, a.address, b.address)
	time.AfterFunc(200*time.Millisecond, func() { close(release) })

	got := s.ask("GET", "")

	if n := a.calls.Load() + b.calls.Load(); n != 1 || got.body != "begin end" {
		t.Errorf("%d requests arrived, want 1; got %q", n, got.body)
	}
}

func TestAFailedAttemptLeavesItsConnectionToOthers(t *testing.T) {
	var calls atomic.Int64
	up := startWeb(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1)%2 == 1 {
			w.WriteHeader(503)
			io.WriteString(w, strings.Repeat("no", 500))
		}
	})
	p := retries(2)
	p.BackoffBase, p.BackoffMax = 20*time.Millisecond, 20*time.Millisecond
	s := start(t, policy.Policy{Retry: p}, Options{}, up.address)

	for range 10 {
		if got := s.ask("GET", ""); got.code != 200 || got.attempts() != "2" {
			t.Fatalf("got %+v", got)
		}
	}

	if n := up.connections.Load(); n > 5 {
		t.Errorf("%d connections for 20 attempts one after the other", n)
	}
}

func TestARefusedRetryExplainsItself(t *testing.T) {
	up := startWeb(t, status(503))
	p := policy.Policy{Retry: retries(5)}
	p.Breaker.Options.ConsecutiveFailures = 2
	p.Breaker.Scope = policy.ScopeEndpoint
	s := start(t, p, Options{}, up.address)

	got := s.ask("GET", "")

	if got.code != 503 || got.reason(t) != "BREAKER_OPEN" || got.attempts() != "2" || !strings.Contains(got.body, "after 2 failed attempts") {
		t.Errorf("got %+v", got)
	}
}

func TestACallerThatLeavesEndsItsAttempts(t *testing.T) {
	slow := &web{}
	up := startWeb(t, slow.hang)
	s := start(t, policy.Policy{Retry: retries(3)}, Options{}, up.address)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)

	_, err := s.try(ctx, "GET", "")

	if err == nil {
		t.Fatal("an answer came")
	}
	eventually(t, "the attempt is cancelled", func() bool { return slow.gone.Load() == 1 })
	if r := s.lastRecord(); r.Reason != policy.CallerCanceled || r.Attempts != 1 {
		t.Errorf("recorded %+v", r)
	}
}
