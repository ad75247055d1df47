package api

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/breaker"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// named is a breaker as the API knows it.
type named struct {
	name, service string
	policy.NamedBreaker
}

// breakerName returns the name that a breaker goes by: what it guards. A
// service's name holds neither "/" nor "@", and a method's begins with "/", so
// that no two breakers share a name.
func breakerName(service string, b policy.NamedBreaker) string {
	name := service + b.Override
	if b.Key.Method != "" {
		name = service + b.Key.Method
	}
	if b.Key.Endpoint != "" {
		name += "@" + b.Key.Endpoint
	}
	return text(name)
}

// breakersOf returns the services' breakers in the order of their names.
func breakersOf(services []*policy.Service) []named {
	var all []named
	for _, s := range services {
		for _, b := range s.Breakers() {
			all = append(all, named{breakerName(s.Name(), b), s.Name(), b})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	return all
}

// breaker finds a breaker by its name.
func (s *Server) breaker(name string) (named, error) {
	services, err := s.services("")
	if err != nil {
		return named{}, err
	}
	all := breakersOf(services)
	if i, found := slices.BinarySearchFunc(all, name, func(b named, name string) int { return cmp.Compare(b.name, name) }); found {
		return all[i], nil
	}
	known := make([]string, len(all))
	for i, b := range all {
		known[i] = b.name
	}
	return named{}, unknown("breaker", name, known, "a breaker exists once a service is configured or called, unless its mode is OFF")
}

var breakerStates = map[breaker.State]outriggerv1.Breaker_State{
	breaker.Closed:   outriggerv1.Breaker_CLOSED,
	breaker.Open:     outriggerv1.Breaker_OPEN,
	breaker.HalfOpen: outriggerv1.Breaker_HALF_OPEN,
}

var breakerModes = map[breaker.Mode]outriggerv1.Breaker_Mode{
	breaker.Enforce: outriggerv1.Breaker_ENFORCE,
	breaker.Observe: outriggerv1.Breaker_OBSERVE,
	breaker.Off:     outriggerv1.Breaker_OFF,
}

func (s *Server) showBreaker(b named, now policy.Instant) *outriggerv1.Breaker {
	return s.showSnapshot(b, b.Breaker.Snapshot(now))
}

func (s *Server) showSnapshot(b named, snapshot breaker.Snapshot) *outriggerv1.Breaker {
	method := b.Key.Method
	if method == "" {
		method = b.Override
	}
	return &outriggerv1.Breaker{
		Name:                b.name,
		Service:             b.service,
		Method:              text(method),
		Endpoint:            b.Key.Endpoint,
		State:               breakerStates[snapshot.State],
		Mode:                breakerModes[snapshot.Mode],
		Reason:              snapshot.Reason,
		OpenUntil:           s.timestamp(snapshot.OpenUntil),
		ConsecutiveFailures: uint32(snapshot.ConsecutiveFailures),
		Refused:             snapshot.Refused,
		WouldRefuse:         snapshot.WouldRefuse,
		Transitions:         snapshot.Transitions,
		ProbesInFlight:      uint32(snapshot.ProbesInFlight),
		Forced:              snapshot.Forced,
		Since:               s.timestamp(snapshot.Since),
		WindowCalls:         snapshot.Calls,
		WindowFailures:      snapshot.Failures,
		WindowSlowCalls:     snapshot.SlowCalls,
	}
}

// breakerService implements outrigger.v1.BreakerService.
type breakerService struct {
	outriggerv1.UnimplementedBreakerServiceServer
	server *Server
}

func (b *breakerService) ListBreakers(_ context.Context, r *outriggerv1.ListBreakersRequest) (*outriggerv1.ListBreakersResponse, error) {
	services, err := b.server.services(r.GetService())
	if err != nil {
		return nil, err
	}
	cut, next, err := page(breakersOf(services), func(n named) string { return n.name }, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &outriggerv1.ListBreakersResponse{NextPageToken: next}
	now := b.server.now()
	for _, n := range cut {
		out.Breakers = append(out.Breakers, b.server.showBreaker(n, now))
	}
	return out, nil
}

func (b *breakerService) GetBreaker(_ context.Context, r *outriggerv1.GetBreakerRequest) (*outriggerv1.GetBreakerResponse, error) {
	found, err := b.server.breaker(r.GetName())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.GetBreakerResponse{Breaker: b.server.showBreaker(found, b.server.now())}, nil
}

// move changes a breaker and returns how it is then.
func (b *breakerService) move(ctx context.Context, name, what string, do func(*breaker.Breaker, policy.Instant)) (*outriggerv1.Breaker, error) {
	found, err := b.server.breaker(name)
	if err != nil {
		return nil, err
	}
	now := b.server.now()
	do(found.Breaker, now)
	b.server.Changed()
	b.server.log.InfoContext(ctx, "an operator moved a breaker", "breaker", found.name, "to", what, "peer", peerAddress(ctx))
	return b.server.showBreaker(found, now), nil
}

func (b *breakerService) OpenBreaker(ctx context.Context, r *outriggerv1.OpenBreakerRequest) (*outriggerv1.OpenBreakerResponse, error) {
	moved, err := b.move(ctx, r.GetName(), "open", (*breaker.Breaker).ForceOpen)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.OpenBreakerResponse{Breaker: moved}, nil
}

func (b *breakerService) CloseBreaker(ctx context.Context, r *outriggerv1.CloseBreakerRequest) (*outriggerv1.CloseBreakerResponse, error) {
	moved, err := b.move(ctx, r.GetName(), "closed", (*breaker.Breaker).ForceClose)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.CloseBreakerResponse{Breaker: moved}, nil
}

func (b *breakerService) ResetBreaker(ctx context.Context, r *outriggerv1.ResetBreakerRequest) (*outriggerv1.ResetBreakerResponse, error) {
	moved, err := b.move(ctx, r.GetName(), "as new", (*breaker.Breaker).Reset)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.ResetBreakerResponse{Breaker: moved}, nil
}

func (b *breakerService) WatchBreakers(r *outriggerv1.WatchBreakersRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchBreakersResponse]) error {
	var sent breakerDiff
	return b.server.watch(stream.Context(), r.GetInterval(), func() error {
		services, err := b.server.servicesSince(r.GetService(), sent == nil)
		if err != nil {
			return err
		}
		return sent.next(b.server, breakersOf(services), stream.Send)
	})
}

// breakerDiff is what a watcher knows of each breaker. The breaker itself is
// part of it: one that a reload replaced is another one under the same name.
type breakerDiff map[string]breakerSeen

type breakerSeen struct {
	breaker  *breaker.Breaker
	snapshot breaker.Snapshot
	named    named
}

// next sends what is new, changed or gone since the last time.
func (d *breakerDiff) next(s *Server, all []named, send func(*outriggerv1.WatchBreakersResponse) error) error {
	now := s.now()
	seen := make(breakerDiff, len(all))
	for _, n := range all {
		snapshot := n.Breaker.Snapshot(now)
		seen[n.name] = breakerSeen{n.Breaker, snapshot, n}
		before, known := (*d)[n.name]
		known = known && before.breaker == n.Breaker
		message := &outriggerv1.WatchBreakersResponse{Breaker: s.showSnapshot(n, snapshot)}
		switch {
		case known && snapshot.Transitions != before.snapshot.Transitions:
			message.Transition = &outriggerv1.BreakerTransition{
				From:    breakerStates[before.snapshot.State],
				To:      breakerStates[snapshot.State],
				At:      s.timestamp(snapshot.Since),
				Reason:  snapshot.Reason,
				Skipped: snapshot.Transitions - before.snapshot.Transitions - 1,
			}
		case known && snapshot.Mode == before.snapshot.Mode && snapshot.Reason == before.snapshot.Reason && snapshot.OpenUntil == before.snapshot.OpenUntil:
			continue
		}
		if err := send(message); err != nil {
			return err
		}
	}
	for name, before := range *d {
		if _, stays := seen[name]; !stays {
			if err := send(&outriggerv1.WatchBreakersResponse{Breaker: s.showSnapshot(before.named, before.snapshot), Gone: true}); err != nil {
				return err
			}
		}
	}
	*d = seen
	return nil
}
