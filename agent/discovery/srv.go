package discovery

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// atOnce is how many targets of a service are looked up at a time.
const atOnce = 8

// shares is what weights are multiplied by where a target's weight has to be
// shared: each number of addresses up to six divides it.
const shares = 60

// services finds what SRV records lead to.
func (d *dnsSource) services(ctx context.Context) (finding, error) {
	var none error
	for _, name := range d.resolver.names(d.options.SRV) {
		records, err := d.resolver.ask(ctx, name, dns.TypeSRV)
		if err == nil {
			return d.targets(ctx, name, records)
		}
		var nothing *nothing
		if !errors.As(err, &nothing) {
			return finding{}, err
		}
		if none == nil || !nothing.noName {
			none = err
		}
	}
	return finding{}, none
}

// targets looks up the addresses of what the records name.
func (d *dnsSource) targets(ctx context.Context, name string, records answer) (finding, error) {
	list := records.services()
	if len(list) == 1 && list[0].Target == "." { // RFC 2782: decidedly not available
		return finding{}, &nothing{what: name + ": its SRV record says that the service is not offered here"}
	}
	additional := records.additional()
	found := make([]addressed, len(list))
	lacking := make([]error, len(list))
	var asked []int
	for i, record := range list {
		if given := additional[dns.CanonicalName(record.Target)]; len(given) > 0 {
			found[i] = addressed{addresses: reachable(given), ttl: records.ttl}
		} else {
			asked = append(asked, i)
		}
	}
	d.each(ctx, list, asked, found, lacking)
	f := finding{ttl: records.ttl}
	shared := false
	var failed error
	for i := range list {
		var nothing *nothing
		switch err := lacking[i]; {
		case err == nil:
			f.ttl = min(f.ttl, found[i].ttl)
			shared = shared || len(found[i].addresses) > 1
			if f.note == "" {
				f.note = found[i].note
			}
		case errors.As(err, &nothing):
			f.note = err.Error()
		default:
			failed = err
		}
	}
	if failed != nil {
		// Half of the targets is not the set; the last whole one stays.
		return finding{}, failed
	}
	for i, record := range list {
		weight := max(uint32(record.Weight), 1)
		if n := uint32(len(found[i].addresses)); shared && n > 0 {
			weight = max(weight*shares/n, 1)
		}
		for _, ip := range found[i].addresses {
			f.endpoints = append(f.endpoints, Endpoint{Spec: balancer.Spec{
				Address: netip.AddrPortFrom(ip, record.Port).String(), Weight: weight, Priority: uint32(record.Priority),
			}})
		}
	}
	if len(f.endpoints) == 0 {
		return finding{}, &nothing{what: name + ": none of its targets has an address"}
	}
	return f, nil
}

// each looks the asked targets up, several at a time and each name once.
func (d *dnsSource) each(ctx context.Context, list []*dns.SRV, asked []int, found []addressed, lacking []error) {
	first := make(map[string]int)
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, i := range asked {
		name := dns.CanonicalName(list[i].Target)
		if _, twice := first[name]; twice {
			continue
		}
		first[name] = i
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			found[i], lacking[i] = d.bothFamilies(ctx, name)
		})
	}
	group.Wait()
	for _, i := range asked {
		j := first[dns.CanonicalName(list[i].Target)]
		found[i], lacking[i] = found[j], lacking[j]
	}
}

// ttlOf returns how long records hold: as long as the first of them that ends.
func ttlOf(records []dns.RR) time.Duration {
	ttl := longestTTL
	for _, r := range records {
		ttl = min(ttl, time.Duration(r.Header().Ttl)*time.Second)
	}
	return ttl
}
