package agent

import (
	"net"
	"strconv"
	"testing"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestDialable(t *testing.T) {
	for authority, want := range map[string]bool{
		"greeter:50051":           true,
		"greeter.default.svc:443": true,
		"10.0.0.1:1":              true,
		"[2001:db8::1]:50051":     true,
		"greeter":                 false,
		"greeter:":                false,
		":50051":                  false,
		"greeter:0":               false,
		"greeter:65536":           false,
		"greeter:http":            false,
		"user@greeter:80":         false,
		"a/b:80":                  false,
		"a b:80":                  false,
		"[not::an::address]:80":   false,
		"":                        false,
	} {
		if got := dialable(authority); got != want {
			t.Errorf("%q: got %v, want %v", authority, got, want)
		}
	}
}

func TestOwnPortsAreNeverDialled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	own := newOwnPorts(l)
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for authority, want := range map[string]bool{
		"127.0.0.1:" + port:          true,
		"127.9.9.9:" + port:          true,
		"127.0.0.1:0" + port:         true,
		"[::1]:" + port:              true,
		"[::ffff:127.0.0.1]:" + port: true,
		"0.0.0.0:" + port:            true,
		"[::]:" + port:               true,
		"localhost:" + port:          true,
		"some.name:" + port:          true,
		"192.0.2.1:" + port:          false, // another machine's
		"127.0.0.1:1":                false,
	} {
		if got := own.lead(authority); got != want {
			t.Errorf("%q: got %v, want %v", authority, got, want)
		}
	}
}

// newTestDialled returns a set that remembers which services were made.
func newTestDialled(limit int, gone func([]*balancer.Endpoint)) (d *dialled, made *[]string) {
	made = new([]string)
	return newDialled(limit, &transport{guard: &dialGuard{}}, func(authority string) *policy.Service {
		*made = append(*made, authority)
		s := policy.NewService(authority, policy.Settings{Policy: policy.Default()}, nil)
		s.SetEndpoints([]balancer.Spec{{Address: authority}})
		return s
	}, gone), made
}

func TestAnAuthorityBecomesAServiceOnce(t *testing.T) {
	d, made := newTestDialled(8, func([]*balancer.Endpoint) {})
	first, _ := d.service("greeter:50051")
	second, _ := d.service("greeter:50051")
	if first == nil || first != second || len(*made) != 1 {
		t.Fatalf("got %p and %p, made %v", first, second, *made)
	}
	if e := first.Endpoints().All(); len(e) != 1 || e[0].Address() != "greeter:50051" {
		t.Errorf("endpoints %v", e)
	}
	if s, err := d.service("no port"); s != nil || err == nil || len(*made) != 1 {
		t.Errorf("an authority that is none became %v", s)
	}
}

func TestTheServiceUnusedForLongestMakesRoom(t *testing.T) {
	var gone []string
	d, _ := newTestDialled(2, func(endpoints []*balancer.Endpoint) {
		for _, e := range endpoints {
			gone = append(gone, e.Address())
		}
	})
	_, _ = d.service("a:1")
	_, _ = d.service("b:1")
	_, _ = d.service("a:1") // b is now the one unused for longest
	_, _ = d.service("c:1")
	if len(gone) != 1 || gone[0] != "b:1" {
		t.Errorf("gone: %v, want b:1", gone)
	}
	if n := len(d.all()); n != 2 {
		t.Errorf("%d services are left, want 2", n)
	}
	d.clear()
	if len(gone) != 3 {
		t.Errorf("gone after clear: %v", gone)
	}
}

func BenchmarkDialledService(b *testing.B) { // budget: 60 ns, 0 allocs
	d, _ := newTestDialled(8, func([]*balancer.Endpoint) {})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.service("greeter:50051")
	}
}
