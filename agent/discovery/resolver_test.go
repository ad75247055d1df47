package discovery

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeResolvConf writes one whose change is seen, however coarse the file
// system's clock is.
func writeResolvConf(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestNamesAreSearchedForAsResolvConfSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	begin := time.Now()
	writeResolvConf(t, path, "nameserver 10.0.0.10\nsearch default.svc.cluster.local svc.cluster.local\noptions ndots:2 timeout:3\n", begin)
	r := newResolver(nil, 0)
	r.path = path
	for name, want := range map[string]string{
		"greeter":          "[greeter.default.svc.cluster.local. greeter.svc.cluster.local. greeter.]",
		"greeter.other.io": "[greeter.other.io. greeter.other.io.default.svc.cluster.local. greeter.other.io.svc.cluster.local.]",
		"greeter.test.":    "[greeter.test.]",
	} {
		if got := fmt.Sprint(r.names(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if s := r.settings(); len(s.Servers) != 1 || s.Servers[0] != "10.0.0.10:53" || s.Timeout != 3 {
		t.Errorf("%+v", s)
	}

	writeResolvConf(t, path, "nameserver ::1\n", begin.Add(time.Second))
	if s := r.settings(); len(s.Servers) != 1 || s.Servers[0] != "[::1]:53" {
		t.Errorf("changed: %+v", s)
	}
	writeResolvConf(t, path, "", begin.Add(2*time.Second)) // being written
	if s := r.settings(); len(s.Servers) != 1 || s.Servers[0] != "[::1]:53" {
		t.Errorf("truncated: %+v", s)
	}
}

func TestWithoutResolvConfThisMachineIsAsked(t *testing.T) {
	r := newResolver(nil, 0)
	r.path = filepath.Join(t.TempDir(), "resolv.conf")

	if s := r.settings(); len(s.Servers) != 1 || s.Servers[0] != "127.0.0.1:53" {
		t.Errorf("%+v", s)
	}
	if names := fmt.Sprint(r.names("a")); names != "[a.]" {
		t.Error(names)
	}
}

func TestTheSearchGoesOnPastNamesThatAreNotThere(t *testing.T) {
	n := startNameserver(t)
	n.set(t, "greeter.svc.test. 60 A 127.0.0.1")
	n.silence("greeter.", true) // must not be asked: an earlier name has it
	d := searching(t, n)

	if found, err := d.lookup(t, "greeter"); err != nil || len(found.addresses) != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestTheSearchEndsAtANameThatCantBeAsked(t *testing.T) {
	n := startNameserver(t)
	n.answer("greeter.default.svc.test.", 2)
	n.set(t, "greeter.svc.test. 60 A 127.0.0.1")
	d := searching(t, n)

	if found, err := d.lookup(t, "greeter"); err == nil {
		t.Errorf("%+v: it may be another service", found)
	}
}

// searching is a source with a search list that asks n.
func searching(t *testing.T, n *nameserver) *searcher {
	t.Helper()
	host, port, err := net.SplitHostPort(n.address)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "resolv.conf")
	writeResolvConf(t, path, "nameserver "+host+"\nsearch default.svc.test svc.test\noptions timeout:1 ndots:5\n", time.Now())
	d := NewDNS(DNSOptions{Host: "greeter", Port: 1}).(*dnsSource)
	d.resolver.path = path
	d.resolver.settings().Servers[0] = net.JoinHostPort(host, port) // resolv.conf has no ports
	return &searcher{d}
}

type searcher struct{ *dnsSource }

func (s *searcher) lookup(t *testing.T, host string) (addressed, error) {
	s.dnsSource.next = make(map[question][]netip.Addr)
	return s.addresses(t.Context(), host)
}
