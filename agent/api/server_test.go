package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestRequestsThatBreakARuleAreRefused(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	short := durationpb.New(time.Millisecond)
	for _, c := range []struct {
		name  string
		field string
		do    func(context.Context) error
	}{
		{"page size below 0", "page_size", func(ctx context.Context) error {
			_, err := h.breakers().ListBreakers(ctx, &outriggerv1.ListBreakersRequest{PageSize: -1})
			return err
		}},
		{"page size above 1000", "page_size", func(ctx context.Context) error {
			_, err := h.endpoints().ListEndpoints(ctx, &outriggerv1.ListEndpointsRequest{PageSize: 1001})
			return err
		}},
		{"no name", "name", func(ctx context.Context) error {
			_, err := h.breakers().OpenBreaker(ctx, &outriggerv1.OpenBreakerRequest{})
			return err
		}},
		{"no address", "address", func(ctx context.Context) error {
			_, err := h.endpoints().DrainEndpoint(ctx, &outriggerv1.DrainEndpointRequest{})
			return err
		}},
		{"no service", "service", func(ctx context.Context) error {
			_, err := h.reports().GetReport(ctx, &outriggerv1.GetReportRequest{})
			return err
		}},
		{"a watcher in a hurry", "interval", func(ctx context.Context) error {
			stream, err := h.agent().WatchStatus(ctx, &outriggerv1.WatchStatusRequest{Interval: short})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if s := wantCode(t, c.do(h.context()), codes.InvalidArgument); !strings.Contains(s.Message(), c.field) {
				t.Errorf("%q does not name %s", s.Message(), c.field)
			}
		})
	}
}

func TestARequestThatIsTooBigIsRefused(t *testing.T) {
	h := newHouse(t)
	_, err := h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: strings.Repeat("x", 100<<10)})
	wantCode(t, err, codes.ResourceExhausted)
}

func TestAPanicEndsItsRequestAlone(t *testing.T) {
	h := newHouse(t)
	h.broken = true
	_, err := h.agent().GetAgent(h.context(), &outriggerv1.GetAgentRequest{})
	if s := wantCode(t, err, codes.Internal); strings.Contains(s.Message(), "wall") {
		t.Errorf("the caller is told %q", s.Message())
	}
	must[*outriggerv1.ListBreakersResponse](t)(h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{}))
}

func TestHealthAndReflection(t *testing.T) {
	h := newHouse(t)
	health := healthv1.NewHealthClient(h.conn)
	for _, service := range []string{"", "outrigger.v1.AgentService", "outrigger.v1.SlaService", "outrigger.v1.ResilienceService"} {
		r := must[*healthv1.HealthCheckResponse](t)(health.Check(h.context(), &healthv1.HealthCheckRequest{Service: service}))
		if r.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("%q is %v", service, r.GetStatus())
		}
	}
	stream := must[reflectionv1.ServerReflection_ServerReflectionInfoClient](t)(reflectionv1.NewServerReflectionClient(h.conn).ServerReflectionInfo(h.context()))
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range must[*reflectionv1.ServerReflectionResponse](t)(stream.Recv()).GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"outrigger.v1.AgentService", "outrigger.v1.BreakerService", "outrigger.v1.EndpointService", "outrigger.v1.SlaService", "outrigger.v1.ResilienceService", "grpc.health.v1.Health"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("%s is not among %q", want, names)
		}
	}
	stream.CloseSend()
}

func TestWatchersAreBounded(t *testing.T) {
	// Given as many watchers as there may be,
	h := newHouse(t)
	streams := make([]outriggerv1.BreakerService_WatchBreakersClient, maxWatchers)
	h.add("greeter", reference(policy.ScopeService))
	ctx, cancel := context.WithCancel(h.context())
	for i := range streams {
		streams[i] = must[outriggerv1.BreakerService_WatchBreakersClient](t)(h.breakers().WatchBreakers(ctx, &outriggerv1.WatchBreakersRequest{}))
		must[*outriggerv1.WatchBreakersResponse](t)(streams[i].Recv())
	}
	// when another comes, then it is told,
	late := must[outriggerv1.AgentService_WatchStatusClient](t)(h.agent().WatchStatus(h.context(), &outriggerv1.WatchStatusRequest{}))
	_, err := late.Recv()
	wantCode(t, err, codes.ResourceExhausted)
	// and when they leave, there is room again.
	cancel()
	for {
		again := must[outriggerv1.AgentService_WatchStatusClient](t)(h.agent().WatchStatus(h.context(), &outriggerv1.WatchStatusRequest{}))
		if _, err := again.Recv(); err == nil {
			return
		}
	}
}

func TestWatchersOfAnUnknownServiceAreTold(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	stream := must[outriggerv1.EndpointService_WatchEndpointsClient](t)(h.endpoints().WatchEndpoints(h.context(), &outriggerv1.WatchEndpointsRequest{Service: "greter"}))
	_, err := stream.Recv()
	wantCode(t, err, codes.NotFound)
}

func TestWatchersEndWithTheServer(t *testing.T) {
	// Given watchers of the API's and of the health service's,
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	status := must[outriggerv1.AgentService_WatchStatusClient](t)(h.agent().WatchStatus(h.context(), &outriggerv1.WatchStatusRequest{Interval: durationpb.New(time.Hour)}))
	must[*outriggerv1.WatchStatusResponse](t)(status.Recv())
	health := must[healthv1.Health_WatchClient](t)(healthv1.NewHealthClient(h.conn).Watch(h.context(), &healthv1.HealthCheckRequest{}))
	must[*healthv1.HealthCheckResponse](t)(health.Recv())
	// when the server shuts down,
	h.server.Shutdown(context.Background())
	// then they are told why they end.
	_, err := status.Recv()
	if s := wantCode(t, err, codes.Unavailable); s.Message() != "the agent is ending" {
		t.Error(s.Message())
	}
	for {
		if _, err := health.Recv(); err != nil {
			wantCode(t, err, codes.Unavailable)
			return
		}
	}
}
