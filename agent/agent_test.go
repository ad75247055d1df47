package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/agent/telemetry/telemetrytest"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is a gRPC server with one method, /test.Echo/Call.
type upstream struct {
	address  string
	listener net.Listener
	server   *grpc.Server
	calls    atomic.Int64
	fail     atomic.Bool  // UNAVAILABLE from now on
	takes    atomic.Int64 // nanoseconds a call
}

func startUpstream(t *testing.T) *upstream {
	t.Helper()
	u := newUpstream(t)
	u.serve(t)
	return u
}

// newUpstream listens and does not serve yet, so that it can get more services.
func newUpstream(t *testing.T) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{address: l.Addr().String(), listener: l}
	u.build()
	return u
}

func (u *upstream) build() {
	u.server = grpc.NewServer()
	u.server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Call", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			u.calls.Add(1)
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if u.fail.Load() {
				return nil, status.Error(codes.Unavailable, "out of order")
			}
			time.Sleep(time.Duration(u.takes.Load()))
			return in, nil
		},
	}}}, nil)
}

func (u *upstream) serve(t *testing.T) {
	done := make(chan struct{})
	go func() { defer close(done); _ = u.server.Serve(u.listener) }()
	t.Cleanup(func() { u.server.Stop(); <-done })
}

// running is an agent under test with its configuration file.
type running struct {
	*Agent
	t    *testing.T
	path string
	log  *lockedBuffer
	stop context.CancelFunc
	done chan error
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

const ports = "egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n"

// config is a configuration of one service, echo, with a policy.
func configOf(policy string, upstreams ...*upstream) string {
	var endpoints []string
	for _, u := range upstreams {
		endpoints = append(endpoints, fmt.Sprintf("{address: %q}", u.address))
	}
	return fmt.Sprintf("%sservices:\n  - name: echo\n    endpoints: {static: [%s]}\n    policy: {%s}\n", ports, strings.Join(endpoints, ", "), policy)
}

func startAgent(t *testing.T, text string) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outrigger.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &lockedBuffer{}
	a, err := New(Options{ConfigPath: path, Version: "test", Logger: slog.New(slog.NewTextHandler(log, nil)), DrainTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Agent: a, t: t, path: path, log: log, stop: stop, done: make(chan error, 1)}
	go func() { r.done <- a.Run(ctx) }()
	select {
	case <-a.Ready():
	case err := <-r.done:
		t.Fatalf("the agent ended: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the agent is not ready")
	}
	t.Cleanup(r.end)
	return r
}

// end stops the agent, once.
func (r *running) end() {
	r.stop()
	if r.done == nil {
		return
	}
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
	r.done = nil
}

func dial(t *testing.T, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

// app is a client of the echo service through the agent.
func (r *running) app() *grpc.ClientConn {
	return dial(r.t, r.Addresses().Egress, grpc.WithAuthority("echo"))
}

func call(cc *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return cc.Invoke(ctx, "/test.Echo/Call", wrapperspb.String("x"), new(wrapperspb.StringValue))
}

func (r *running) get(path string) string {
	r.t.Helper()
	response, err := http.Get("http://" + r.Addresses().Admin + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer response.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 500 {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited 5 s in vain: %s", what)
}

// TestABreakerIsSeenEverywhereAlike: opened, explained, probed and closed
// again, the same over the caller's error, API, metric, span and log.
func TestABreakerIsSeenEverywhereAlike(t *testing.T) {
	up := startUpstream(t)
	collector := telemetrytest.Start(t)
	r := startAgent(t, configOf("circuit_breaker: {consecutive_failures: 5, open_for: 300ms}", up)+
		fmt.Sprintf("telemetry: {otlp: {endpoint: %q}, traces: {sample_ratio: 1}}\n", collector.Endpoint))
	app := r.app()
	breakers := outriggerv1.NewBreakerServiceClient(dial(t, r.Addresses().API))
	state := func() *outriggerv1.Breaker {
		response, err := breakers.GetBreaker(context.Background(), &outriggerv1.GetBreakerRequest{Name: "echo"})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetBreaker()
	}
	up.fail.Store(true)
	for range 5 {
		_ = call(app) // UNAVAILABLE from the upstream
	}

	err := call(app)

	if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.Contains(s.Message(), "circuit breaker of echo is OPEN: 5 failures in a row") || len(s.Details()) != 2 {
		t.Errorf("the caller sees %v with %d details", err, len(s.Details()))
	}
	if n := up.calls.Load(); n != 5 {
		t.Errorf("the upstream saw %d calls, want 5", n)
	}
	if b := state(); b.GetState() != outriggerv1.Breaker_OPEN || b.GetReason() != "5 failures in a row" || b.GetOpenUntil() == nil {
		t.Errorf("the API shows %v", b)
	}
	for _, line := range []string{
		`outrigger_breaker_state{outrigger_mode="ENFORCE",outrigger_service="echo",outrigger_state="OPEN"`,
		`outrigger_refusals_total{outrigger_reason="BREAKER_OPEN",outrigger_service="echo"`,
		`outrigger_breaker_transitions_total{outrigger_from="CLOSED",outrigger_service="echo",outrigger_to="OPEN"`,
	} {
		if text := r.get("/metrics"); !strings.Contains(text, line) {
			t.Errorf("/metrics lacks %s\n%s", line, text)
		}
	}
	if text := r.log.String(); !strings.Contains(text, `to=OPEN reason="5 failures in a row"`) {
		t.Errorf("the log says\n%s", text)
	}
	up.fail.Store(false)
	eventually(t, "the probe closes the breaker", func() bool { return call(app) == nil })
	if b := state(); b.GetState() != outriggerv1.Breaker_CLOSED {
		t.Errorf("after the probe: %v", b)
	}
	r.end() // spans are flushed
	if spans := fmt.Sprint(collector.Spans(t, 7)); !strings.Contains(spans, "BREAKER_OPEN") {
		t.Errorf("no span tells of the refusal")
	}
}

func TestReloadsUnderLoadLoseNoCallAndKeepTheState(t *testing.T) {
	a, b := startUpstream(t), startUpstream(t)
	r := startAgent(t, configOf("timeout: 3s", a))
	app := r.app()
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	var calls, failed atomic.Int64
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				calls.Add(1)
				if err := call(app); err != nil {
					failed.Add(1)
					t.Errorf("a call failed: %v", err)
					return
				}
			}
		})
	}

	for i := range 100 {
		text := configOf("timeout: 3s", a)
		if i%2 == 0 {
			text = configOf(fmt.Sprintf("timeout: %ds", 3+i), a, b)
		}
		if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := r.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	load.Wait()

	if failed.Load() > 0 || calls.Load() < 100 {
		t.Fatalf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	services := r.registry.all()
	if n := services[0].Recorder().Lifetime().Calls; n != uint64(calls.Load()) {
		t.Fatalf("the service remembers %d of %d calls", n, calls.Load())
	}
	t.Logf("%d calls during 100 reloads", calls.Load())
}

func TestAReloadThatFailsChangesNothing(t *testing.T) {
	up := startUpstream(t)
	r := startAgent(t, configOf("timeout: 3s", up))
	app := r.app()
	if err := os.WriteFile(r.path, []byte(configOf("timeout: soon", up)), 0o600); err != nil {
		t.Fatal(err)
	}

	eventually(t, "the watch sees the file", func() bool { return strings.Contains(r.log.String(), "reload failed") })

	if err := call(app); err != nil {
		t.Errorf("a call: %v", err)
	}
	if text := r.get("/readyz?verbose"); !strings.Contains(text, `"soon" is no duration`) {
		t.Errorf("/readyz?verbose says\n%s", text)
	}
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), ":7:23:") {
		t.Errorf("Reload: %v", err)
	}
}

