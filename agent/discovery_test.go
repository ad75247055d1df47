package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// discovering is a configuration whose service, echo, finds its endpoints.
func discovering(endpoints string) string {
	return fmt.Sprintf("%sservices:\n  - name: echo\n    endpoints: %s\n", ports, endpoints)
}

func (r *running) rewrite(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) endpointService() outriggerv1.EndpointServiceClient {
	return outriggerv1.NewEndpointServiceClient(dial(r.t, r.Addresses().API))
}

func (r *running) discovery() *outriggerv1.DiscoveryStatus {
	r.t.Helper()
	answer, err := outriggerv1.NewAgentServiceClient(dial(r.t, r.Addresses().API)).GetStatus(context.Background(), &outriggerv1.GetStatusRequest{Service: "echo"})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetStatus().GetServices()[0].GetDiscovery()
}

// oneName is a DNS server that knows one SRV record, and changes its mind.
type oneName struct {
	address string
	port    atomic.Int32 // that the record leads to, on 127.0.0.1
	rcode   atomic.Int32
}

func startDNS(t *testing.T) *oneName {
	t.Helper()
	p, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &oneName{address: p.LocalAddr().String()}
	server := &dns.Server{PacketConn: p, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetRcode(q, int(n.rcode.Load()))
		if m.Rcode == dns.RcodeSuccess && q.Question[0].Qtype == dns.TypeSRV {
			name := q.Question[0].Name
			srv, _ := dns.NewRR(fmt.Sprintf("%s 0 SRV 0 1 %d local.test.", name, n.port.Load()))
			a, _ := dns.NewRR("local.test. 0 A 127.0.0.1")
			m.Answer, m.Extra = []dns.RR{srv}, []dns.RR{a}
		}
		_ = w.WriteMsg(m)
	})}
	started, done := make(chan struct{}), make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() { defer close(done); _ = server.ActivateAndServe() }()
	<-started
	t.Cleanup(func() { _ = server.Shutdown(); <-done })
	return n
}

func (n *oneName) leadTo(t *testing.T, u *upstream) {
	t.Helper()
	var port int32
	if _, err := fmt.Sscanf(u.address, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	n.port.Store(port)
}

func TestCallsFollowDNS(t *testing.T) {
	first, second, names := startUpstream(t), startUpstream(t), startDNS(t)
	names.leadTo(t, first)
	r := startAgent(t, discovering(fmt.Sprintf("{dns: {srv: _grpc._tcp.echo.test, refresh: 200ms, servers: [%q]}}", names.address)))
	app := r.app()
	eventually(t, "a call to the first", func() bool { return call(app) == nil && first.calls.Load() > 0 })

	// The record moves and the old endpoint goes: no call fails for longer than
	// it takes to ask again.
	names.leadTo(t, second)
	first.server.Stop()
	eventually(t, "a call to the second", func() bool { return call(app) == nil && second.calls.Load() > 0 })

	// The server fails: calls go on, and everybody is told.
	names.rcode.Store(dns.RcodeServerFailure)
	eventually(t, "staleness on the status", func() bool { return r.discovery().GetStale() })
	if err := call(app); err != nil {
		t.Errorf("stale: %v", err)
	}
	if d := r.discovery(); d.GetSource() != "dns srv _grpc._tcp.echo.test" || d.GetAge() == nil || !strings.Contains(d.GetProblem(), "SERVFAIL") {
		t.Errorf("%v", d)
	}
	if ready := r.get("/readyz?verbose"); !strings.Contains(ready, "endpoints of echo") || !strings.Contains(ready, "the last good set of 1 endpoint is") {
		t.Errorf("%s", ready)
	}
	if metrics := r.get("/metrics"); !strings.Contains(metrics, `outrigger_discovery_stale{outrigger_service="echo"} 1`) || !strings.Contains(metrics, `outrigger_discovery_endpoints{outrigger_service="echo"} 1`) {
		t.Errorf("no metric of it")
	}
	names.rcode.Store(dns.RcodeSuccess)
	eventually(t, "recovery", func() bool { return !r.discovery().GetStale() })
}

func TestAServiceWhoseSourceHasNotAnsweredSaysSo(t *testing.T) {
	names := startDNS(t)
	names.rcode.Store(dns.RcodeRefused)
	r := startAgent(t, discovering(fmt.Sprintf("{dns: {host: echo.test, port: 1, servers: [%q]}}", names.address)))

	err := call(r.app())

	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "service echo has no endpoints: its source (dns echo.test:1) has not answered yet") {
		t.Fatalf("%v", err)
	}
	eventually(t, "the reason", func() bool { return strings.Contains(call(r.app()).Error(), "REFUSED") })
}

func TestAnotherSourceTakesOverOnceItHasAnswered(t *testing.T) {
	first, second, names := startUpstream(t), startUpstream(t), startDNS(t)
	r := startAgent(t, configOf("", first))
	app := r.app()
	if err := call(app); err != nil {
		t.Fatal(err)
	}

	names.rcode.Store(dns.RcodeServerFailure)
	names.leadTo(t, second)
	r.rewrite(discovering(fmt.Sprintf("{dns: {srv: _grpc._tcp.echo.test, refresh: 100ms, servers: [%q]}}", names.address)))
	eventually(t, "the new source fails", func() bool { return strings.Contains(r.discovery().GetProblem(), "SERVFAIL") })
	if err := call(app); err != nil {
		t.Errorf("before the new source answered: %v", err)
	}
	names.rcode.Store(dns.RcodeSuccess)
	eventually(t, "the new source's endpoint", func() bool { return call(app) == nil && second.calls.Load() > 0 })
}

