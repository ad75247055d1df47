package discovery

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// nameserver is a DNS server on loopback, over UDP and TCP, whose zone the test
// changes.
type nameserver struct {
	address string

	mu    sync.Mutex
	zone  map[string][]dns.RR // by name and type, such as "a.test. A"
	rcode map[string]int      // by name, or name and type; instead of an answer
	mute  map[string]bool     // by name, or name and type: says nothing
	plain bool                // never heard of EDNS
	asked []asked
}

// asked is a question that came.
type asked struct {
	name, kind, network string
	at                  time.Time
}

func startNameserver(t *testing.T) *nameserver {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Skipf("no port is free for both UDP and TCP: %v", err)
	}
	n := &nameserver{address: l.Addr().String(), zone: make(map[string][]dns.RR), rcode: make(map[string]int), mute: make(map[string]bool)}
	for _, server := range []*dns.Server{{Listener: l, Handler: n}, {PacketConn: p, Handler: n}} {
		started, done := make(chan struct{}), make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(done); _ = server.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = server.Shutdown(); <-done })
	}
	return n
}

// set makes the records what there is of each of their names and types.
func (n *nameserver) set(t *testing.T, records ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	fresh := make(map[string][]dns.RR)
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		key := key(rr.Header().Name, rr.Header().Rrtype)
		fresh[key] = append(fresh[key], rr)
	}
	for key, list := range fresh {
		n.zone[key] = list
	}
}

func key(name string, kind uint16) string {
	return strings.ToLower(name) + " " + dns.TypeToString[kind]
}

// answers says word for word what is answered to a name and type.
func (n *nameserver) answers(what string, records ...dns.RR) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zone[what] = records
}

// remove takes everything of a name away.
func (n *nameserver) remove(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range n.zone {
		if strings.HasPrefix(key, name+" ") {
			delete(n.zone, key)
		}
	}
}

// answer answers a name, or a name and type, with a code; 0: as the zone says.
func (n *nameserver) answer(what string, rcode int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rcode[what] = rcode
}

func (n *nameserver) silence(what string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mute[what] = on
}

// questions returns those of a name and type that came so far.
func (n *nameserver) questions(name, kind string) (list []asked) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.asked {
		if a.name == name && a.kind == kind {
			list = append(list, a)
		}
	}
	return list
}

// total is how many questions came so far.
func (n *nameserver) total() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.asked)
}

// ServeDNS implements dns.Handler.
func (n *nameserver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, kind := strings.ToLower(q.Question[0].Name), q.Question[0].Qtype
	what := key(name, kind)
	n.asked = append(n.asked, asked{name, dns.TypeToString[kind], w.RemoteAddr().Network(), time.Now()})
	if n.mute[name] || n.mute[what] {
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	rcode := n.rcode[name]
	if r := n.rcode[what]; r != 0 {
		rcode = r
	}
	switch {
	case n.plain && q.IsEdns0() != nil:
		m.Rcode = dns.RcodeFormatError
	case rcode != 0:
		m.Rcode = rcode
	default:
		m.Answer = n.zone[what]
		if len(m.Answer) == 0 && !n.exists(name) {
			m.Rcode = dns.RcodeNameError
		}
	}
	if w.RemoteAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m)
}

func (n *nameserver) exists(name string) bool {
	for key := range n.zone {
		if strings.HasPrefix(key, name+" ") {
			return true
		}
	}
	return false
}

// feedOf runs a feed that asks the nameserver, with quick damping.
func (n *nameserver) feedOf(t *testing.T, o DNSOptions) (*Feed, *delivered) {
	t.Helper()
	if len(o.Servers) == 0 {
		o.Servers = []string{n.address}
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	got := &delivered{}
	f := NewFeed(FeedOptions{Source: NewDNS(o), Deliver: got.deliver, Coalesce: ms, Hold: 50 * ms})
	f.Start()
	t.Cleanup(f.Stop)
	return f, got
}

// eventually waits for what must come, however slow the machine is.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 1500 {
		if condition() {
			return
		}
		time.Sleep(10 * ms)
	}
	t.Fatalf("waited 15 s in vain: %s", what)
}

// have reports whether the last set delivered is this.
func (d *delivered) have(addresses ...string) func() bool {
	return func() bool { return fmt.Sprint(d.last()) == fmt.Sprint(addresses) }
}
