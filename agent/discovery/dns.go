package discovery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// When DNS is asked, where nothing else is said.
const (
	// DefaultRefresh is the least time between two answers that are used.
	DefaultRefresh = 5 * time.Second
	// longestTTL bounds how long an answer is trusted, whatever its TTL.
	longestTTL = 5 * time.Minute
	// askAgain is the least time between two questions, whoever wants an answer.
	askAgain = time.Second
	// A question that could not be answered is asked again after failedFirst,
	// twice that each time, up to failedMost.
	failedFirst = 500 * time.Millisecond
	failedMost  = 30 * time.Second
	// confirmations is how often in a row a name must be said to have nothing,
	// before it has nothing: one such answer may come from a server that is being
	// loaded.
	confirmations = 3
)

// DNSOptions say what to ask DNS for.
type DNSOptions struct {
	// Host is the name whose addresses are asked for, A and AAAA; each is an
	// endpoint with Port. Or an IP address, which is not asked for.
	Host string
	Port uint16
	// SRV is the name of SRV records instead of Host and Port (RFC 2782): their
	// targets' addresses are endpoints with the records' ports, weights and
	// priorities. A weight of 0 counts as 1; a target with several addresses
	// shares its weight among them.
	SRV string
	// Refresh is the least time between two answers: an answer is asked for again
	// when its TTL is over, but not before that, and after 5 minutes at the latest
	// (Refresh, where that is longer). Zero: DefaultRefresh.
	Refresh time.Duration
	// Servers are asked instead of those in /etc/resolv.conf: "host:port" each.
	// Names are whole then, and no search list holds.
	Servers []string
	// Timeout is for one question to one server. Zero: that of resolv.conf, and
	// 2 s with Servers.
	Timeout time.Duration
}

// dnsSource asks again and again. It implements Source.
type dnsSource struct {
	options  DNSOptions
	resolver *resolver
	again    chan struct{} // holds one: Refresh was called
	negative int           // answers in a row that said there is nothing
	failures int           // questions in a row without an answer

	mu   sync.Mutex
	kept map[question][]netip.Addr // what each question had in the last good round
	next map[question][]netip.Addr // and has in this one
}

// question is what was asked: the addresses of one family of a name.
type question struct {
	name string
	kind uint16 // dns.TypeA or dns.TypeAAAA
}

// NewDNS returns a source that asks DNS. What the servers say of a name that
// does not exist is told apart from servers that can't say: NXDOMAIN and empty
// answers leave the service without endpoints once they came three times in a
// row; SERVFAIL, REFUSED and silence leave what was there.
func NewDNS(o DNSOptions) Source {
	if o.Refresh == 0 {
		o.Refresh = DefaultRefresh
	}
	return &dnsSource{options: o, resolver: newResolver(o.Servers, o.Timeout), again: make(chan struct{}, 1)}
}

// Name implements Source.
func (d *dnsSource) Name() string {
	if d.options.SRV != "" {
		return "dns srv " + d.options.SRV
	}
	return "dns " + net.JoinHostPort(d.options.Host, strconv.Itoa(int(d.options.Port)))
}

// Refresh implements Source.
func (d *dnsSource) Refresh() {
	select {
	case d.again <- struct{}{}:
	default:
	}
}

// Run implements Source.
func (d *dnsSource) Run(ctx context.Context, sink Sink) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.again:
			// Refused connects come in crowds, and the answer may need a moment
			// to follow what happened.
			if wait := time.Until(asked.Add(min(d.options.Refresh, askAgain))); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case <-timer.C:
		}
		asked = time.Now()
		wait := d.ask(ctx, sink)
		if ctx.Err() != nil {
			return nil
		}
		timer.Reset(wait)
	}
}

