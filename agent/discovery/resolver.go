package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	// payload is how long a UDP answer may be: what passes without fragments
	// nearly everywhere (DNS flag day 2020).
	payload = 1232
	// defaultTimeout is for one question to one server.
	defaultTimeout = 2 * time.Second
	// rounds is how often each server is asked before a question has failed.
	rounds = 2
	// maxAsking bounds the questions under way of all sources together.
	maxAsking = 64
)

// asking has a place for each question under way.
var asking = make(chan struct{}, maxAsking)

// nothing is the answer that there is nothing: the name does not exist, or has
// no such record.
type nothing struct {
	what   string
	noName bool
}

func (n *nothing) Error() string { return n.what }

// answer is what a server knows of a name.
type answer struct {
	message *dns.Msg
	ttl     time.Duration
}

// addresses returns those of the answer's A and AAAA records.
func (a answer) addresses() (list []netip.Addr) {
	for _, r := range a.message.Answer {
		if ip, ok := addressOf(r); ok {
			list = append(list, ip)
		}
	}
	return list
}

// services returns the answer's SRV records.
func (a answer) services() (list []*dns.SRV) {
	for _, r := range a.message.Answer {
		if s, ok := r.(*dns.SRV); ok {
			list = append(list, s)
		}
	}
	return list
}

// additional returns the addresses that came along, by name.
func (a answer) additional() map[string][]netip.Addr {
	all := make(map[string][]netip.Addr)
	for _, r := range a.message.Extra {
		if ip, ok := addressOf(r); ok {
			name := dns.CanonicalName(r.Header().Name)
			all[name] = append(all[name], ip)
		}
	}
	return all
}

func addressOf(r dns.RR) (netip.Addr, bool) {
	var ip net.IP
	switch r := r.(type) {
	case *dns.A:
		ip = r.A
	case *dns.AAAA:
		ip = r.AAAA
	}
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

// resolver asks the servers of /etc/resolv.conf, or others. Safe for concurrent
// use.
type resolver struct {
	fixed   bool   // the servers were given
	path    string // otherwise: resolv.conf
	timeout time.Duration
	first   atomic.Uint32 // the server that answered last

	mu     sync.Mutex
	config *dns.ClientConfig
	read   time.Time // when the file that config was read from was changed
}

func newResolver(servers []string, timeout time.Duration) *resolver {
	r := &resolver{path: resolvConf, timeout: timeout}
	if len(servers) > 0 {
		r.fixed, r.config = true, &dns.ClientConfig{Servers: servers, Timeout: int(defaultTimeout / time.Second)}
	}
	return r
}

// settings returns what resolv.conf says now. A file that can't be read stands
// for a server on this machine, as resolv.conf(5) has it.
func (r *resolver) settings() *dns.ClientConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fixed {
		return r.config
	}
	info, err := os.Stat(r.path)
	if err == nil && r.config != nil && info.ModTime().Equal(r.read) {
		return r.config
	}
	c, err := dns.ClientConfigFromFile(r.path)
	if err != nil || len(c.Servers) == 0 {
		if r.config != nil {
			return r.config // it is being written
		}
		return &dns.ClientConfig{Servers: []string{"127.0.0.1:53"}, Ndots: 1, Timeout: int(defaultTimeout / time.Second)}
	}
	for i, s := range c.Servers {
		c.Servers[i] = net.JoinHostPort(s, c.Port)
	}
	r.config = c
	if info != nil {
		r.read = info.ModTime()
	}
	return c
}

// names returns the whole names that a name may stand for, in the order that
// they are asked for.
func (r *resolver) names(name string) []string {
	c := r.settings()
	if r.fixed {
		return []string{dns.Fqdn(name)}
	}
	return c.NameList(name)
}

// ask asks for the records of a whole name, until a server knows. A *nothing
// says that there are none; any other error, that no server could say.
func (r *resolver) ask(ctx context.Context, name string, kind uint16) (answer, error) {
	select {
	case asking <- struct{}{}:
		defer func() { <-asking }()
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
	c := r.settings()
	timeout := r.timeout
	if timeout == 0 {
		timeout = max(time.Duration(c.Timeout)*time.Second, time.Second)
	}
	var failed error
	for range rounds {
		begin := int(r.first.Load())
		for i := range c.Servers {
			at := (begin + i) % len(c.Servers)
			message, err := exchange(ctx, c.Servers[at], name, kind, timeout)
			if ctx.Err() != nil {
				return answer{}, ctx.Err()
			}
			if err == nil {
				r.first.Store(uint32(at))
				return judge(name, kind, message)
			}
			failed = fmt.Errorf("%s %s: %w", name, dns.TypeToString[kind], err)
		}
	}
	return answer{}, failed
}

// judge tells an answer from the word that there is none.
func judge(name string, kind uint16, m *dns.Msg) (answer, error) {
	if m.Rcode == dns.RcodeNameError {
		return answer{}, &nothing{name + ": no such name (NXDOMAIN)", true}
	}
	for _, r := range m.Answer {
		if r.Header().Rrtype == kind {
			return answer{m, ttlOf(m.Answer)}, nil
		}
	}
	return answer{}, &nothing{name + ": the name has no " + dns.TypeToString[kind] + " records", false}
}

// exchange asks one server, by UDP and, where the answer does not fit, by TCP.
// An answer that says the server can't say is an error.
func exchange(ctx context.Context, server, name string, kind uint16, timeout time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	q := new(dns.Msg)
	q.SetQuestion(name, kind)
	q.SetEdns0(payload, false)
	m, err := send(ctx, "udp", server, q)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented) && m.IsEdns0() == nil {
		q.Extra = nil // a server that never heard of EDNS (RFC 6891, 7)
		m, err = send(ctx, "udp", server, q)
	}
	if err == nil && m.Truncated {
		m, err = send(ctx, "tcp", server, q)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", server, err)
	}
	switch m.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
		return m, nil
	}
	return nil, fmt.Errorf("%s answered %s", server, dns.RcodeToString[m.Rcode])
}

// errSilent is for a server that does not answer in time.
var errSilent = errors.New("no answer in time")

func send(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	q.Id = dns.Id()
	c := dns.Client{Net: network, UDPSize: payload}
	if end, ok := ctx.Deadline(); ok {
		c.Timeout = time.Until(end)
	}
	var m *dns.Msg
	nc, err := (&net.Dialer{}).DialContext(ctx, network, server)
	if err == nil {
		// The client knows deadlines, but not a context that ends.
		defer context.AfterFunc(ctx, func() { nc.Close() })()
		defer nc.Close()
		m, _, err = c.ExchangeWithConnContext(ctx, q, &dns.Conn{Conn: nc, UDPSize: payload})
	}
	var slow net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), err != nil && ctx.Err() != nil, errors.As(err, &slow) && slow.Timeout():
		return nil, errSilent
	case err != nil:
		var at *net.OpError
		if errors.As(err, &at) {
			return nil, at.Err
		}
		return nil, err
	case len(m.Question) != 1, !strings.EqualFold(m.Question[0].Name, q.Question[0].Name) || m.Question[0].Qtype != q.Question[0].Qtype:
		return nil, errors.New("the answer is to another question")
	}
	return m, nil
}
