// Package discovery finds a service's endpoints, wherever they come from.
//
// A Source says what there is: a list from a file, answers of DNS, leases that
// programs hold, EndpointSlices of Kubernetes. A Feed owns the goroutine of one
// source and stands between it and the service: it keeps the last set while the
// source fails and says how old that set is, holds changes together that come
// at once, and lets an endpoint that was away for a moment stay what it was.
//
//	feed := discovery.NewFeed(discovery.FeedOptions{
//		Source:  discovery.NewDNS(discovery.DNSOptions{Host: "greeter.default.svc", Port: 50051}),
//		Deliver: func(s discovery.Snapshot) { … },
//	})
//	feed.Start()
//	…
//	feed.Refresh() // a connect failed: the set may be out of date
//	…
//	feed.Stop()
//
// Another source needs nothing but the interface.
package discovery

import (
	"cmp"
	"context"
	"slices"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// Endpoint is an endpoint as a source knows it.
type Endpoint struct {
	balancer.Spec
	// Terminating: it finishes what it has and wants no new calls.
	Terminating bool
}

// Snapshot is the whole set of a service's endpoints at a time. It is never
// changed once made.
type Snapshot struct {
	// Version counts the sets of one feed; the first is 1.
	Version uint64
	// Endpoints are in the order of their addresses, each address once.
	Endpoints []Endpoint
}

// Sink is where a source puts what it finds. Safe for concurrent use; its
// methods don't block.
type Sink interface {
	// Publish says what the whole set is now. The sink keeps the slice. Where an
	// address comes twice, the first one counts. A set like the one before is
	// welcome: it says that the source is well. note says in plain words why there
	// are none, or not all; empty: nothing to say.
	Publish(endpoints []Endpoint, note string)
	// Fail says in plain words why the set can't be known now; what was
	// published last stays in use and counts as stale until the next Publish.
	Fail(error)
}

// Source is where endpoints come from.
type Source interface {
	// Name says which one it is in a few plain words, such as
	// "dns greeter.default.svc".
	Name() string
	// Run looks for endpoints until ctx ends and returns when all that it
	// started has ended. One that returns earlier is run again after a while; its
	// error is treated as by Sink.Fail. It is run once at a time.
	Run(ctx context.Context, sink Sink) error
	// Refresh says that the set may be out of date: a connect failed. The source
	// asks again soon, and bounds how often by itself. One that is told of changes
	// has nothing to do. It doesn't block.
	Refresh()
}

// ordered returns the endpoints in the order of their addresses, each address
// once, weights of zero as 1.
func ordered(endpoints []Endpoint) []Endpoint {
	for i := range endpoints {
		if endpoints[i].Weight == 0 {
			endpoints[i].Weight = 1
		}
	}
	slices.SortStableFunc(endpoints, func(a, b Endpoint) int { return cmp.Compare(a.Address, b.Address) })
	return slices.CompactFunc(endpoints, func(a, b Endpoint) bool { return a.Address == b.Address })
}

// specs are endpoints that somebody wrote down.
func specs(list []balancer.Spec) []Endpoint {
	endpoints := make([]Endpoint, len(list))
	for i, s := range list {
		endpoints[i] = Endpoint{Spec: s}
	}
	return endpoints
}
