package agent

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// maxDialled bounds the services that exist only because a call named an
// authority; the one unused for longest makes room.
const maxDialled = 1024

// dialled are the services of "unmatched: {mode: DIAL}": an authority that no
// route matches becomes a service of that name with itself as its one endpoint.
// Safe for concurrent use.
type dialled struct {
	services *lru.Cache[string, *policy.Service]
	make     func(authority string) *policy.Service
	outside  *transport
}

// newDialled returns an empty set. make builds the service of an authority;
// gone is told of endpoints that no service has any more, and must not block.
func newDialled(limit int, outside *transport, make func(authority string) *policy.Service, gone func([]*balancer.Endpoint)) *dialled {
	// The error is for a limit that is not positive.
	services, err := lru.NewWithEvict(limit, func(_ string, s *policy.Service) { gone(s.Endpoints().All()) })
	if err != nil {
		panic(err)
	}
	return &dialled{services: services, make: make, outside: outside}
}

// What is wrong with an authority that is not dialled.
var (
	errNotDialable = errors.New("it is not host:port")
	errLeadsBack   = errors.New("it leads back to the agent")
)

// target returns the service of an authority in lower case, or why there is
// none. It implements relay.Unmatched.
func (d *dialled) target(authority string) (*relay.Target, error) {
	s, err := d.service(authority)
	if err != nil {
		return nil, err
	}
	return &relay.Target{Service: s, Transport: d.outside}, nil
}

func (d *dialled) service(authority string) (*policy.Service, error) {
	if s, ok := d.services.Get(authority); ok {
		return s, nil
	}
	if !dialable(authority) {
		return nil, errNotDialable
	}
	if d.outside.guard.own.lead(authority) {
		return nil, errLeadsBack
	}
	if address, err := netip.ParseAddrPort(authority); err == nil {
		if err := d.outside.guard.check(address); err != nil {
			return nil, err
		}
	}
	// The authority may share the memory of the call that named it.
	authority = strings.Clone(authority)
	s := d.make(authority)
	// Of two calls that both find nothing, the first one's service stays.
	if earlier, existed, _ := d.services.PeekOrAdd(authority, s); existed {
		return earlier, nil
	}
	return s, nil
}

// all returns the services, the one unused for longest first.
func (d *dialled) all() []*policy.Service { return d.services.Values() }

// clear drops every service; their endpoints are told as gone.
func (d *dialled) clear() { d.services.Purge() }

// dialable reports whether the authority is a host and a port, and nothing
// else.
func dialable(authority string) bool {
	host, port, err := net.SplitHostPort(authority)
	if err != nil || host == "" {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return false
	}
	if strings.Contains(host, ":") {
		_, err := netip.ParseAddr(host)
		return err == nil
	}
	for _, c := range []byte(host) {
		letter := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
		if !letter {
			return false
		}
	}
	return len(host) <= 253
}

// ownPorts are the TCP ports that the agent listens on. A call that it sent to
// one of them would come back to it, for ever.
type ownPorts map[string]bool

func newOwnPorts(listeners ...net.Listener) ownPorts {
	own := make(ownPorts)
	for _, l := range listeners {
		if a, ok := l.Addr().(*net.TCPAddr); ok {
			own[strconv.Itoa(a.Port)] = true
		}
	}
	return own
}

// lead reports whether the authority leads, or may lead, to the agent. A name
// with such a port is refused whatever it resolves to: what it resolves to may
// change between the check and the connection.
func (own ownPorts) lead(authority string) bool {
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		return false
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(n, 10) // "07600" is 7600
	}
	if !own[port] {
		return false
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return true
	}
	address = address.Unmap().WithZone("")
	return address.IsLoopback() || address.IsUnspecified() || isLocal(address)
}

// isLocal reports whether the address is one of this machine's.
func isLocal(address netip.Addr) bool {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().WithZone("") == address {
				return true
			}
		}
	}
	return false
}
