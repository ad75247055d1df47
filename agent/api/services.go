package api

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/outrigger-rpc/outrigger/policy"
)

// services returns the services in the order of their names: the one of that
// name, or all where it is empty.
func (s *Server) services(name string) ([]*policy.Service, error) {
	all := slices.Clone(s.agent.Services())
	slices.SortFunc(all, func(a, b *policy.Service) int { return cmp.Compare(a.Name(), b.Name()) })
	if name == "" {
		return all, nil
	}
	known := make([]string, len(all))
	for i, service := range all {
		if service.Name() == name {
			return all[i : i+1], nil
		}
		known[i] = service.Name()
	}
	return nil, unknown("service", name, known, "none is configured and no call came yet")
}

// servicesSince is services for the looks of a watcher after its first: a
// service that left meanwhile is no mistake of the watcher's.
func (s *Server) servicesSince(name string, first bool) ([]*policy.Service, error) {
	services, err := s.services(name)
	if !first {
		err = nil
	}
	return services, err
}

// timestamp returns the wall-clock time of an instant; nil for zero.
func (s *Server) timestamp(at policy.Instant) *timestamppb.Timestamp {
	if at == 0 {
		return nil
	}
	return timestamppb.New(s.origin.Add(at))
}

// timeOf is nil for a time that is not set.
func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// milliseconds returns d as the API gives latencies.
func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// percent returns the share of n in 100; 0 of nothing.
func percent(part, n uint64) float64 {
	if n == 0 {
		return 0
	}
	return 100 * float64(part) / float64(n)
}
