package discovery

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/outrigger-rpc/outrigger/balancer"
)

const service = "_grpc._tcp.greeter.test"

func wantSpecs(t *testing.T, got *delivered, want ...balancer.Spec) {
	t.Helper()
	sets := got.all()
	list := sets[len(sets)-1].Endpoints
	if len(list) != len(want) {
		t.Fatalf("%+v", list)
	}
	for i, s := range want {
		if list[i].Spec != s {
			t.Errorf("%+v, want %+v", list[i].Spec, s)
		}
	}
}

func TestSRVRecordsGivePortsWeightsAndPriorities(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 60 SRV 10 3 8080 a.test.", service+". 60 SRV 10 0 8081 b.test.", service+". 60 SRV 20 5 8080 b.test.",
		"a.test. 60 A 127.0.0.1", "b.test. 60 A 127.0.0.2")
	f, got := n.feedOf(t, DNSOptions{SRV: service})

	eventually(t, "three", got.have("127.0.0.1:8080", "127.0.0.2:8080", "127.0.0.2:8081"))
	wantSpecs(t, got,
		balancer.Spec{Address: "127.0.0.1:8080", Weight: 3, Priority: 10},
		balancer.Spec{Address: "127.0.0.2:8080", Weight: 5, Priority: 20},
		balancer.Spec{Address: "127.0.0.2:8081", Weight: 1, Priority: 10})
	if s := f.Status(); s.Source != "dns srv "+service || s.Problem != "" {
		t.Errorf("%+v", s)
	}
	if asked := len(n.questions("b.test.", "A")); asked != 1 {
		t.Errorf("b.test was asked for %d times", asked)
	}
}

func TestATargetsAddressesShareItsWeight(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 60 SRV 0 4 1 two.test.", service+". 60 SRV 0 4 1 one.test.",
		"two.test. 60 A 127.0.0.1", "two.test. 60 A 127.0.0.2", "one.test. 60 A 127.0.0.3")
	_, got := n.feedOf(t, DNSOptions{SRV: service})

	eventually(t, "three", func() bool { return len(got.last()) == 3 })
	wantSpecs(t, got, balancer.Spec{Address: "127.0.0.1:1", Weight: 120}, balancer.Spec{Address: "127.0.0.2:1", Weight: 120}, balancer.Spec{Address: "127.0.0.3:1", Weight: 240})
}

func TestAddressesThatCameAlongAreNotAskedFor(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 60 SRV 0 1 1 a.test.")
	d := NewDNS(DNSOptions{SRV: service, Servers: []string{n.address}}).(*dnsSource)
	m := new(dns.Msg)
	m.Answer, m.Extra = []dns.RR{record(t, service+". 60 SRV 0 1 1 A.test.")}, []dns.RR{record(t, "a.test. 60 A 127.0.0.1")}

	found, err := d.targets(t.Context(), service, answer{m, 0})

	if err != nil || len(found.endpoints) != 1 || found.endpoints[0].Address != "127.0.0.1:1" || n.total() != 0 {
		t.Errorf("%+v, %v, %d questions", found, err, n.total())
	}
}

func TestATargetThatCantBeAskedKeepsTheWholeSet(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 0 SRV 0 1 1 a.test.", service+". 0 SRV 0 1 1 b.test.", "a.test. 0 A 127.0.0.1", "b.test. 0 A 127.0.0.2")
	f, got := n.feedOf(t, DNSOptions{SRV: service, Refresh: often})
	eventually(t, "both", got.have("127.0.0.1:1", "127.0.0.2:1"))

	n.answer("b.test.", dns.RcodeServerFailure)

	eventually(t, "the set is stale", func() bool { return f.Status().Stale })
	if !got.have("127.0.0.1:1", "127.0.0.2:1")() {
		t.Errorf("%v", got.last())
	}
}

func TestATargetWithoutAddressesIsLeftOutAndNamed(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 60 SRV 0 1 1 a.test.", service+". 60 SRV 0 1 1 gone.test.", "a.test. 60 A 127.0.0.1")
	f, got := n.feedOf(t, DNSOptions{SRV: service})

	eventually(t, "the one that is there", got.have("127.0.0.1:1"))
	if s := f.Status(); s.Stale || s.Problem != "gone.test.: no such name (NXDOMAIN)" {
		t.Errorf("%+v", s)
	}
}

func TestAServiceThatIsNotOffered(t *testing.T) {
	n := startNameserver(t)
	n.set(t, service+". 0 SRV 0 0 0 .")
	f, got := n.feedOf(t, DNSOptions{SRV: service, Refresh: often})

	eventually(t, "an empty set", func() bool { return len(got.all()) == 1 && got.have()() })
	if s := f.Status(); s.Problem == "" || s.Stale {
		t.Errorf("%+v", s)
	}
}
