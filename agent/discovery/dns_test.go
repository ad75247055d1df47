package discovery

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const often = 100 * ms // how often tests refresh

func TestAddressesOfAName(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "a.test. 0 A 127.0.0.2", "a.test. 0 A 127.0.0.1", "a.test. 0 AAAA ::1")
	_, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 50051, Refresh: often})

	want := []string{"127.0.0.1:50051", "127.0.0.2:50051"}
	if hasIPv6() {
		want = append(want, "[::1]:50051")
	}
	eventually(t, "all of both families", got.have(want...))
}

func TestAChangeIsSeen(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "a.test. 0 A 127.0.0.1")
	f, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often})
	eventually(t, "the first", got.have("127.0.0.1:1"))

	n.set(t, "a.test. 0 A 127.0.0.1", "a.test. 0 A 127.0.0.2")
	eventually(t, "one more", got.have("127.0.0.1:1", "127.0.0.2:1"))
	n.set(t, "a.test. 0 A 127.0.0.2")
	eventually(t, "one less", got.have("127.0.0.2:1"))

	if s := f.Status(); s.Stale || s.Problem != "" || s.Endpoints != 1 || s.Source != "dns a.test:1" {
		t.Errorf("%+v", s)
	}
}

// gaps returns the time between the questions, each to the next.
func gaps(list []asked) (gaps []time.Duration) {
	for i := 1; i < len(list); i++ {
		gaps = append(gaps, list[i].at.Sub(list[i-1].at))
	}
	return gaps
}

func TestTheTTLIsKept(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "a.test. 1 A 127.0.0.1", "b.test. 0 A 127.0.0.1")
	n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often})
	n.feedOf(t, DNSOptions{Host: "b.test", Port: 1, Refresh: 300 * ms})

	eventually(t, "questions", func() bool { return len(n.questions("a.test.", "A")) >= 3 && len(n.questions("b.test.", "A")) >= 3 })

	// The server's clock runs a hair behind the source's.
	for _, gap := range gaps(n.questions("a.test.", "A")) {
		if gap < 950*ms {
			t.Errorf("asked again after %v, the TTL is 1 s", gap)
		}
	}
	for _, gap := range gaps(n.questions("b.test.", "A")) {
		if gap < 250*ms {
			t.Errorf("asked again after %v, the floor is 300 ms", gap)
		}
	}
}

func TestALongTTLIsBounded(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "a.test. 86400 A 127.0.0.1")
	d := NewDNS(DNSOptions{Host: "a.test", Port: 1, Servers: []string{n.address}}).(*dnsSource)
	f := NewFeed(FeedOptions{Source: d})

	if wait := d.ask(t.Context(), f); wait < longestTTL || wait > longestTTL*11/10+1 {
		t.Errorf("holds for %v", wait)
	}
}

func TestAConnectFailureAsksEarly(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "a.test. 300 A 127.0.0.1")
	f, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often})
	eventually(t, "the first", got.have("127.0.0.1:1"))
	n.set(t, "a.test. 300 A 127.0.0.2")

	for range 100 { // a crowd of calls met the same refusal
		f.Refresh()
	}

	eventually(t, "the new address", got.have("127.0.0.2:1"))
	if asked := len(n.questions("a.test.", "A")); asked > 3 {
		t.Errorf("asked %d times for one crowd", asked)
	}
}

func TestServersThatCantSayLeaveTheLastSet(t *testing.T) {
	for name, fail := range map[string]func(*nameserver){
		"SERVFAIL": func(n *nameserver) { n.answer("a.test.", dns.RcodeServerFailure) },
		"REFUSED":  func(n *nameserver) { n.answer("a.test.", dns.RcodeRefused) },
		"no answer in time": func(n *nameserver) {
			n.silence("a.test.", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNameserver(t)
			n.set(t, "a.test. 0 A 127.0.0.1")
			f, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often, Timeout: 50 * ms})
			eventually(t, "the first", got.have("127.0.0.1:1"))

			fail(n)
			eventually(t, "the set is stale", func() bool { return f.Status().Stale })
			if s := f.Status(); !strings.Contains(s.Problem, name) || !strings.Contains(s.Problem, n.address) || !strings.Contains(s.Problem, "a.test.") || s.Age == 0 {
				t.Errorf("%+v", s)
			}
			count := len(n.questions("a.test.", "A"))
			eventually(t, "more questions", func() bool { return len(n.questions("a.test.", "A")) >= count+4 })
			if !got.have("127.0.0.1:1")() || len(got.all()) != 1 {
				t.Errorf("the set changed: %v", got.all())
			}

			n.answer("a.test.", 0)
			n.silence("a.test.", false)
			eventually(t, "recovery", func() bool { s := f.Status(); return !s.Stale && s.Problem == "" && s.Age == 0 })
		})
	}
}

func TestANameThatIsGoneIsBelievedTheThirdTime(t *testing.T) {
	for name, gone := range map[string]func(*nameserver){
		"no such name (NXDOMAIN)":   func(n *nameserver) { n.remove("a.test.") },
		"the name has no addresses": func(n *nameserver) { n.remove("a.test."); n.answers("a.test. TXT", &dns.TXT{}) },
	} {
		t.Run(name, func(t *testing.T) {
			n := startNameserver(t)
			n.set(t, "a.test. 0 A 127.0.0.1")
			f, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often})
			eventually(t, "the first", got.have("127.0.0.1:1"))
			before := len(n.questions("a.test.", "A"))

			gone(n)
			eventually(t, "nothing is left", got.have())

			if asked := len(n.questions("a.test.", "A")) - before; asked < confirmations {
				t.Errorf("believed after %d answers", asked)
			}
			if s := f.Status(); s.Stale || s.Endpoints != 0 || !strings.Contains(s.Problem, name) {
				t.Errorf("%+v", s)
			}
			n.set(t, "a.test. 0 A 127.0.0.3")
			eventually(t, "it is back", got.have("127.0.0.3:1"))
		})
	}
}

