package discovery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Why a registration is refused.
var (
	// ErrNoBook: the service takes no registrations.
	ErrNoBook = errors.New("the service takes no registrations: its configuration wants endpoints: {registered: {}}")
	// ErrFull: it has as many as it may.
	ErrFull = errors.New("as many endpoints are registered as may be")
	// ErrNoLease: the lease is over, or never was.
	ErrNoLease = errors.New("there is no such lease: it has lapsed, was taken over, or the agent began anew; register again")
)

// LeaseLimits bound one service's registrations.
type LeaseLimits struct {
	MaxLease     time.Duration
	MaxEndpoints int
}

// Leases keeps the endpoints that programs register, by service. Make it with
// NewLeases. Safe for concurrent use.
type Leases struct {
	mu    sync.Mutex
	books map[string]*book
	byID  map[string]*lease
}

// book is one service's registrations.
type book struct {
	service string
	limits  LeaseLimits
	leases  map[string]*lease // by address
	changed chan struct{}     // holds one: something is new
}

// lease is one registration.
type lease struct {
	book     *book
	endpoint Endpoint
	id       string        // empty: a stream's
	stream   *Registration // nil: it has an id
	length   time.Duration
	ends     time.Time // not of a stream's
}

func (l *lease) over(now time.Time) bool { return l.stream == nil && !now.Before(l.ends) }

// NewLeases returns an empty one.
func NewLeases() *Leases {
	return &Leases{books: make(map[string]*book), byID: make(map[string]*lease)}
}

// Open lets a service take registrations, or changes its limits, and returns
// the source of what is registered. Registrations outlive a change; those above
// a smaller limit stay until they end.
func (l *Leases) Open(service string, limits LeaseLimits) Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[service]
	if b == nil {
		b = &book{service: service, leases: make(map[string]*lease), changed: make(chan struct{}, 1)}
		l.books[service] = b
	}
	b.limits = limits
	return &leaseSource{l, b}
}

// Close ends a service's registrations: it takes none any more.
func (l *Leases) Close(service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[service]
	if b == nil {
		return
	}
	for _, lease := range b.leases {
		delete(l.byID, lease.id)
	}
	clear(b.leases)
	delete(l.books, service)
}

// Register registers an endpoint for as long as is asked, or as the service
// allows, which is returned with the lease's name. An address that is
// registered already is taken over.
func (l *Leases) Register(service string, e Endpoint, length time.Duration) (id string, granted time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[service]
	if b == nil {
		return "", 0, ErrNoBook
	}
	now := time.Now()
	l.sweep(b, now)
	length = min(length, b.limits.MaxLease)
	fresh := &lease{book: b, endpoint: e, id: rand.Text(), length: length, ends: now.Add(length)}
	if err := l.enter(fresh); err != nil {
		return "", 0, err
	}
	l.byID[fresh.id] = fresh
	b.wake()
	return fresh.id, length, nil
}

// enter puts a lease into its book, in place of the address's former one. l.mu
// is held.
func (l *Leases) enter(fresh *lease) error {
	b, address := fresh.book, fresh.endpoint.Address
	if old := b.leases[address]; old != nil {
		delete(l.byID, old.id)
	} else if len(b.leases) >= b.limits.MaxEndpoints {
		return fmt.Errorf("%w: %d of %s", ErrFull, len(b.leases), b.service)
	}
	b.leases[address] = fresh
	return nil
}

// Renew lets a lease begin anew and returns how long it holds.
func (l *Leases) Renew(id string) (time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	lease := l.byID[id]
	if lease == nil || lease.over(now) {
		return 0, ErrNoLease
	}
	lease.length = min(lease.length, lease.book.limits.MaxLease)
	lease.ends = now.Add(lease.length)
	return lease.length, nil
}

// Unregister ends a lease. One that is over is none.
func (l *Leases) Unregister(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lease := l.byID[id]; lease != nil {
		delete(l.byID, id)
		delete(lease.book.leases, lease.endpoint.Address)
		lease.book.wake()
	}
}

// sweep ends the leases of a book that are over and returns when the next one
// is; zero: none will be. l.mu is held.
func (l *Leases) sweep(b *book, now time.Time) (next time.Time) {
	for address, lease := range b.leases {
		switch {
		case lease.over(now):
			delete(l.byID, lease.id)
			delete(b.leases, address)
			b.wake()
		case lease.stream == nil && (next.IsZero() || lease.ends.Before(next)):
			next = lease.ends
		}
	}
	return next
}

func (b *book) wake() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// Registration is what one stream registers. It isn't safe for concurrent use.
type Registration struct {
	leases  *Leases
	service string
	named   map[string]bool // addresses in the last Set
}

// Stream returns a registration that has nothing yet.
func (l *Leases) Stream(service string) *Registration {
	return &Registration{leases: l, service: service}
}

// Set says which endpoints are registered from now on, and returns how many the
// service has then, by anyone. An address that is new in it is taken over from
// whoever had it; one that was taken from this registration meanwhile is left.
// An error changes nothing.
func (r *Registration) Set(endpoints []Endpoint) (registered int, err error) {
	l := r.leases
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[r.service]
	if b == nil {
		return 0, ErrNoBook
	}
	l.sweep(b, time.Now())
	named := make(map[string]bool, len(endpoints))
	more := 0
	for _, e := range endpoints {
		if !named[e.Address] && b.leases[e.Address] == nil {
			more++
		}
		named[e.Address] = true
	}
	for address := range r.named {
		if lease := b.leases[address]; lease != nil && lease.stream == r && !named[address] {
			more--
		}
	}
	if more > 0 && len(b.leases)+more > b.limits.MaxEndpoints {
		return 0, fmt.Errorf("%w: %d of %s, and %d more are not allowed", ErrFull, len(b.leases), r.service, more)
	}
	r.drop(b, named)
	for _, e := range endpoints {
		old := b.leases[e.Address]
		if old != nil && old.stream != r {
			if r.named[e.Address] {
				continue
			}
			delete(l.byID, old.id)
		}
		b.leases[e.Address] = &lease{book: b, endpoint: e, stream: r}
	}
	r.named = named
	b.wake()
	return len(b.leases), nil
}

// Close ends what the registration has.
func (r *Registration) Close() {
	r.leases.mu.Lock()
	defer r.leases.mu.Unlock()
	if b := r.leases.books[r.service]; b != nil {
		r.drop(b, nil)
		b.wake()
	}
	r.named = nil
}

// drop ends those that are not named any more. leases.mu is held.
func (r *Registration) drop(b *book, named map[string]bool) {
	for address := range r.named {
		if lease := b.leases[address]; lease != nil && lease.stream == r && !named[address] {
			delete(b.leases, address)
		}
	}
}

// leaseSource is what is registered with one service. It implements Source.
type leaseSource struct {
	leases *Leases
	book   *book
}

// Name implements Source.
func (s *leaseSource) Name() string { return "registered" }

// Refresh implements Source. Who registers says what there is; nobody else
// knows.
func (s *leaseSource) Refresh() {}

// Run implements Source.
func (s *leaseSource) Run(ctx context.Context, sink Sink) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.book.changed:
		case <-timer.C:
		}
		now := time.Now()
		s.leases.mu.Lock()
		next := s.leases.sweep(s.book, now)
		set := make([]Endpoint, 0, len(s.book.leases))
		for _, lease := range s.book.leases {
			set = append(set, lease.endpoint)
		}
		s.leases.mu.Unlock()
		note := ""
		if len(set) == 0 {
			note = "no endpoint is registered"
		}
		sink.Publish(set, note)
		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(next.Sub(now))
		}
	}
}
