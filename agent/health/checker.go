package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultConcurrency is how many checks run at a time, over all services.
	DefaultConcurrency = 32
	// DefaultWatches is how many endpoints are watched at a time: each costs a
	// connection and three goroutines. The others are asked.
	DefaultWatches = 256
)

// Options make a Checker.
type Options struct {
	// Origin is where all Instants count from; it must lie in the past. Zero:
	// when New is called.
	Origin time.Time
	// Logger hears of endpoints that turn. nil: slog.Default.
	Logger *slog.Logger
	// ExplainTLS says in plain words why a handshake failed. nil: the error's
	// own text.
	ExplainTLS func(error) string
	// Changed is called after an endpoint turned. It must not block. nil:
	// nobody is told.
	Changed func()
	// Passed is called after each check that passed, and each time an endpoint
	// said by itself that it is well; not of services that are only observed.
	// news says that the check before it failed, or that the endpoint turned
	// healthy by it. It must not block. nil: nobody is told.
	Passed func(e Endpoint, news bool)
	// Concurrency bounds the checks that run at a time. Zero:
	// DefaultConcurrency.
	Concurrency int
	// Watches bounds the endpoints that are watched at a time. Zero:
	// DefaultWatches; below zero: none is.
	Watches int
}

// Checker checks the endpoints of the services that it follows. Make it with
// New, end it with Close. Safe for concurrent use.
type Checker struct {
	origin      time.Time
	logger      *slog.Logger
	explainTLS  func(error) string
	changed     func()
	passed      func(Endpoint, bool)
	concurrency int
	maxWatches  int
	http, http2 *http.Transport
	ask         func(context.Context, *Checker, *job) result

	ctx    context.Context // over once the checker closes
	cancel context.CancelFunc
	wake   chan struct{}  // tells the waiting goroutine to look again
	work   sync.WaitGroup // every goroutine

	mu       sync.Mutex
	services map[string]*service
	entries  map[Endpoint]*entry
	queue    queue
	running  int  // checks
	watches  int  // watches
	turning  bool // the waiting goroutine lives
	closed   bool
}

// service is what its endpoints have in common. Guarded by Checker.mu.
type service struct {
	name      string
	transport Transport
	settings  Settings
	entries   map[Endpoint]*entry
	counts    [outcomes]uint64
	warned    bool // that the check can't be made
}

// entry is one endpoint. Guarded by Checker.mu.
type entry struct {
	service  *service
	endpoint Endpoint
	verdict  verdict
	due      Instant
	place    int // in the queue, from 1; 0: it is being checked
	gone     bool
	link     *link // that it is watched over
	noWatch  bool  // the endpoint has no Watch
}

