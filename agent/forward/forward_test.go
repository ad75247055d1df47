package forward

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// plaintext connects without TLS.
type plaintext struct{}

func (plaintext) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}

func (plaintext) TLS(string, ...string) (*tls.Config, error) { return nil, nil }

// web is an endpoint that counts what it is asked. Its handler may change.
type web struct {
	*httptest.Server
	address     string
	calls       atomic.Int64
	connections atomic.Int64
	gone        atomic.Int64 // requests whose client went away before the answer

	mu     sync.Mutex
	bodies []string
}

// startWeb answers with what answer does; nil: 200 and the endpoint's address.
func startWeb(t *testing.T, answer http.HandlerFunc) *web {
	t.Helper()
	u := &web{}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.calls.Add(1)
		body, err := io.ReadAll(r.Body)
		if err == nil {
			u.mu.Lock()
			u.bodies = append(u.bodies, string(body))
			u.mu.Unlock()
		}
		if answer == nil {
			io.WriteString(w, u.address)
			return
		}
		answer(w, r)
	}))
	u.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			u.connections.Add(1)
		}
	}
	u.Start()
	u.address = u.Listener.Addr().String()
	t.Cleanup(u.Close)
	return u
}

func (u *web) lastBody() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.bodies) == 0 {
		return ""
	}
	return u.bodies[len(u.bodies)-1]
}

// status answers with a status alone.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// hang answers only once the client is gone.
func (u *web) hang(_ http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	u.gone.Add(1)
}

// sidecar is a server under test with one service.
type sidecar struct {
	*Server
	t       *testing.T
	service *policy.Service
	address string
	client  *http.Client

	mu      sync.Mutex
	records []policy.Record
}

// CallEnded implements policy.Observer.
func (s *sidecar) CallEnded(r *policy.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, *r)
}

func (s *sidecar) lastRecord() policy.Record {
	s.t.Helper()
	eventually(s.t, "a record", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.records) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records[len(s.records)-1]
}

// start serves one service with the policy in front of endpoints, which are
// picked in turn where the policy says nothing else.
func start(t *testing.T, p policy.Policy, o Options, endpoints ...string) *sidecar {
	t.Helper()
	if p.LoadBalancing == (balancer.Options{}) {
		p.LoadBalancing.Policy = balancer.RoundRobin
	}
	s := &sidecar{t: t, service: policy.NewService("web", policy.Settings{Policy: p}, nil)}
	var specs []balancer.Spec
	for _, e := range endpoints {
		specs = append(specs, balancer.Spec{Address: e})
	}
	s.service.SetEndpoints(specs)
	o.Origin, o.Observer, o.ConnectTimeout, o.HeaderTimeout, o.HeaderBytes = time.Now().Add(-time.Hour), s, 5*time.Second, 5*time.Second, 64<<10
	o.Logger = slog.New(slog.DiscardHandler)
	o.Route = func(Query) (Target, string) { return Target{Service: s.service, Transport: plaintext{}}, "" }
	s.Server = New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.HTTP1(nc, "")
		}
	}()
	transport := &http.Transport{}
	s.client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		l.Close()
		<-accepted
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if n := s.replayed.Load(); n != 0 {
			t.Errorf("%d bytes of bodies are kept after all is over", n)
		}
	})
	return s
}

// answer is what a caller got.
type answer struct {
	code int
	body string
	http.Header
}

// ask makes a request. headers are names and values in turn.
func (s *sidecar) ask(method, body string, headers ...string) answer {
	s.t.Helper()
	a, err := s.try(context.Background(), method, body, headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *sidecar) try(ctx context.Context, method, body string, headers ...string) (answer, error) {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://"+s.address+"/path", reader)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Outrigger-Explain", "true")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, string(text), res.Header}, err
}

// attempts is what outrigger-explain says.
func (a answer) attempts() string { return a.Get("Outrigger-Attempts") }

// reason is that of a refusal, from its body and its header, which agree.
func (a answer) reason(t *testing.T) string {
	t.Helper()
	var p struct {
		Status                   int
		Reason, Service, Domain  string
		Policy, Detail, Endpoint string
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatalf("%d %q is no refusal: %v", a.code, a.body, err)
	}
	if p.Status != a.code || p.Domain != policy.Domain || p.Reason != a.Get("Outrigger-Reason") || a.Get("Content-Type") != policy.ProblemType {
		t.Errorf("the refusal does not agree with itself: %d %v %s", a.code, a.Header, a.body)
	}
	return p.Reason
}

func actions(s *policy.Service) map[string]uint64 {
	m := make(map[string]uint64)
	for _, c := range s.Actions() {
		m[c.Label] = c.Total
	}
	return m
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited 5 s in vain: %s", what)
}

func TestARequestWithoutPoliciesIsOneAttempt(t *testing.T) {
	up := startWeb(t, nil)
	s := start(t, policy.Policy{}, Options{}, up.address)

	a := s.ask("POST", "body")

	if a.code != 200 || a.body != up.address || a.attempts() != "1" || a.Get("Outrigger-Endpoint") != up.address {
		t.Errorf("got %+v", a)
	}
	if r := s.lastRecord(); r.Code != policy.OK || r.Attempts != 1 || r.RequestBytes != 4 || r.ResponseBytes != uint64(len(up.address)) || r.Endpoint != up.address {
		t.Errorf("recorded %+v", r)
	}
}
