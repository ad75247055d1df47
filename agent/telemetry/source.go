package telemetry

import (
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Source is what metrics are read from. Functions are asked at each collection,
// must not block and must be safe for concurrent use; a nil one has nothing to
// say.
type Source struct {
	// Origin is when the agent started: the moment that counters count from
	// and that instants are relative to. Zero: when New was called.
	Origin time.Time
	// Services returns the services that live now, in a stable order.
	Services func() []*policy.Service
	// Relay returns the data plane's figures.
	Relay func() RelayStats
	// Discovery returns how the sources of endpoints are, in a stable order.
	Discovery func() []DiscoveryStats
	// Reloads returns how many reloads succeeded and failed so far.
	Reloads func() (succeeded, failed uint64)
	// Health returns the active checks so far.
	Health func() []HealthCount
	// Tasks returns the task executor's figures; false: there is none.
	Tasks func() (TaskStats, bool)
	// Transitions are counted as they happen; nil: none.
	Transitions *Transitions
}

// HealthCount is how many active checks of a service's endpoints had an
// outcome; the outcomes are few and fixed.
type HealthCount struct {
	Service, Outcome string
	Total            uint64
}

// RelayStats are the data plane's figures. Counters only grow.
type RelayStats struct {
	DownstreamConnections, UpstreamConnections int64
	ActiveCalls                                int64
	Calls                                      uint64
	BytesUp, BytesDown                         uint64
	// ProtocolErrors counts by kind; the kinds are few and fixed.
	ProtocolErrors []policy.Count
	// CutOffs counts clients that were cut off or turned away, by the limit
	// that they passed; the limits are few and fixed.
	CutOffs []policy.Count
	// HandshakeFailures are TLS handshakes with clients; SilentDeaths are
	// connections to endpoints that did not answer a PING.
	HandshakeFailures, SilentDeaths uint64
}

// DiscoveryStats are one service's source of endpoints.
type DiscoveryStats struct {
	Service string
	// Age is how long ago the source last said what the set is, where it fails;
	// zero: the set is right.
	Age       time.Duration
	Stale     bool
	Endpoints int
	// Changes counts the sets that came from it.
	Changes uint64
}

// Transitions counts the changes of state of every service's breakers. The zero
// value is ready for use; it is safe for concurrent use. It remembers as long
// as the process lives, so it is bounded: past maxTransitionSeries further
// services share one entry, named OtherServices.
type Transitions struct {
	mu    sync.Mutex
	count map[transition]uint64
}

// OtherServices names the entry that services past the bound share.
const OtherServices = "(other)"

// maxTransitionSeries is above what the configuration and the cache of dialled
// services hold at a time; each has at most a handful of pairs of states.
const maxTransitionSeries = 8192

type transition struct{ service, from, to string }

// Count counts one change of state.
func (t *Transitions) Count(service, from, to string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count == nil {
		t.count = make(map[transition]uint64)
	}
	key := transition{service, from, to}
	if _, known := t.count[key]; !known && len(t.count) >= maxTransitionSeries {
		key.service = OtherServices
	}
	t.count[key]++
}

// each calls f for every pair of states that occurred.
func (t *Transitions) each(f func(service, from, to string, n uint64)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, n := range t.count {
		f(k.service, k.from, k.to, n)
	}
}
