package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/discovery"
	"github.com/outrigger-rpc/outrigger/agent/identity"
)

// transport connects the endpoints of one service, or of everything that is
// dialled. It stays the same while its TLS changes. It implements
// relay.Transport and forward.Transport.
type transport struct {
	guard    *dialGuard // nil: endpoints that somebody wrote down go anywhere
	settings *config.TLS
	secure   atomic.Pointer[identity.Source] // nil: plaintext
	failed   atomic.Pointer[discovery.Feed]  // hears of connects that failed; nil: nobody does
}

// Dial implements relay.Transport. Where endpoints are discovered, one that
// can't be connected may be gone: its source is asked again.
func (t *transport) Dial(ctx context.Context, address string) (net.Conn, error) {
	nc, err := t.dial(ctx, address)
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		if feed := t.failed.Load(); feed != nil {
			feed.Refresh()
		}
	}
	return nc, err
}

func (t *transport) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if t.guard != nil {
		d.Control = t.guard.control
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", address)
}

// errNoServerName is for a certificate that can't be held against a path.
var errNoServerName = errors.New("a unix socket has no name that a certificate could have: write tls.server_name")

// TLS implements relay.Transport.
func (t *transport) TLS(address string, protocols ...string) (*tls.Config, error) {
	source := t.secure.Load()
	if source == nil {
		return nil, nil
	}
	c := source.Client(protocols...)
	if c.ServerName != "" {
		return c, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, errNoServerName
	}
	c.ServerName = host
	return c, nil
}

// swap takes another identity over and ends the old one.
func (t *transport) swap(next *identity.Source) {
	if old := t.secure.Swap(next); old != nil {
		old.Close()
	}
}

// identitySettings are a configuration's TLS as the identity room knows it.
func identitySettings(c *config.TLS) identity.Settings {
	return identity.Settings{
		CertFile: c.CertFile, KeyFile: c.KeyFile, CAFile: c.CAFile, ServerName: c.ServerName,
		MinVersion: c.MinVersion, WorkloadAPI: c.WorkloadAPI, AllowedIDs: c.AllowedIDs,
	}
}

// dialGuard says where DIAL and CONNECT may lead: never to the agent, and to
// addresses of the machine's surroundings (link-local, cloud metadata) only
// where they are listed. Names are judged by what they resolve to, at the
// moment of the connect. Safe for concurrent use.
type dialGuard struct {
	own   ownPorts
	rules atomic.Pointer[[]config.DialRule]
}

// cloudMetadata are addresses outside the link-local ranges where clouds serve
// credentials: AWS by IPv6, Alibaba, Azure and Oracle.
var cloudMetadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("192.0.0.192"),
}

// control implements net.Dialer.Control.
func (g *dialGuard) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address", address)
	}
	return g.check(a)
}

// check returns why the address is not dialled.
func (g *dialGuard) check(a netip.AddrPort) error {
	ip := a.Addr().Unmap().WithZone("")
	if g.own.lead(netip.AddrPortFrom(ip, a.Port()).String()) {
		return errLeadsBack
	}
	if rules := g.rules.Load(); rules != nil && len(*rules) > 0 {
		for _, r := range *rules {
			if r.Prefix.Contains(ip) && reachesPort(r.Ports, a.Port()) {
				return nil
			}
		}
		return fmt.Errorf("unmatched.dial_allow does not list %v", a)
	}
	what := ""
	switch {
	case ip.IsLinkLocalUnicast():
		what = "link-local, where clouds serve metadata"
	case ip.IsMulticast():
		what = "multicast"
	default:
		for _, m := range cloudMetadata {
			if ip == m {
				what = "a cloud's metadata service"
			}
		}
	}
	if what != "" {
		return fmt.Errorf("%v is %s; list it in unmatched.dial_allow to allow it", ip, what)
	}
	return nil
}

func reachesPort(ports []config.PortRange, port uint16) bool {
	for _, p := range ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return len(ports) == 0
}
