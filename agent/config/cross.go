package config

import (
	"fmt"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// listener is one of the agent's own addresses.
type listener struct {
	field   string
	address address
}

// cross checks what no single field shows.
func (f *file) cross(c *Config) {
	listeners := f.listeners(c)
	if wrong := badCollector(c.Telemetry.OTLPEndpoint); wrong != "" {
		f.refuse("telemetry.otlp.endpoint", "%q: %s", c.Telemetry.OTLPEndpoint, wrong)
	}
	names, routes := make(map[string]int), make(map[route]int)
	for i, s := range c.Services {
		at := fmt.Sprintf("services[%d]", i)
		if first, taken := names[s.Name]; taken {
			f.refuse(at+".name", "%q is the name of services[%d] already; want a name of its own", s.Name, first)
		} else {
			names[s.Name] = i
			f.routes(at, i, c, routes)
		}
		f.addresses(at+".endpoints.static", s.Endpoints, listeners)
	}
}

// listeners checks the agent's own addresses and returns those that others
// must not be.
func (f *file) listeners(c *Config) []listener {
	var known []listener
	for _, l := range []struct{ field, address string }{{"egress.address", c.Egress}, {"api.address", c.API}, {"admin.address", c.Admin}} {
		a, wrong := parseAddress(l.address)
		if wrong != "" {
			f.refuse(l.field, "%q: %s", l.address, wrong)
			continue
		}
		for _, other := range known {
			if a.meets(other.address) {
				f.refuse(l.field, "%s is taken by %s; want an address of its own", l.address, other.field)
			}
		}
		known = append(known, listener{l.field, a})
	}
	return known
}

// addresses checks those of a list of endpoints.
func (f *file) addresses(list string, endpoints []balancer.Spec, listeners []listener) {
	first := make(map[address]int, len(endpoints))
	for j, e := range endpoints {
		path := fmt.Sprintf("%s[%d].address", list, j)
		a, wrong := parseAddress(e.Address)
		if wrong == "" {
			wrong = a.notDialable()
		}
		if wrong != "" {
			f.refuse(path, "%q: %s", e.Address, wrong)
			continue
		}
		if k, twice := first[a]; twice {
			f.refuse(path, "%s is static[%d] already; want each once, with a weight for a bigger share", e.Address, k)
			continue
		}
		first[a] = j
		for _, l := range listeners {
			if a.meets(l.address) {
				f.refuse(path, "%s is the agent's own %s: calls would go round in circles; want another address", e.Address, l.field)
			}
		}
	}
}

// route is one way to a service. An empty half matches everything.
type route struct{ authority, method string }

func (r route) String() string {
	switch {
	case r.authority == "":
		return "method " + r.method
	case r.method == "":
		return "authority " + r.authority
	}
	return "authority " + r.authority + " with method " + r.method
}

// routes refuses what an earlier service takes already: which of them got the
// calls would be chance.
func (f *file) routes(at string, i int, c *Config, taken map[route]int) {
	s := c.Services[i]
	told := false
	for _, a := range orAny(s.Authorities) {
		for _, m := range orAny(s.Methods) {
			r := route{a, m}
			k, clash := taken[r]
			switch {
			case !clash:
				taken[r] = i
			case k != i && !told:
				told = true
				f.refuse(at+".match", "%s goes to services[%d] (%s) already; want another authority or method prefix", r, k, c.Services[k].Name)
			}
		}
	}
}

// orAny stands for a list that matches everything.
func orAny(list []string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	return list
}
