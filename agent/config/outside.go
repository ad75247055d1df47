package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// DialRule is a range of addresses that may be dialled.
type DialRule struct {
	Prefix netip.Prefix
	Ports  []PortRange // empty: every port
}

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// unmatched resolves what happens to calls that no service matches. defaults
// and written are the policy that all services inherit.
func (f *file) unmatched(m *configv1.Unmatched, defaults policy.Policy, written *configv1.Policy) Unmatched {
	u := Unmatched{Dial: m.GetMode() == configv1.Unmatched_DIAL, Policy: defaults, Connections: connections(written.GetConnections()), Health: healthCheck(written.GetHealthCheck())}
	if u.Dial && u.Health != nil && u.Health.Kind == HealthTLS {
		f.refuse("defaults.health_check.tls", "does not go with unmatched: {mode: DIAL}, since authorities that are dialled are spoken to in plaintext; want a check by grpc, http or tcp here, and tls in the policies of the services that have it")
	}
	if len(m.GetDialAllow()) > 0 && !u.Dial {
		f.refuse("unmatched.dial_allow", "is for mode: DIAL; write that, or leave it out")
	}
	for i, rule := range m.GetDialAllow() {
		path := fmt.Sprintf("unmatched.dial_allow[%d]", i)
		prefix, err := parsePrefix(rule.GetCidr())
		if err != nil && rule.GetCidr() != "" {
			f.refuse(path+".cidr", "%q; want an address or a range such as 10.0.0.0/8", rule.GetCidr())
		}
		r := DialRule{Prefix: prefix}
		for j, text := range rule.GetPorts() {
			first, last, isRange := strings.Cut(text, "-")
			if !isRange {
				last = first
			}
			a, errA := strconv.ParseUint(first, 10, 16)
			b, errB := strconv.ParseUint(last, 10, 16)
			if errA != nil || errB != nil || a == 0 || b < a {
				f.refuse(fmt.Sprintf("%s.ports[%d]", path, j), "%q; want a port or a range such as 8000-9000", text)
				continue
			}
			r.Ports = append(r.Ports, PortRange{uint16(a), uint16(b)})
		}
		u.Allow = append(u.Allow, r)
	}
	return u
}

func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		ip = ip.Unmap().WithZone("")
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// statuses resolves patterns such as "503", "5xx" and "201-599".
func (f *file) statuses(path string, patterns []string) []policy.StatusRange {
	var ranges []policy.StatusRange
	for i, text := range patterns {
		r, ok := statusRange(text)
		if !ok {
			continue // the field's own rule told
		}
		if r.Last < r.First {
			f.refuse(fmt.Sprintf("%s[%d]", path, i), "%q ends before it begins", text)
		}
		ranges = append(ranges, r)
	}
	return ranges
}

// statusRange resolves one pattern.
func statusRange(text string) (policy.StatusRange, bool) {
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	if class, ok := strings.CutSuffix(text, "xx"); ok {
		first, last = class+"00", class+"99"
	}
	a, errA := strconv.Atoi(first)
	b, errB := strconv.Atoi(last)
	return policy.StatusRange{First: a, Last: b}, errA == nil && errB == nil
}