func TestAFailureBetweenNegativeAnswersBreaksTheirRow(t *testing.T) {
	n := startNameserver(t)
	d := NewDNS(DNSOptions{Host: "a.test", Port: 1, Servers: []string{n.address}}).(*dnsSource)
	f := NewFeed(FeedOptions{Source: d})
	ask := func(rcode int) Status {
		n.answer("a.test.", rcode)
		d.ask(t.Context(), f)
		return f.Status()
	}
	n.set(t, "a.test. 0 A 127.0.0.1")
	ask(0)
	for range 4 {
		ask(dns.RcodeNameError)
		ask(dns.RcodeNameError)
		if s := ask(dns.RcodeServerFailure); !s.Stale {
			t.Fatalf("%+v", s)
		}
	}
	if d.failures != 1 {
		t.Errorf("%d failures in a row", d.failures)
	}
}

func TestAFamilyThatCantBeAskedKeepsWhatItHad(t *testing.T) {
	if !hasIPv6() {
		t.Skip("SKIPPED: this machine has no IPv6 loopback")
	}
	n := startNameserver(t)
	n.set(t, "a.test. 0 A 127.0.0.1", "a.test. 0 AAAA ::1")
	f, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often, Timeout: 50 * ms})
	eventually(t, "both", got.have("127.0.0.1:1", "[::1]:1"))

	n.silence("a.test. AAAA", true)
	n.set(t, "a.test. 0 A 127.0.0.1", "a.test. 0 A 127.0.0.2")

	eventually(t, "A goes on", got.have("127.0.0.1:1", "127.0.0.2:1", "[::1]:1"))
	if s := f.Status(); s.Stale || !strings.Contains(s.Problem, "AAAA") {
		t.Errorf("%+v", s)
	}
}

func hasIPv6() bool { return len(reachable(parse("::1"))) == 1 }

func TestAnAnswerTooLongForUDPIsFetchedByTCP(t *testing.T) {
	n := startNameserver(t)
	var records []string
	for i := range 200 {
		records = append(records, fmt.Sprintf("a.test. 60 A 10.0.0.%d", i+1))
	}
	n.set(t, records...)
	_, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often})

	eventually(t, "all 200", func() bool { return len(got.last()) == 200 })
	if asked := n.questions("a.test.", "A"); len(asked) < 2 || asked[0].network != "udp" || asked[1].network != "tcp" {
		t.Errorf("%+v", asked)
	}
}

func TestAServerWithoutEDNSIsAskedPlainly(t *testing.T) {
	n := startNameserver(t)
	n.plain = true
	n.set(t, "a.test. 60 A 127.0.0.1")
	_, got := n.feedOf(t, DNSOptions{Host: "a.test", Port: 1})

	eventually(t, "an answer", got.have("127.0.0.1:1"))
}

func TestTheNextServerIsAskedWhereOneFails(t *testing.T) {
	dead, broken, good := startNameserver(t), startNameserver(t), startNameserver(t)
	dead.silence("a.test.", true)
	broken.answer("a.test.", dns.RcodeServerFailure)
	good.set(t, "a.test. 0 A 127.0.0.1")
	f, got := good.feedOf(t, DNSOptions{Host: "a.test", Port: 1, Refresh: often, Timeout: 100 * ms, Servers: []string{dead.address, broken.address, good.address}})

	eventually(t, "an answer", got.have("127.0.0.1:1"))
	if s := f.Status(); s.Problem != "" {
		t.Errorf("%+v", s)
	}
	// The one that answered is asked first from then on.
	asked := len(dead.questions("a.test.", "A"))
	eventually(t, "more questions", func() bool { return len(good.questions("a.test.", "A")) >= 5 })
	if more := len(dead.questions("a.test.", "A")) - asked; more != 0 {
		t.Errorf("the dead one was asked %d times more", more)
	}
}

func TestStopDoesNotWaitForASilentServer(t *testing.T) {
	n := startNameserver(t)
	n.silence("a.test.", true)
	f := NewFeed(FeedOptions{Source: NewDNS(DNSOptions{Host: "a.test", Port: 1, Servers: []string{n.address}, Timeout: time.Hour}), Deliver: func(Snapshot) {}})
	f.Start()
	eventually(t, "a question", func() bool { return len(n.questions("a.test.", "A")) > 0 })

	f.Stop() // the test's own timeout is shorter than an hour
}

func TestAnAddressIsNotAsked(t *testing.T) {
	n := startNameserver(t)
	f, got := n.feedOf(t, DNSOptions{Host: "::1", Port: 7})

	eventually(t, "the address", got.have("[::1]:7"))
	if n.total() != 0 || f.Status().Problem != "" {
		t.Errorf("%d questions, %+v", n.total(), f.Status())
	}
}

func TestACNAMEIsFollowed(t *testing.T) {
	n := startNameserver(t)
	n.answers("www.test. A", record(t, "www.test. 300 CNAME a.test."), record(t, "a.test. 7 A 127.0.0.9"))
	_, got := n.feedOf(t, DNSOptions{Host: "www.test", Port: 1})

	eventually(t, "the target's address", got.have("127.0.0.9:1"))
}

func record(t *testing.T, text string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(addresses ...string) (list []netip.Addr) {
	for _, a := range addresses {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}