// New returns a checker that follows nothing yet.
func New(o Options) *Checker {
	c := &Checker{
		origin: o.Origin, logger: o.Logger, explainTLS: o.ExplainTLS, changed: o.Changed, passed: o.Passed, concurrency: o.Concurrency, maxWatches: o.Watches,
		ask: askEndpoint, wake: make(chan struct{}, 1), services: make(map[string]*service), entries: make(map[Endpoint]*entry),
	}
	if c.origin.IsZero() {
		c.origin = time.Now().Add(-time.Nanosecond)
	}
	if c.logger == nil {
		c.logger = slog.Default()
	}
	if c.explainTLS == nil {
		c.explainTLS = error.Error
	}
	if c.changed == nil {
		c.changed = func() {}
	}
	if c.passed == nil {
		c.passed = func(Endpoint, bool) {}
	}
	if c.concurrency == 0 {
		c.concurrency = DefaultConcurrency
	}
	if c.maxWatches == 0 {
		c.maxWatches = DefaultWatches
	}
	var either, only http.Protocols
	either.SetHTTP1(true)
	either.SetHTTP2(true)
	only.SetHTTP2(true)
	only.SetUnencryptedHTTP2(true)
	c.http, c.http2 = newHTTP(&either), newHTTP(&only)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

func (c *Checker) now() Instant { return time.Since(c.origin) }

// askEndpoint makes one check.
func askEndpoint(ctx context.Context, c *Checker, j *job) result {
	switch j.settings.Kind {
	case HTTP:
		return askHTTP(ctx, c, j)
	case TCP:
		return askTCP(ctx, c, j)
	case TLS:
		return askTLS(ctx, c, j)
	}
	return askGRPC(ctx, c, j)
}

// Follow checks the service's endpoints from now on, and none that it had
// before and has no longer. An endpoint that stays keeps what is known of it.
func (c *Checker) Follow(s Service) {
	settings := s.Settings.withDefaults()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	known := c.services[s.Name]
	if known == nil {
		known = &service{name: s.Name, settings: settings, entries: make(map[Endpoint]*entry)}
		c.services[s.Name] = known
	}
	changed := !known.settings.equal(settings)
	known.transport, known.settings = s.Transport, settings
	if changed {
		known.warned = false
	}
	now, staying := c.now(), make(map[Endpoint]bool, len(s.Endpoints))
	for _, endpoint := range s.Endpoints {
		staying[endpoint] = true
		e := c.entries[endpoint]
		switch {
		case e == nil:
			e = &entry{service: known, endpoint: endpoint}
			c.entries[endpoint], known.entries[endpoint] = e, e
			c.queue.put(e, now+first(settings.Interval, rand.Uint64()))
		case changed:
			e.noWatch = false
			e.unlink()
			e.show(now)
			if e.place > 0 {
				c.queue.put(e, min(e.due, now+first(settings.Interval, rand.Uint64())))
			}
		}
	}
	for endpoint, e := range known.entries {
		if !staying[endpoint] {
			c.drop(e, now)
		}
	}
	c.look()
}

// Forget ends the checks of a service. Its endpoints count as well from then
// on.
func (c *Checker) Forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.services[name]
	if known == nil {
		return
	}
	delete(c.services, name)
	now := c.now()
	for _, e := range known.entries {
		c.drop(e, now)
	}
	c.look()
}

// Renew ends the connections that are kept to a service's endpoints: how they
// are connected changed.
func (c *Checker) Renew(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.services[name]; known != nil {
		for _, e := range known.entries {
			e.unlink()
		}
	}
}

// drop ends the checks of an endpoint. c.mu is held.
func (c *Checker) drop(e *entry, now Instant) {
	e.gone = true
	c.queue.take(e)
	e.unlink()
	delete(c.entries, e.endpoint)
	delete(e.service.entries, e.endpoint)
	e.endpoint.SetHealthy(true, "", now)
}

// unlink ends the watch; its goroutine does the rest. Checker.mu is held.
func (e *entry) unlink() {
	if e.link != nil {
		e.link.end()
	}
}

// prefix begins every reason.
const prefix = "health check: "

// show tells the endpoint what is thought of it. Checker.mu is held.
func (e *entry) show(now Instant) {
	if e.verdict.sick && !e.service.settings.Observe {
		e.endpoint.SetHealthy(false, prefix+e.verdict.reason, now)
	} else {
		e.endpoint.SetHealthy(true, "", now)
	}
}

// Note returns what a check in OBSERVE would have made of the endpoint, such as
// "would be UNHEALTHY: health check: connection refused (3 in a row)". Empty:
// nothing.
func (c *Checker) Note(endpoint Endpoint) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[endpoint]; e != nil && e.verdict.sick && e.service.settings.Observe {
		return "would be UNHEALTHY: " + prefix + e.verdict.reason
	}
	return ""
}

// Count is how many checks of a service had an outcome.
type Count struct {
	Service string
	Outcome Outcome
	Total   uint64
}

// Counts returns the checks so far by service, in the order of their names, and
// outcome.
func (c *Checker) Counts() []Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	var counts []Count
	for _, s := range c.services {
		for o, n := range s.counts {
			counts = append(counts, Count{s.name, Outcome(o), n})
		}
	}
	slices.SortStableFunc(counts, func(a, b Count) int { return strings.Compare(a.Service, b.Service) })
	return counts
}

// Close ends every check and returns when nothing runs any more. The endpoints
// stay as they are.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	c.cancel()
	c.look()
	c.mu.Unlock()
	c.work.Wait()
	c.http.CloseIdleConnections()
	c.http2.CloseIdleConnections()
}
