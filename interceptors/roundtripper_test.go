package interceptors

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// webServer answers by serve and counts.
type webServer struct {
	*httptest.Server
	calls atomic.Int64
}

func newWebServer(t *testing.T, serve func(w http.ResponseWriter, r *http.Request, call int64)) *webServer {
	s := &webServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(w, r, s.calls.Add(1)) }))
	t.Cleanup(s.Close)
	return s
}

func (s *webServer) address() string { return s.Listener.Addr().String() }

// statuses answers with the statuses in turn, and then with 200.
func statuses(all ...int) func(http.ResponseWriter, *http.Request, int64) {
	return func(w http.ResponseWriter, r *http.Request, call int64) {
		if n := int(call) - 1; n < len(all) {
			w.WriteHeader(all[n])
			return
		}
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(append([]byte("good "), body...))
	}
}

func newHTTPClient(t *testing.T, p policy.Policy, endpoints ...string) (*http.Client, *policy.Service) {
	t.Helper()
	service := policy.NewService("web", policy.Settings{Policy: p}, nil)
	service.SetEndpoints(specs(endpoints...))
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	rt, err := NewRoundTripper(Options{Service: service}, base)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: rt}, service
}

func fetch(t *testing.T, c *http.Client, method, url, body string) (int, string, error) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	response, err := c.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	return response.StatusCode, string(all), err
}

func TestOnlyTheAgentKeepsRequestsForLater(t *testing.T) {
	s := newWebServer(t, statuses())
	c, service := newHTTPClient(t, policy.Policy{}, s.address())
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://web.test/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Outrigger-Defer", "true")

	response, err := c.Do(r)

	if err == nil {
		response.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "outrigger-defer") || s.calls.Load() != 0 {
		t.Fatalf("%v after %d requests", err, s.calls.Load())
	}
	nothingHeld(t, service)
}

func TestRequestsAreTriedAgainWhereThatIsHarmless(t *testing.T) {
	for _, tc := range []struct {
		about, method, body string
		policy              func(*policy.Policy)
		statuses            []int
		status              int
		calls               int64
	}{
		{"GET", "GET", "", nil, []int{503, 503}, 200, 3},
		{"PUT with a body that is there again", "PUT", "x", nil, []int{503}, 200, 2},
		{"POST", "POST", "x", nil, []int{503}, 503, 1},
		{"POST that the policy calls idempotent", "POST", "x", func(p *policy.Policy) { p.Idempotent = true }, []int{503}, 200, 2},
		{"an answer that is none of the codes", "GET", "", nil, []int{500}, 500, 1},
		{"failures beyond the most attempts", "GET", "", nil, []int{503, 503, 503}, 503, 3},
	} {
		s := newWebServer(t, statuses(tc.statuses...))
		p := retrying()
		if tc.policy != nil {
			tc.policy(&p)
		}
		c, service := newHTTPClient(t, p, s.address())

		status, body, err := fetch(t, c, tc.method, "http://web.test/x", tc.body)

		if err != nil || status != tc.status || s.calls.Load() != tc.calls || status == 200 && body != "good "+tc.body {
			t.Errorf("%s: %d %q %v after %d attempts; want %d after %d", tc.about, status, body, err, s.calls.Load(), tc.status, tc.calls)
		}
		nothingHeld(t, service)
		if n := service.Recorder().Lifetime().Calls; n != 1 {
			t.Errorf("%s: %d calls recorded", tc.about, n)
		}
	}
}

func TestTheHostHeaderStaysWhereAnEndpointIsPicked(t *testing.T) {
	s := newWebServer(t, func(w http.ResponseWriter, r *http.Request, _ int64) { _, _ = io.WriteString(w, r.Host+r.URL.Path) })
	c, _ := newHTTPClient(t, policy.Policy{}, s.address())
	if _, body, err := fetch(t, c, "GET", "http://web.test/x", ""); err != nil || body != "web.test/x" {
		t.Fatalf("got %q, %v", body, err)
	}
	c, _ = newHTTPClient(t, policy.Policy{}) // no endpoints: the URL's host
	if _, body, err := fetch(t, c, "GET", s.URL+"/y", ""); err != nil || body != s.address()+"/y" {
		t.Fatalf("got %q, %v", body, err)
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	s := newWebServer(t, func(w http.ResponseWriter, _ *http.Request, _ int64) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(503)
	})
	p := retrying()
	p.Timeout = time.Minute
	c, _ := newHTTPClient(t, p, s.address())
	if status, _, err := fetch(t, c, "GET", "http://web.test/", ""); err != nil || status != 503 || s.calls.Load() != 1 {
		t.Fatalf("%d %v after %d attempts", status, err, s.calls.Load())
	}
}

func TestAnUnreachedEndpointIsPassedOverWhateverTheMethod(t *testing.T) {
	s := newWebServer(t, statuses())
	gone := newWebServer(t, statuses())
	gone.Close()
	c, service := newHTTPClient(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, gone.address(), s.address())
	for range 4 {
		if status, body, err := fetch(t, c, "POST", "http://web.test/", "x"); err != nil || status != 200 || body != "good x" {
			t.Fatalf("%d %q %v", status, body, err)
		}
	}
	if n := actions(service)["transparent_retry"]; n == 0 {
		t.Fatal("no attempt met the endpoint that is gone")
	}
	nothingHeld(t, service)
}

