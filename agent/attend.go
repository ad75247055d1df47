package agent

import (
	"time"

	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/policy"
)

// attendFor is how long after its last call a dialled authority is checked and
// kept connected. A call that names one is no leave to ask it for ever.
const attendFor = 5 * time.Minute

// attended is how dialled authorities are looked after. They come by calls, up
// to maxDialled of them, and leave when others take their place; so that calls
// pay nothing for it, the sweeper looks once in a while who is there. Guarded by
// registry.mu.
type attended struct {
	care  *care // as the defaults ask
	known map[*policy.Service]*attention
}

// attention is what is known of one dialled authority.
type attention struct {
	calls uint64         // of its endpoint, when it was looked at last
	used  policy.Instant // when a call was seen to have come, or to be under way
	care  *care          // that it has now; nil: none
}

// attend has the dialled authorities that are in use checked and connected as
// the defaults ask, and forgets those that left. r.mu is held.
func (r *registry) attend(now policy.Instant) {
	d := &r.attended
	asked := d.care.health != nil || d.care.connections != (relay.Connections{})
	if !asked && len(d.known) == 0 {
		return
	}
	services := r.dialled.all()
	live := make(map[*policy.Service]bool, len(services))
	for _, s := range services {
		live[s] = true
	}
	for s, a := range d.known { // before those that may have the same name
		if !live[s] {
			r.neglect(s, a)
			delete(d.known, s)
		}
	}
	for _, s := range services {
		a := d.known[s]
		if a == nil {
			if !asked {
				continue
			}
			a = &attention{used: now}
			if d.known == nil {
				d.known = make(map[*policy.Service]*attention)
			}
			d.known[s] = a
		}
		a.see(s, now)
		switch idle := now-a.used >= attendFor; {
		case !asked:
			r.neglect(s, a)
			delete(d.known, s)
		case idle:
			r.neglect(s, a)
			r.agent.relay.Release(s.Endpoints().All())
		case a.care != d.care:
			a.care = d.care
			endpoints := s.Endpoints().All()
			if r.configured[s.Name()] == nil {
				r.agent.check(s.Name(), r.outside, a.care.health, endpoints)
			}
			r.agent.relay.Keep(endpoints, r.outside, a.care.connections)
		}
	}
}

// see takes note of calls.
func (a *attention) see(s *policy.Service, now policy.Instant) {
	calls, inFlight := uint64(0), int64(0)
	for _, e := range s.Endpoints().All() {
		calls += e.Calls()
		inFlight += e.InFlight()
	}
	if calls != a.calls || inFlight > 0 {
		a.calls, a.used = calls, now
	}
}

// neglect ends what a dialled authority was given, where it was. Checks go by
// name: those of a service of the configuration that has an authority's name are
// left alone, and it has none then. r.mu is held.
func (r *registry) neglect(s *policy.Service, a *attention) {
	if a.care == nil {
		return
	}
	a.care = nil
	if r.configured[s.Name()] == nil {
		r.agent.health.Forget(s.Name())
	}
	r.agent.relay.Keep(s.Endpoints().All(), r.outside, relay.Connections{})
}
