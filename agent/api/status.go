package api

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

const (
	// rateWindow is what "now" means for rates and latency.
	rateWindow = 10 * time.Second
	// shortestRate is the least time that a rate is reckoned over: a call in
	// the first millisecond is no thousand calls a second.
	shortestRate = time.Second
	// maxShown bounds the services of a status, and the endpoints and breakers
	// of each. Callers may make services, methods and so breakers come up;
	// they must not make the answer grow without end.
	maxShown = 200
)

// busy is a service and what it did in the last 10 seconds.
type busy struct {
	*policy.Service
	totals sla.Totals
}

// busiest returns at most maxShown of the services, in the order of their
// names, and how many are left out.
func (s *Server) busiest(services []*policy.Service) (shown []busy, omitted int) {
	now := s.now()
	all := make([]busy, len(services))
	for i, service := range services {
		all[i] = busy{service, service.Recorder().Read(now, rateWindow)}
	}
	if len(all) <= maxShown {
		return all, 0
	}
	slices.SortStableFunc(all, func(a, b busy) int { return cmp.Compare(b.totals.Calls, a.totals.Calls) })
	shown = all[:maxShown]
	slices.SortFunc(shown, func(a, b busy) int { return cmp.Compare(a.Name(), b.Name()) })
	return shown, len(all) - maxShown
}

func (s *Server) showAgent() *outriggerv1.Agent {
	info := s.agent.Info()
	phase := outriggerv1.Agent_SERVING
	if info.Draining {
		phase = outriggerv1.Agent_DRAINING
	}
	return &outriggerv1.Agent{
		Version:          info.Version,
		Started:          timestamppb.New(s.origin),
		Uptime:           durationpb.New(s.now()),
		ConfigPath:       text(info.ConfigPath),
		ConfigGeneration: info.ConfigGeneration,
		ConfigLoaded:     timeOf(info.ConfigLoaded),
		LastReload:       timeOf(info.LastReload),
		ReloadError:      text(info.ReloadError),
		EgressAddress:    info.Egress,
		ApiAddress:       info.API,
		AdminAddress:     info.Admin,
		Phase:            phase,
	}
}

// status is everything at a glance.
func (s *Server) status(services []*policy.Service) *outriggerv1.Status {
	traffic := s.agent.Traffic()
	shown, omitted := s.busiest(services)
	out := &outriggerv1.Status{
		At:                    timestamppb.Now(),
		Agent:                 s.showAgent(),
		ActiveCalls:           int64(traffic.ActiveCalls),
		DownstreamConnections: int32(traffic.DownstreamConnections),
		UpstreamConnections:   int32(traffic.UpstreamConnections),
		CallsTotal:            traffic.Calls,
		BufferedBytes:         traffic.BufferedBytes,
		OmittedServices:       int32(omitted),
	}
	for _, service := range shown {
		out.Services = append(out.Services, s.serviceStatus(service))
	}
	return out
}

func (s *Server) serviceStatus(b busy) *outriggerv1.ServiceStatus {
	t := &b.totals
	out := &outriggerv1.ServiceStatus{
		Name:           b.Name(),
		CallsPerSecond: float64(t.Calls) / max(t.Span, shortestRate).Seconds(),
		Availability:   percent(t.Answered(), t.Counted()),
		SuccessRate:    percent(t.Successes, t.Counted()),
		Counted:        t.Counted(),
		P50Ms:          milliseconds(t.Latency.Quantile(0.5)),
		P95Ms:          milliseconds(t.Latency.Quantile(0.95)),
		P99Ms:          milliseconds(t.Latency.Quantile(0.99)),
		Refusals:       make(map[string]uint64),
		Codes:          make(map[string]uint64),
		RetriesTotal:   b.Retries(),
	}
	for _, c := range b.Codes() {
		out.Codes[c.Label] = c.Total
		out.CallsTotal += c.Total
	}
	for _, c := range b.Refusals() {
		if c.Label != policy.CallerCanceled.String() {
			out.Refusals[c.Label] = c.Total
		}
	}
	out.Panicking = panicking(b.Service)
	out.Observed, out.Actions = totals(b.Observed()), totals(b.Actions())
	if l := b.Limiter(); l != nil {
		now := l.Snapshot(s.now())
		out.Concurrency = &outriggerv1.ConcurrencyStatus{Limit: int32(now.Limit), InFlight: int32(now.InFlight), Waiting: int32(now.Waiting)}
	}
	if c := b.Cache(); c != nil {
		now := c.Snapshot()
		out.Cache = &outriggerv1.CacheStatus{Entries: int64(now.Entries), Bytes: now.Bytes, Hits: now.Hits + now.StaleHits, Misses: now.Misses}
	}
	if d, ok := s.agent.Discovery(b.Name()); ok {
		out.Discovery = &outriggerv1.DiscoveryStatus{Source: text(d.Source), Version: d.Version, Endpoints: int32(d.Endpoints), Stale: d.Stale, Problem: text(d.Problem)}
		if d.Age > 0 {
			out.Discovery.Age = durationpb.New(d.Age)
		}
	}
	alone := []*policy.Service{b.Service}
	for _, m := range endpointsOf(alone) {
		out.InFlight += m.InFlight()
		if len(out.Endpoints) < maxShown {
			out.Endpoints = append(out.Endpoints, s.showEndpoint(m))
		} else {
			out.OmittedEndpoints++
		}
	}
	out.WouldRefuse = b.WouldRefuse()
	now := s.now()
	for _, n := range breakersOf(alone) {
		shown := s.showBreaker(n, now)
		out.Breakers = append(out.Breakers, shown)
	}
	slices.SortStableFunc(out.Breakers, func(a, b *outriggerv1.Breaker) int {
		return cmp.Compare(closedLast(a), closedLast(b))
	})
	if n := len(out.GetBreakers()); n > maxShown {
		out.Breakers, out.OmittedBreakers = out.Breakers[:maxShown], int32(n-maxShown)
	}
	out.WouldRefusePercent = percent(out.GetWouldRefuse(), out.GetCallsTotal())
	return out
}

// panicking reports whether a service's calls are spread over endpoints that are
// not fit. Of a single endpoint it says nothing: there is no other to call.
func panicking(s *policy.Service) bool {
	return s.Endpoints().Len() > 1 && s.Balancing().Panicking
}

// totals are running totals by label, without those that never occurred.
func totals(counts []policy.Count) map[string]uint64 {
	out := make(map[string]uint64, len(counts))
	for _, c := range counts {
		if c.Total > 0 {
			out[c.Label] = c.Total
		}
	}
	return out
}

func closedLast(b *outriggerv1.Breaker) int {
	if b.GetState() == outriggerv1.Breaker_CLOSED {
		return 1
	}
	return 0
}