func TestARefusedRequestCarriesItsRefusal(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 1
	s := newWebServer(t, statuses(500))
	c, _ := newHTTPClient(t, policy.Policy{Breaker: policy.BreakerPolicy{Options: o}}, s.address())
	_, _, _ = fetch(t, c, "GET", "http://web.test/", "")

	_, _, err := fetch(t, c, "GET", "http://web.test/", "")

	var refusal *policy.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != policy.BreakerOpen || refusal.RetryAfter <= 0 || s.calls.Load() != 1 {
		t.Fatalf("got %v", err)
	}
}

func TestATimeoutHoldsForTheBodyToo(t *testing.T) {
	for _, head := range []bool{false, true} {
		s := newWebServer(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
			if head {
				_, _ = io.WriteString(w, "x")
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		})
		c, service := newHTTPClient(t, policy.Policy{Timeout: 50 * time.Millisecond}, s.address())

		_, _, err := fetch(t, c, "GET", "http://web.test/", "")

		var refusal *policy.Refusal
		var timeout interface{ Timeout() bool }
		if !errors.As(err, &refusal) || refusal.Reason != policy.Timeout || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("head %v: got %v", head, err)
		}
		if service.Endpoints().All()[0].Failures() != 1 {
			t.Fatalf("head %v: %d failures of the endpoint", head, service.Endpoints().All()[0].Failures())
		}
		nothingHeld(t, service)
	}
}

func TestEventsOutliveTheTimeout(t *testing.T) {
	s := newWebServer(t, func(w http.ResponseWriter, _ *http.Request, _ int64) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 4 {
			_, _ = io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(30 * time.Millisecond)
		}
	})
	c, service := newHTTPClient(t, policy.Policy{Timeout: 50 * time.Millisecond}, s.address())
	if _, body, err := fetch(t, c, "GET", "http://web.test/", ""); err != nil || strings.Count(body, "data") != 4 {
		t.Fatalf("got %q, %v", body, err)
	}
	nothingHeld(t, service)
}

func TestAHedgeAnswersForASlowRequest(t *testing.T) {
	var came atomic.Bool
	var ended sync.WaitGroup
	ended.Add(1)
	serve := func(w http.ResponseWriter, r *http.Request, _ int64) {
		if !came.Swap(true) {
			defer ended.Done()
			<-r.Context().Done()
			return
		}
		_, _ = io.WriteString(w, "good")
	}
	a, b := newWebServer(t, serve), newWebServer(t, serve)
	p := hedging()
	p.Idempotent = false // a GET is
	c, service := newHTTPClient(t, p, a.address(), b.address())

	_, body, err := fetch(t, c, "GET", "http://web.test/", "")

	if err != nil || body != "good" || a.calls.Load() != 1 || b.calls.Load() != 1 {
		t.Fatalf("%q %v after %d and %d attempts", body, err, a.calls.Load(), b.calls.Load())
	}
	ended.Wait()
	nothingHeld(t, service)
}

func TestACallerWhoLeavesIsNobodysFault(t *testing.T) {
	arrived := make(chan struct{})
	s := newWebServer(t, func(_ http.ResponseWriter, r *http.Request, _ int64) { close(arrived); <-r.Context().Done() })
	c, service := newHTTPClient(t, retrying(), s.address())
	ctx, leave := context.WithCancel(t.Context())
	go func() { <-arrived; leave() }()
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://web.test/", nil)

	_, err := c.Do(r)

	if !errors.Is(err, context.Canceled) || service.Recorder().Lifetime().Excluded != 1 || service.Endpoints().All()[0].Failures() != 0 {
		t.Fatalf("got %v, %+v", err, service.Recorder().Lifetime())
	}
	nothingHeld(t, service)
}

func TestABodyThatIsClosedEarlyEndsTheCall(t *testing.T) {
	s := newWebServer(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	c, service := newHTTPClient(t, policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1}}, s.address())
	for range 3 {
		response, err := c.Get("http://web.test/")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
	}
	if n := service.Recorder().Lifetime().Successes; n != 3 {
		t.Fatalf("%d successes, want 3", n)
	}
	nothingHeld(t, service)
}

func TestWhatIsSaidToThePoliciesStaysHere(t *testing.T) {
	s := newWebServer(t, func(w http.ResponseWriter, r *http.Request, _ int64) {
		w.WriteHeader(503)
		_, _ = io.WriteString(w, r.Header.Get("Outrigger-Retry"))
	})
	c, _ := newHTTPClient(t, retrying(), s.address())
	r, _ := http.NewRequestWithContext(t.Context(), "GET", "http://web.test/", nil)
	r.Header.Set("Outrigger-Retry", "off")
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); s.calls.Load() != 1 || len(body) != 0 || r.Header.Get("Outrigger-Retry") != "off" {
		t.Fatalf("%d attempts; the server saw %q", s.calls.Load(), body)
	}
}
