package interceptors

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// halfUsed is an OrcaLoadReport: a utilization of 0.5 at 100 requests a second.
const halfUsed = "\x09\x00\x00\x00\x00\x00\x00\xe0\x3f\x31\x00\x00\x00\x00\x00\x00\x59\x40"

var byReports = balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}

// reports answers with a report in its trailers.
func reports(name, value string, err error) func(context.Context, int64) error {
	return func(ctx context.Context, _ int64) error {
		_ = grpc.SetTrailer(ctx, metadata.Pairs(name, value))
		return err
	}
}

// reportedWeight returns the weight of the service's only endpoint.
func reportedWeight(s *policy.Service, c *Client) float64 {
	return math.Round(s.ReportedWeight(s.Endpoints().All()[0], c.now()))
}

// underReports returns a ClientConn and what is behind it.
func underReports(t *testing.T, ss *servers, p policy.Policy, endpoint string) (*grpc.ClientConn, *policy.Service, *Client) {
	p.LoadBalancing = byReports
	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
	service.SetEndpoints(specs(endpoint))
	client := newClient(t, service)
	return ss.dialTo("outrigger:///greeter", client.DialOptions()...), service, client
}

func TestUnaryCallsReportLoad(t *testing.T) {
	retry := policy.Policy{Retry: policy.RetryPolicy{MaxAttempts: 2, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond, Budget: policy.DefaultBudget()}}
	for name, test := range map[string]struct {
		policy policy.Policy
		answer func(context.Context, int64) error
		want   float64
	}{
		"with an answer":                {policy.Policy{}, reports("endpoint-load-metrics-bin", halfUsed, nil), 200},
		"with an answer, retries on":    {retry, reports("endpoint-load-metrics-bin", halfUsed, nil), 200},
		"with an error":                 {policy.Policy{}, reports("endpoint-load-metrics-bin", halfUsed, status.Error(codes.NotFound, "nobody")), 200},
		"with an error that is retried": {retry, reports("endpoint-load-metrics-bin", halfUsed, status.Error(codes.Unavailable, "not now")), 200},
		"as text":                       {policy.Policy{}, reports("endpoint-load-metrics", "TEXT cpu_utilization=0.25, rps_fractional=100", nil), 400},
		"that can't be read":            {policy.Policy{}, reports("endpoint-load-metrics-bin", "\x09", nil), 0},
	} {
		t.Run(name, func(t *testing.T) {
			ss := newServers(t)
			ss.start("a", test.answer)
			cc, service, client := underReports(t, ss, test.policy, "a")
			var trailer metadata.MD
			_, _ = ask(t.Context(), cc, grpc.Trailer(&trailer))
			if w := reportedWeight(service, client); w != test.want {
				t.Errorf("weighs %v; want %v", w, test.want)
			}
			if len(trailer["endpoint-load-metrics-bin"])+len(trailer["endpoint-load-metrics"]) != 1 {
				t.Errorf("the caller's trailer is %v", trailer)
			}
		})
	}
}

func TestAStreamReportsLoadAtItsEnd(t *testing.T) {
	ss := newServers(t)
	l := bufconn.Listen(1 << 20)
	ss.listeners["a"] = l
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		s.SetTrailer(metadata.Pairs("endpoint-load-metrics-bin", halfUsed))
		return nil
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	t.Cleanup(func() { g.Stop(); <-done })
	cc, service, client := underReports(t, ss, policy.Policy{}, "a")
	s, err := openBidi(t.Context(), cc)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); err != io.EOF {
		t.Fatal(err)
	}
	if w := reportedWeight(service, client); w != 200 {
		t.Errorf("weighs %v; want 200", w)
	}
	nothingHeld(t, service)
}

func TestOtherCallsOnTheConnectionReportLoadToo(t *testing.T) {
	// Given an RPC that goes by the balancer and not by the interceptors,
	ss := newServers(t)
	ss.start("a", reports("endpoint-load-metrics-bin", halfUsed, nil))
	service := policy.NewService("greeter", policy.Settings{Policy: policy.Policy{LoadBalancing: byReports}}, nil)
	service.SetEndpoints(specs("a"))
	client := newClient(t, service)
	cc := ss.dialTo("outrigger:///greeter", grpc.WithDefaultServiceConfig(client.serviceConfig()), grpc.WithResolvers(resolverBuilder{client}))
	if _, err := ask(t.Context(), cc, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	if w := reportedWeight(service, client); w != 200 {
		t.Errorf("weighs %v; want 200", w)
	}
}

func TestHTTPAnswersReportLoadInHeaders(t *testing.T) {
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Endpoint-Load-Metrics", "TEXT cpu_utilization=0.5, rps_fractional=100")
	}))
	t.Cleanup(u.Close)
	service := policy.NewService("web", policy.Settings{Policy: policy.Policy{LoadBalancing: byReports}}, nil)
	service.SetEndpoints(specs(strings.TrimPrefix(u.URL, "http://")))
	client := newClient(t, service)
	base := &http.Transport{}
	t.Cleanup(base.CloseIdleConnections)
	rt := &roundTripper{client: client, base: base}
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://web/", nil)
	response, err := rt.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if w := reportedWeight(service, client); w != 200 {
		t.Errorf("weighs %v; want 200", w)
	}
}
