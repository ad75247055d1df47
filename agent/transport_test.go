package agent

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/agent/config"
)

func TestWhereDialMayLead(t *testing.T) {
	listed := []config.DialRule{
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Ports: []config.PortRange{{First: 50051, Last: 50059}}},
		{Prefix: netip.MustParsePrefix("169.254.169.254/32")},
	}
	for _, tc := range []struct {
		about   string
		rules   []config.DialRule
		address string
		want    string // in the refusal; empty: allowed
	}{
		{"anything usual", nil, "10.0.0.1:50051", ""},
		{"loopback is where neighbours are", nil, "127.0.0.1:9", ""},
		{"the agent itself", nil, "127.0.0.1:7600", "leads back"},
		{"in its IPv6 dress", nil, "[::ffff:127.0.0.1]:7600", "leads back"},
		{"cloud metadata", nil, "169.254.169.254:80", "dial_allow"},
		{"cloud metadata, mapped", nil, "[::ffff:169.254.169.254]:80", "dial_allow"},
		{"cloud metadata by IPv6", nil, "[fd00:ec2::254]:80", "metadata"},
		{"link-local with a zone", nil, "[fe80::1%eth0]:80", "link-local"},
		{"multicast", nil, "224.0.0.1:80", "multicast"},
		{"listed", listed, "10.1.2.3:50055", ""},
		{"another port", listed, "10.1.2.3:50060", "does not list"},
		{"another address", listed, "127.0.0.1:50055", "does not list"},
		{"metadata, if somebody wants it", listed, "169.254.169.254:80", ""},
		{"the agent, even if listed", []config.DialRule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}, "127.0.0.1:7600", "leads back"},
	} {
		g := &dialGuard{own: ownPorts{"7600": true}}
		g.rules.Store(&tc.rules)

		err := g.check(netip.MustParseAddrPort(tc.address))

		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %s: %v, want %q", tc.about, tc.address, err, tc.want)
		}
	}
}

// A name may have addresses of both families, and the first of them nobody
// behind it: net.Dialer goes on to the other one (RFC 8305; FallbackDelay zero
// is its 300 ms, not "off").
func TestANameIsDialledAtEachOfItsAddresses(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, dialer := range []*transport{{}, {guard: &dialGuard{}}} {
		nc, err := dialer.Dial(t.Context(), "localhost:"+port) // ::1 too, nearly everywhere
		if err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
}