func TestListenersCantChangeWhileItRuns(t *testing.T) {
	up := startUpstream(t)
	r := startAgent(t, configOf("timeout: 3s", up))
	text := strings.Replace(configOf("timeout: 3s", up), `egress: {address: "127.0.0.1:0"}`, `egress: {address: "127.0.0.1:1234"}`, 1)
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Fatalf("got %v", err)
	}
}

func TestBuiltInDefaultsDialTheAuthority(t *testing.T) {
	up := startUpstream(t)
	r := startAgent(t, ports+"unmatched: {mode: DIAL}\n")

	if err := call(dial(t, r.Addresses().Egress, grpc.WithAuthority(up.address))); err != nil {
		t.Fatalf("dialled: %v", err)
	}
	for about, authority := range map[string]string{"the agent itself": r.Addresses().API, "no port": "nowhere"} {
		if err := call(dial(t, r.Addresses().Egress, grpc.WithAuthority(authority))); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v, want NO_ROUTE", about, err)
		}
	}
}

func TestADeadUpstreamFailsOnlyWhatWasOnIt(t *testing.T) {
	ups := []*upstream{startUpstream(t), startUpstream(t), startUpstream(t)}
	r := startAgent(t, configOf("timeout: 3s", ups...))
	app := r.app()
	var load sync.WaitGroup
	var calls, lost, other atomic.Int64
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	for range 8 {
		load.Go(func() {
			for ctx.Err() == nil {
				calls.Add(1)
				switch err := call(app); {
				case err == nil:
				case strings.Contains(err.Error(), "was lost in mid-call") && strings.Contains(err.Error(), ups[0].address):
					lost.Add(1)
				default:
					other.Add(1)
					t.Errorf("not in flight on the dead one: %v", err)
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)

	ups[0].server.Stop()
	time.Sleep(500 * time.Millisecond)

	cancel()
	load.Wait()
	t.Logf("%d calls, %.0f a second, %d lost with the dead upstream", calls.Load(), float64(calls.Load())/time.Since(began).Seconds(), lost.Load())
	if lost.Load() > 8 {
		t.Errorf("%d calls were lost, at most 8 were in flight", lost.Load())
	}
	endpoints, err := outriggerv1.NewEndpointServiceClient(dial(t, r.Addresses().API)).ListEndpoints(context.Background(), &outriggerv1.ListEndpointsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range endpoints.GetEndpoints() {
		if e.GetAddress() == ups[0].address && (e.GetState() != outriggerv1.Endpoint_CONNECTING || !strings.Contains(e.GetReason(), "refused")) {
			t.Errorf("the dead endpoint: %v", e)
		}
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "c.yaml")
	text := strings.Replace(ports, `egress: {address: "127.0.0.1:0"}`, fmt.Sprintf("egress: {address: %q}", l.Addr()), 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := New(Options{ConfigPath: path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}

	err = a.Run(context.Background())

	if err == nil || !strings.Contains(err.Error(), "egress.address") || !strings.Contains(err.Error(), "taken") {
		t.Fatalf("got %v", err)
	}
}

func TestDefaultsHaveNoFileToReload(t *testing.T) {
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); !errors.Is(err, errNoFile) {
		t.Fatalf("got %v", err)
	}
}
