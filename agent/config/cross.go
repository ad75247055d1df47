package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// cross checks what no single field shows.
func (f *file) cross(c *Config) {
	listeners := []struct{ field, address string }{{"egress.address", c.Egress}, {"api.address", c.API}, {"admin.address", c.Admin}}
	for i, l := range listeners {
		if why := badAddress(l.address, 0); why != "" {
			f.refuse(l.field, "%q: %s", l.address, why)
		}
		for _, earlier := range listeners[:i] {
			if sameListener(l.address, earlier.address) {
				f.refuse(l.field, "%s is %s already; want an address of its own", l.address, earlier.field)
			}
		}
	}
	names := make(map[string]int)
	for i, s := range c.Services {
		at := fmt.Sprintf("services[%d]", i)
		if first, taken := names[s.Name]; taken {
			f.refuse(at+".name", "%q is the name of services[%d] already; want a name of its own", s.Name, first)
		} else {
			names[s.Name] = i
		}
		f.endpoints(at, s, listeners)
		f.routes(at, s, c.Services[:i])
	}
}

func (f *file) endpoints(at string, s Service, listeners []struct{ field, address string }) {
	for j, e := range s.Endpoints {
		path := fmt.Sprintf("%s.endpoints.static[%d].address", at, j)
		if why := badAddress(e.Address, 1); why != "" {
			f.refuse(path, "%q: %s", e.Address, why)
			continue
		}
		for k, earlier := range s.Endpoints[:j] {
			if earlier.Address == e.Address {
				f.refuse(path, "%s is endpoint %d already; want each once, with a weight for a bigger share", e.Address, k)
				break
			}
		}
		for _, l := range listeners {
			if sameListener(e.Address, l.address) {
				f.refuse(path, "%s is the agent's own %s: calls would go round in circles", e.Address, l.field)
			}
		}
	}
}

// routes refuses what an earlier service takes already.
func (f *file) routes(at string, s Service, earlier []Service) {
	for k, e := range earlier {
		if e.Name == s.Name {
			continue // said once, with the name
		}
		for _, a := range orAny(s.Authorities) {
			for _, m := range orAny(s.Methods) {
				if slices.Contains(orAny(e.Authorities), a) && slices.Contains(orAny(e.Methods), m) {
					f.refuse(at+".match", "%s goes to services[%d] (%s) already; want another authority or method prefix", route(a, m), k, e.Name)
					return
				}
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

func route(authority, method string) string {
	switch {
	case authority == "":
		return "method " + method
	case method == "":
		return "authority " + authority
	}
	return "authority " + authority + " with method " + method
}

// badAddress says what is wrong with "host:port" or "unix:PATH"; minPort is 1
// where a port can't be chosen for us.
func badAddress(address string, minPort int) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return "want unix:PATH"
		}
		return ""
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "want host:port or unix:PATH"
	}
	if n, err := strconv.Atoi(port); err != nil || n < minPort || n > 65535 {
		return fmt.Sprintf("want a port from %d to 65535", minPort)
	}
	if host == "" && minPort > 0 {
		return "want a host before the port"
	}
	return ""
}

// sameListener reports whether a call to address would reach the listener.
func sameListener(address, listener string) bool {
	if address == listener {
		_, port, _ := net.SplitHostPort(address)
		return port != "0"
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	listenHost, listenPort, err := net.SplitHostPort(listener)
	if err != nil || port != listenPort || port == "0" {
		return false
	}
	return isLoopback(host) && (isLoopback(listenHost) || isWildcard(listenHost)) || isWildcard(host) && isLoopback(listenHost)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func isWildcard(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}