func TestCallsFollowAFile(t *testing.T) {
	first, second := startUpstream(t), startUpstream(t)
	path := filepath.Join(t.TempDir(), "endpoints.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(fmt.Sprintf("- address: %s\n", first.address))
	r := startAgent(t, discovering(fmt.Sprintf("{file: {path: %q}}", path)))
	app := r.app()
	eventually(t, "a call to the first", func() bool { return call(app) == nil })

	write(fmt.Sprintf("- address: %s\n- addr", first.address)) // half written
	eventually(t, "the mistake's place", func() bool {
		ready := r.get("/readyz?verbose")
		return strings.Contains(ready, path+":") && strings.Contains(ready, "the last good set")
	})
	if err := call(app); err != nil {
		t.Errorf("half written: %v", err)
	}
	write(fmt.Sprintf("[{\"address\": %q}]", second.address)) // JSON
	eventually(t, "a call to the second", func() bool { return call(app) == nil && second.calls.Load() > 0 })
}

func TestEndpointsRegisterThemselves(t *testing.T) {
	first, second := startUpstream(t), startUpstream(t)
	r := startAgent(t, discovering("{registered: {max_lease: 1s}}"))
	app, service := r.app(), r.endpointService()
	if err := call(app); !strings.Contains(err.Error(), "no endpoint is registered") && !strings.Contains(err.Error(), "has not answered yet") {
		t.Errorf("%v", err)
	}
	lease, err := service.RegisterEndpoint(context.Background(), &outriggerv1.RegisterEndpointRequest{
		Service: "echo", Endpoint: &outriggerv1.Registration{Address: first.address}, Lease: durationpb.New(time.Minute)})
	if err != nil || lease.GetLease().AsDuration() != time.Second {
		t.Fatal(lease, err)
	}
	eventually(t, "a call to the first", func() bool { return call(app) == nil })

	// A stream's registration stays without a word, the lease lapses.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := service.RegisterEndpoints(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&outriggerv1.RegisterEndpointsRequest{Service: "echo", Endpoints: []*outriggerv1.Registration{{Address: second.address}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "only the second is left", func() bool {
		list, err := service.ListEndpoints(context.Background(), &outriggerv1.ListEndpointsRequest{Service: "echo"})
		return err == nil && len(list.GetEndpoints()) == 1 && list.GetEndpoints()[0].GetAddress() == second.address
	})
	if _, err := service.RenewEndpoint(context.Background(), &outriggerv1.RenewEndpointRequest{LeaseId: lease.GetLeaseId()}); status.Code(err) != codes.NotFound {
		t.Errorf("renewed what lapsed: %v", err)
	}
	if err := call(app); err != nil {
		t.Error(err)
	}
	for address, want := range map[string]codes.Code{"nowhere": codes.InvalidArgument, r.Addresses().Egress: codes.InvalidArgument} {
		_, err := service.RegisterEndpoint(context.Background(), &outriggerv1.RegisterEndpointRequest{Service: "echo", Endpoint: &outriggerv1.Registration{Address: address}})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
	// Registrations outlive a reload; without the source there are none.
	r.rewrite(discovering("{registered: {max_lease: 2s}}"))
	if err := call(app); err != nil {
		t.Error(err)
	}
	r.rewrite(configOf("", first))
	_, err = service.RegisterEndpoint(context.Background(), &outriggerv1.RegisterEndpointRequest{Service: "echo", Endpoint: &outriggerv1.Registration{Address: first.address}})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%v", err)
	}
}

func TestAnEndpointThatWantsNoCallsDrains(t *testing.T) {
	first, second := startUpstream(t), startUpstream(t)
	r := startAgent(t, discovering("{registered: {}}"))
	app, service := r.app(), r.endpointService()
	for _, e := range []*outriggerv1.Registration{{Address: first.address, Terminating: true}, {Address: second.address}} {
		if _, err := service.RegisterEndpoint(context.Background(), &outriggerv1.RegisterEndpointRequest{Service: "echo", Endpoint: e}); err != nil {
			t.Fatal(err)
		}
	}
	draining := func() bool {
		list, err := service.ListEndpoints(context.Background(), &outriggerv1.ListEndpointsRequest{Service: "echo"})
		if err != nil || len(list.GetEndpoints()) != 2 {
			return false
		}
		n := 0
		for _, e := range list.GetEndpoints() {
			if e.GetState() == outriggerv1.Endpoint_DRAINING && e.GetAddress() == first.address && strings.Contains(e.GetReason(), "discovery") {
				n++
			}
		}
		return n == 1
	}
	eventually(t, "one of two drains", draining)
	before := first.calls.Load()
	for range 20 {
		if err := call(app); err != nil {
			t.Fatal(err)
		}
	}
	if n := first.calls.Load() - before; n != 0 {
		t.Errorf("%d calls went to it", n)
	}
}