// ask looks the name up and says how long the answer holds.
func (d *dnsSource) ask(ctx context.Context, sink Sink) time.Duration {
	var found finding
	var err error
	d.next = make(map[question][]netip.Addr)
	if d.options.SRV != "" {
		found, err = d.services(ctx)
	} else {
		found, err = d.hosts(ctx)
	}
	var none *nothing
	switch {
	case ctx.Err() != nil:
		return 0
	case errors.As(err, &none):
		d.failures = 0
		if d.negative++; d.negative < confirmations {
			sink.Fail(fmt.Errorf("%w; asked again before that is believed (%d of %d)", err, d.negative, confirmations))
			return jittered(min(d.options.Refresh, askAgain))
		}
		sink.Publish(nil, err.Error())
		return jittered(d.options.Refresh)
	case err != nil:
		d.negative = 0
		sink.Fail(err)
		wait := min(failedFirst<<min(d.failures, 10), failedMost)
		d.failures++
		return wait/2 + rand.N(wait/2)
	}
	d.negative, d.failures, d.kept = 0, 0, d.next
	sink.Publish(found.endpoints, found.note)
	if found.note != "" { // something is lacking
		return jittered(min(d.options.Refresh, failedMost))
	}
	return jittered(max(d.options.Refresh, min(found.ttl, longestTTL)))
}

// jittered is up to a tenth more, so that agents that began together don't ask
// together; never less, for the TTL's sake.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/10+1) }

// finding is a set and how long it holds.
type finding struct {
	endpoints []Endpoint
	ttl       time.Duration
	note      string // what is lacking
}

// hosts finds the addresses of a name.
func (d *dnsSource) hosts(ctx context.Context) (finding, error) {
	if ip, err := netip.ParseAddr(d.options.Host); err == nil {
		return finding{[]Endpoint{{Spec: balancer.Spec{Address: netip.AddrPortFrom(ip, d.options.Port).String()}}}, longestTTL, ""}, nil
	}
	found, err := d.addresses(ctx, d.options.Host)
	f := finding{ttl: found.ttl, note: found.note}
	for _, ip := range found.addresses {
		f.endpoints = append(f.endpoints, Endpoint{Spec: balancer.Spec{Address: netip.AddrPortFrom(ip, d.options.Port).String()}})
	}
	return f, err
}

// addressed are the addresses of one name.
type addressed struct {
	addresses []netip.Addr
	ttl       time.Duration
	note      string
}

// addresses asks for both families at once, of each name that the search list
// makes of one, until one has something. A name that can't be asked ends the
// search: what a later one has could be another service.
func (d *dnsSource) addresses(ctx context.Context, host string) (addressed, error) {
	var none error
	for _, name := range d.resolver.names(host) {
		found, err := d.bothFamilies(ctx, name)
		var nothing *nothing
		if !errors.As(err, &nothing) {
			return found, err
		}
		if none == nil || !nothing.noName { // that a name exists says more
			none = err
		}
	}
	return addressed{}, none
}

// bothFamilies asks for the A and AAAA records of a whole name. Where one
// family can't be asked, what it had last stands in.
func (d *dnsSource) bothFamilies(ctx context.Context, name string) (addressed, error) {
	kinds := []uint16{dns.TypeA, dns.TypeAAAA}
	answers := make([]answer, len(kinds))
	errs := make([]error, len(kinds))
	done := make(chan struct{})
	go func() {
		defer close(done)
		answers[1], errs[1] = d.resolver.ask(ctx, name, kinds[1])
	}()
	answers[0], errs[0] = d.resolver.ask(ctx, name, kinds[0])
	<-done
	found := addressed{ttl: longestTTL}
	var none *nothing
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, kind := range kinds {
		q := question{name, kind}
		switch err := errs[i]; {
		case err == nil:
			found.ttl = min(found.ttl, answers[i].ttl)
			d.next[q] = reachable(answers[i].addresses())
		case errors.As(err, &none):
		case errs[1-i] != nil:
			return addressed{}, err // the other family has nothing to go on with
		default:
			found.note = err.Error()
			d.next[q] = d.kept[q]
		}
		found.addresses = append(found.addresses, d.next[q]...)
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		if errors.As(errs[0], &none) && none.noName {
			return addressed{}, none
		}
		return addressed{}, &nothing{what: name + ": the name has no addresses"}
	case len(found.addresses) == 0:
		return addressed{}, &nothing{what: name + ": this machine has no way to any of its addresses"}
	}
	return found, nil
}

// reachable leaves out IPv6 addresses that this machine has no route to: they
// would only be failures. Connecting a UDP socket sends nothing.
func reachable(addresses []netip.Addr) []netip.Addr {
	var some []netip.Addr
	for _, a := range addresses {
		if a.Is6() && !a.Is4In6() {
			c, err := net.DialUDP("udp6", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 9)))
			if err != nil {
				continue
			}
			_ = c.Close()
		}
		some = append(some, a)
	}
	return some
}
