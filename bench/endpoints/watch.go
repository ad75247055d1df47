package main

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// look is how often the agent is asked how its endpoints are.
const look = 50 * time.Millisecond

// sight is what the agent said of an endpoint.
type sight struct {
	at     time.Time
	state  outriggerv1.Endpoint_State
	reason string
	calls  uint64
	others uint64 // calls of all endpoints
}

// watcher keeps what the agent says of each endpoint.
type watcher struct {
	stop  context.CancelFunc
	group sync.WaitGroup
	cc    *grpc.ClientConn

	mu     sync.Mutex
	sights map[string][]sight
	err    error
}

func watch(api string) (*watcher, error) {
	cc, err := grpc.NewClient("passthrough:///"+api, grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{stop: stop, cc: cc, sights: make(map[string][]sight)}
	client := outriggerv1.NewEndpointServiceClient(cc)
	w.group.Go(func() {
		tick := time.NewTicker(look)
		defer tick.Stop()
		for ctx.Err() == nil {
			w.look(ctx, client)
			<-tick.C
		}
	})
	return w, nil
}

func (w *watcher) look(ctx context.Context, client outriggerv1.EndpointServiceClient) {
	list, err := client.ListEndpoints(ctx, &outriggerv1.ListEndpointsRequest{Service: service})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil && w.err == nil {
			w.err = fmt.Errorf("the agent's API: %w", err)
		}
		return
	}
	now, all := time.Now(), uint64(0)
	for _, e := range list.GetEndpoints() {
		all += e.GetCalls()
	}
	for _, e := range list.GetEndpoints() {
		w.sights[e.GetAddress()] = append(w.sights[e.GetAddress()], sight{now, e.GetState(), e.GetReason(), e.GetCalls(), all})
	}
}

func (w *watcher) close() error {
	w.stop()
	w.group.Wait()
	return w.cc.Close()
}

// of returns what was seen of an endpoint from one time on and before another.
func (w *watcher) of(address string, from, to time.Time) (seen []sight, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sights[address] {
		if !s.at.Before(from) && s.at.Before(to) {
			seen = append(seen, s)
		}
	}
	return seen, w.err
}

// share is an endpoint's part of the attempts between two sights, as a multiple
// of its fair one among so many endpoints.
func share(from, to sight, endpoints int) float64 {
	if to.others == from.others {
		return math.NaN()
	}
	return float64(to.calls-from.calls) / float64(to.others-from.others) * float64(endpoints)
}

// leaves is when an endpoint was out of rotation for the first time, for a
// second at least: not READY, or with less than a hundredth of its fair share of
// the attempts between any two sights.
func leaves(seen []sight, endpoints int) (at time.Time, ok bool) {
	for i := 1; i < len(seen); i++ {
		s := seen[i]
		if out := s.state != outriggerv1.Endpoint_READY || share(seen[i-1], s, endpoints) < 0.01; !out {
			at = time.Time{}
			continue
		}
		if at.IsZero() {
			at = s.at
		}
		if s.at.Sub(at) >= time.Second {
			return at, true
		}
	}
	return at, false
}

// returns is when an endpoint was back: READY for half a second, with half of
// its fair share in it at least.
func returns(seen []sight, endpoints int) (at time.Time, ok bool) {
	first := 0
	for i, s := range seen {
		if s.state != outriggerv1.Endpoint_READY {
			first = i + 1
			continue
		}
		for first < i && s.at.Sub(seen[first].at) > 11*look {
			first++
		}
		if first < i && s.at.Sub(seen[first].at) >= 10*look && share(seen[first], s, endpoints) >= 0.5 {
			return seen[first].at, true
		}
	}
	return at, false
}
