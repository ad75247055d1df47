package api

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// member is an endpoint and the service that has it.
type member struct {
	service *policy.Service
	*balancer.Endpoint
}

// key orders members by service and address.
func (m member) key() string { return m.service.Name() + "\x00" + m.Address() }

// endpointsOf returns the services' endpoints in the order of their keys.
func endpointsOf(services []*policy.Service) []member {
	var all []member
	for _, s := range services {
		for _, e := range s.Endpoints().All() {
			all = append(all, member{s, e})
		}
	}
	slices.SortFunc(all, func(a, b member) int {
		return cmp.Or(cmp.Compare(a.service.Name(), b.service.Name()), cmp.Compare(a.Address(), b.Address()))
	})
	return all
}

var endpointStates = map[balancer.Condition]outriggerv1.Endpoint_State{
	balancer.Ready:      outriggerv1.Endpoint_READY,
	balancer.Connecting: outriggerv1.Endpoint_CONNECTING,
	balancer.Unhealthy:  outriggerv1.Endpoint_UNHEALTHY,
	balancer.Ejected:    outriggerv1.Endpoint_EJECTED,
	balancer.Draining:   outriggerv1.Endpoint_DRAINING,
}

// backIn begins what a reason says of an ejection's end.
const backIn = "; back in "

func (s *Server) showEndpoint(m member) *outriggerv1.Endpoint {
	condition, reason, since := m.Condition()
	if until := m.EjectedUntil(); condition == balancer.Ejected && until > 0 {
		reason += backIn + max(until-s.now(), 0).Round(time.Second).String()
	}
	if reason == "" {
		reason = s.agent.Note(m.Endpoint)
	}
	return &outriggerv1.Endpoint{
		Service:        m.service.Name(),
		Address:        m.Address(),
		State:          endpointStates[condition],
		Reason:         text(reason),
		InFlight:       m.InFlight(),
		Calls:          m.Calls(),
		Failures:       m.Failures(),
		Weight:         m.Spec().Weight,
		Zone:           m.Spec().Zone,
		Priority:       m.Spec().Priority,
		Since:          s.timestamp(since),
		ReportedWeight: m.service.ReportedWeight(m.Endpoint, s.now()),
	}
}

// endpointService implements outrigger.v1.EndpointService.
type endpointService struct {
	outriggerv1.UnimplementedEndpointServiceServer
	server *Server
}

func (e *endpointService) ListEndpoints(_ context.Context, r *outriggerv1.ListEndpointsRequest) (*outriggerv1.ListEndpointsResponse, error) {
	services, err := e.server.services(r.GetService())
	if err != nil {
		return nil, err
	}
	cut, next, err := page(endpointsOf(services), member.key, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &outriggerv1.ListEndpointsResponse{NextPageToken: next}
	for _, m := range cut {
		out.Endpoints = append(out.Endpoints, e.server.showEndpoint(m))
	}
	return out, nil
}

// setDraining drains an address or lets it take calls again.
func (e *endpointService) setDraining(ctx context.Context, service, address string, on bool) ([]*outriggerv1.Endpoint, error) {
	services, err := e.server.services(service)
	if err != nil {
		return nil, err
	}
	all := endpointsOf(services)
	var out []*outriggerv1.Endpoint
	for _, m := range all {
		if m.Address() == address {
			m.SetDraining(on)
			e.server.agent.Drained(m.service.Name(), address, on)
			out = append(out, e.server.showEndpoint(m))
		}
	}
	if len(out) == 0 {
		known := make([]string, len(all))
		for i, m := range all {
			known[i] = m.Address()
		}
		slices.Sort(known)
		return nil, unknown("endpoint", address, slices.Compact(known), "no service has any")
	}
	e.server.Changed()
	e.server.log.InfoContext(ctx, "an operator moved an endpoint", "endpoint", address, "draining", on, "services", len(out), "peer", peerAddress(ctx))
	return out, nil
}

func (e *endpointService) DrainEndpoint(ctx context.Context, r *outriggerv1.DrainEndpointRequest) (*outriggerv1.DrainEndpointResponse, error) {
	moved, err := e.setDraining(ctx, r.GetService(), r.GetAddress(), true)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.DrainEndpointResponse{Endpoints: moved}, nil
}

func (e *endpointService) UndrainEndpoint(ctx context.Context, r *outriggerv1.UndrainEndpointRequest) (*outriggerv1.UndrainEndpointResponse, error) {
	moved, err := e.setDraining(ctx, r.GetService(), r.GetAddress(), false)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.UndrainEndpointResponse{Endpoints: moved}, nil
}

func (e *endpointService) WatchEndpoints(r *outriggerv1.WatchEndpointsRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchEndpointsResponse]) error {
	var sent endpointDiff
	return e.server.watch(stream.Context(), r.GetInterval(), func() error {
		services, err := e.server.servicesSince(r.GetService(), sent == nil)
		if err != nil {
			return err
		}
		return sent.next(e.server, endpointsOf(services), stream.Send)
	})
}

// lasting is what a reason says without what changes every second.
func lasting(e *outriggerv1.Endpoint) string {
	reason, _, _ := strings.Cut(e.GetReason(), backIn)
	return reason
}

// endpointDiff is what a watcher knows of each endpoint, by its key.
type endpointDiff map[string]*outriggerv1.Endpoint

// next sends what is new, changed or gone since the last time.
func (d *endpointDiff) next(s *Server, all []member, send func(*outriggerv1.WatchEndpointsResponse) error) error {
	seen := make(endpointDiff, len(all))
	for _, m := range all {
		shown := s.showEndpoint(m)
		seen[m.key()] = shown
		before := (*d)[m.key()]
		if before != nil && before.GetState() == shown.GetState() && lasting(before) == lasting(shown) &&
			before.GetWeight() == shown.GetWeight() && before.GetZone() == shown.GetZone() && before.GetPriority() == shown.GetPriority() {
			continue
		}
		if err := send(&outriggerv1.WatchEndpointsResponse{Endpoint: shown}); err != nil {
			return err
		}
	}
	for key, before := range *d {
		if seen[key] == nil {
			if err := send(&outriggerv1.WatchEndpointsResponse{Endpoint: before, Gone: true}); err != nil {
				return err
			}
		}
	}
	*d = seen
	return nil
}
