package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

var update = flag.Bool("update", false, "write testdata/broken/*.want anew; read them before you commit")

// TestBrokenFiles: each file of testdata/broken is refused with exactly the
// text of the .want file beside it.
func TestBrokenFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(paths) < 160 {
		t.Fatalf("%d files, %v; want at least 160", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(path), data)
			var broken *Error
			if !errors.As(err, &broken) {
				t.Fatalf("got %v, want an *Error", err)
			}
			got, golden := broken.Error()+"\n", strings.TrimSuffix(path, ".yaml")+".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil || got != string(want) {
				t.Fatalf("got\n%swant\n%s(%v)", got, want, err)
			}
		})
	}
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("c.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const oneService = `
services:
  - name: greeter
    endpoints: {static: [{address: "127.0.0.1:50051"}, {address: "unix:/run/b.sock", weight: 3, zone: b}]}
`

func TestAnEmptyFileHasTheDocumentedDefaults(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "{}\n"} {
		c := parse(t, text)
		if c.Egress != DefaultEgress || c.API != DefaultAPI || c.Admin != DefaultAdmin || c.Unmatched.Dial || len(c.Services) != 0 ||
			!c.Telemetry.Prometheus || c.Telemetry.SampleRatio != 0.1 || c.Telemetry.AccessLog != LogErrors {
			t.Errorf("%q: got %+v", text, c)
		}
	}
}

func TestAServiceThatSaysNothing(t *testing.T) {
	s := parse(t, oneService).Services[0]

	if s.Name != "greeter" || len(s.Authorities) != 1 || s.Authorities[0] != "greeter" || len(s.Methods) != 0 {
		t.Errorf("matched by %+v", s)
	}
	want := []balancer.Spec{{Address: "127.0.0.1:50051", Weight: 1}, {Address: "unix:/run/b.sock", Weight: 3, Zone: "b"}}
	if len(s.Endpoints) != 2 || s.Endpoints[0] != want[0] || s.Endpoints[1] != want[1] {
		t.Errorf("endpoints %+v", s.Endpoints)
	}
	p := s.Policy
	if p.Timeout != 0 || p.Outlier != policy.Default().Outlier || !p.Outlier.ObserveOnly || p.LoadBalancing != policy.Default().LoadBalancing || p.Breaker != policy.Default().Breaker || p.Breaker.Options.Mode != breaker.Observe ||
		p.SLA.Availability != 99.9 || p.SLA.SuccessRate != 99.5 || p.SLA.Latency[0].Target != 200*time.Millisecond || p.SLA.Window != 30*24*time.Hour {
		t.Errorf("policy %+v", p)
	}
}

// TestPoliciesAreInheritedFieldByField: what the defaults, the service and the
// method write, and what the method's calls are under.
func TestPoliciesAreInheritedFieldByField(t *testing.T) {
	for _, test := range []struct {
		name, defaults, service, method string
		want                            func(policy.Policy) any
		is                              any
	}{
		{"from the defaults", "timeout: 3s", "", "", func(p policy.Policy) any { return p.Timeout }, 3 * time.Second},
		{"from the service", "timeout: 3s", "timeout: 2s", "", func(p policy.Policy) any { return p.Timeout }, 2 * time.Second},
		{"of the method", "timeout: 3s", "timeout: 2s", "timeout: 1s", func(p policy.Policy) any { return p.Timeout }, time.Second},
		{"zero is a value", "timeout: 3s", "", "timeout: 0s", func(p policy.Policy) any { return p.Timeout }, time.Duration(0)},
		{"null is none", "timeout: 3s", "timeout: null", "timeout: ~", func(p policy.Policy) any { return p.Timeout }, 3 * time.Second},
		{"beside another field", "timeout: 3s", "per_try_timeout: 1s", "", func(p policy.Policy) any { return p.Timeout }, 3 * time.Second},
		{"inside a block", "stream: {idle_timeout: 5m}", "stream: {max_duration: 1h}", "", func(p policy.Policy) any { return p.Stream }, policy.StreamLimits{IdleTimeout: 5 * time.Minute, MaxDuration: time.Hour}},
		{"inside a block of a block", "circuit_breaker: {failure_rate: {threshold: 0.3}}", "circuit_breaker: {failure_rate: {minimum_calls: 7}}", "", func(p policy.Policy) any { return p.Breaker.Options.FailureRate }, 0.3},
		{"slower_than too", "circuit_breaker: {slow_calls: {slower_than: 1s}}", "circuit_breaker: {slow_calls: {threshold: 0.5}}", "", func(p policy.Policy) any { return p.Breaker.Options.SlowerThan }, time.Second},
		{"a mode", "circuit_breaker: {mode: OBSERVE}", "circuit_breaker: {open_for: 9s}", "", func(p policy.Policy) any { return p.Breaker.Options.Mode }, breaker.Observe},
		{"a mode that is taken back", "circuit_breaker: {mode: OBSERVE}", "", "circuit_breaker: {mode: ENFORCE}", func(p policy.Policy) any { return p.Breaker.Options.Mode }, breaker.Enforce},
		{"consecutive failures written above", "circuit_breaker: {consecutive_failures: 7}", "circuit_breaker: {failure_rate: {}}", "", func(p policy.Policy) any { return p.Breaker.Options.ConsecutiveFailures }, 7},
		{"a scope", "circuit_breaker: {scope: ENDPOINT}", "circuit_breaker: {}", "", func(p policy.Policy) any { return p.Breaker.Scope }, policy.ScopeEndpoint},
		{"the endpoint's choice", "load_balancing: {policy: RANDOM}", "load_balancing: {}", "", func(p policy.Policy) any { return p.LoadBalancing.Policy }, balancer.Random},
		{"half of the promise", "sla: {availability: 99}", "sla: {success_rate: 98}", "", func(p policy.Policy) any { return [2]float64{p.SLA.Availability, p.SLA.SuccessRate} }, [2]float64{99, 98}},
		{"lists are replaced", "sla: {latency: [{quantile: 0.5, target: 1s}, {quantile: 0.9, target: 2s}]}", "sla: {latency: [{quantile: 0.99, target: 3s}]}", "", func(p policy.Policy) any { return len(p.SLA.Latency) }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := parse(t, "defaults: {"+test.defaults+"}"+oneService+"    policy: {"+test.service+"}\n    methods: [{method: /a.B/C, policy: {"+test.method+"}}]\n")

			if got := test.want(c.Services[0].MethodPolicies["/a.B/C"]); got != test.is {
				t.Errorf("got %v, want %v", got, test.is)
			}
		})
	}
}

func TestDialledAuthoritiesAreUnderTheDefaults(t *testing.T) {
	c := parse(t, "defaults: {timeout: 3s}\nunmatched: {mode: DIAL}\n")
	if !c.Unmatched.Dial || c.Unmatched.Policy.Timeout != 3*time.Second {
		t.Errorf("got %+v", c.Unmatched)
	}
}

func TestACircuitBreakerBlockTakesTheReferenceFiguresAndEnforces(t *testing.T) {
	for text, want := range map[string]breaker.Options{
		"{}":                                   breaker.Reference(),
		"{half_open_probes: 3}":                {ConsecutiveFailures: 5, OpenFor: 30 * time.Second, MaxOpenFor: 5 * time.Minute, Jitter: 0.1, HalfOpenProbes: 3},
		"{failure_rate: {}}":                   {FailureRate: 0.5, MinimumCalls: 20, Window: 10 * time.Second, OpenFor: 30 * time.Second, MaxOpenFor: 5 * time.Minute, Jitter: 0.1, HalfOpenProbes: 1},
		"{slow_calls: {slower_than: 1s}}":      {SlowRate: 0.8, SlowerThan: time.Second, MinimumCalls: 20, Window: 10 * time.Second, OpenFor: 30 * time.Second, MaxOpenFor: 5 * time.Minute, Jitter: 0.1, HalfOpenProbes: 1},
		"{open_for: 10m}":                      {ConsecutiveFailures: 5, OpenFor: 10 * time.Minute, MaxOpenFor: 10 * time.Minute, Jitter: 0.1, HalfOpenProbes: 1},
		"{consecutive_failures: 3, mode: OFF}": {ConsecutiveFailures: 3, OpenFor: 30 * time.Second, MaxOpenFor: 5 * time.Minute, Jitter: 0.1, HalfOpenProbes: 1, Mode: breaker.Off},
	} {
		got := parse(t, oneService+"    policy: {circuit_breaker: "+text+"}\n").Services[0].Policy.Breaker.Options
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

// TestAccepted are texts that look odd and are right.
func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"what asks for nothing": oneService + `    policy:
      retry: {max_attempts: 1}
      idempotent: false
      hedge: {delay: 50ms, mode: OFF}
      client_throttle: {mode: OFF}
      fallback: {mode: OFF}
      cache: {mode: OFF}
      concurrency: {max_in_flight: 0}
      rate_limit: {per_second: 0, burst: 0}
      health_check: {mode: "OFF"}
      outlier_detection: {mode: OFF}
      defer: {mode: "OFF"}
      load_balancing: {slow_start: 0s, zone_aware: false, subset: 0}
      hash_on: {}
state: {dir: ""}
`,
		"codes that blame the caller":    oneService + "    policy: {retry: {codes: [INVALID_ARGUMENT, NOT_FOUND]}}\n",
		"days":                           oneService + "    policy: {stream: {max_duration: 1d12h}, sla: {window: 7d}}\n",
		"blocks without fields":          "egress: {}\napi:\ntelemetry: {otlp: {}, traces: {}, access_log: {}}\nunmatched: {}\n" + oneService + "    match: {}\n    policy:\n",
		"windows line ends":              "egress: {}\r\napi: {}\r\n",
		"a byte order mark":              "\ufeffapi: {}\n",
		"an anchor that nothing follows": "defaults: &all {timeout: 3s}\n",
		"free ports":                     "egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n",
		"one port on two addresses":      "egress: {address: \"127.0.0.1:80\"}\napi: {address: \"127.0.0.2:80\"}\nadmin: {address: \"[::1]:80\"}\n",
		"thresholds of a breaker off":    oneService + "    policy: {circuit_breaker: {consecutive_failures: 0, mode: OFF}}\n",
		"one authority, two prefixes": `services:
  - {name: a, match: {authorities: [x], methods: [/a.A/]}, endpoints: {static: [{address: "h:1"}]}}
  - {name: b, match: {authorities: [x], methods: [/a.A/B]}, endpoints: {static: [{address: "h:1"}]}}
`,
		"an override for a prefix above": `services:
  - {name: a, match: {methods: [/a.A/B]}, endpoints: {static: [{address: "h:1"}]}, methods: [{method: /a.A/, policy: {}}]}
`,
	} {
		t.Run(name, func(t *testing.T) { parse(t, text) })
	}
}

func TestAFileFullOfMistakesIsToldInPart(t *testing.T) {
	_, err := Parse("c.yaml", []byte(strings.Repeat("nonsense: 1\n", 1000)))

	var broken *Error
	if !errors.As(err, &broken) || len(broken.Issues) != maxIssues+1 || broken.Issues[maxIssues].Message != "and 900 more issues, not told here" {
		t.Fatalf("got %v", err)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"200ms": 200 * time.Millisecond, "1m30s": 90 * time.Second, "0s": 0, "0": 0, "30d": 30 * day, "1d12h": 36 * time.Hour, "-1s": -time.Second, "1.5h": 90 * time.Minute,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "3", "3 s", "d", "1.5d", "-1d", "1d-1h", "1d+1h", "1h1d", "1d1d", "65536d", "9000000h", "soon", "1dd"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func TestMeant(t *testing.T) {
	fields := []string{"timeout", "per_try_timeout", "stream"}
	for written, want := range map[string]string{
		"timeot": "did you mean timeout?", "perTryTimeout": "did you mean per_try_timeout?", "per-try-timeout": "did you mean per_try_timeout?",
		"Stream": "did you mean stream?", "retries": "want timeout, per_try_timeout or stream", "": "want timeout, per_try_timeout or stream",
	} {
		if got := meant(written, fields); got != want {
			t.Errorf("%q: got %q, want %q", written, got, want)
		}
	}
}

func TestTheReferenceConfigurationIsAccepted(t *testing.T) {
	if _, err := Load("../../examples/reference.yaml"); err != nil {
		t.Fatal(err)
	}
}

// TestTheReferenceConfigurationShowsEveryPolicy: each field of a policy and of tasks
// stands in it, if only in a comment.
func TestTheReferenceConfigurationShowsEveryPolicy(t *testing.T) {
	text, err := os.ReadFile("../../examples/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var look func(protoreflect.MessageDescriptor)
	look = func(message protoreflect.MessageDescriptor) {
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			if !strings.Contains(string(text), string(field.Name())+": ") && !strings.Contains(string(text), string(field.Name())+":\n") {
				t.Errorf("%s is not in it", field.FullName())
			}
			if field.Message() != nil && field.Message().FullName() != durationName {
				look(field.Message())
			}
		}
	}
	look((&configv1.Policy{}).ProtoReflect().Descriptor())
	look((&configv1.Tasks{}).ProtoReflect().Descriptor())
}

func TestAMissingFileIsNamed(t *testing.T) {
	if _, err := Load("/nowhere/c.yaml"); err == nil || !strings.Contains(err.Error(), "/nowhere/c.yaml") {
		t.Fatalf("got %v", err)
	}
}

func valid(t *testing.T, p policy.Policy) {
	t.Helper()
	if err := p.Breaker.Options.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := p.SLA.Validate(); err != nil {
		t.Fatal(err)
	}
	if p.Retry.BackoffMax < p.Retry.BackoffBase || p.Retry.Budget.Ratio < 0 || p.Retry.Budget.Ratio > 1 || p.RateLimit.On() && p.RateLimit.Burst < 1 || p.Throttle.On() && p.Throttle.Ratio < 1 ||
		(p.Cache.On() || p.Hedge.Mode != policy.Off && p.Hedge.MaxAttempts > 1) && !p.Idempotent || int64(p.Cache.MaxEntryBytes) > p.Cache.MaxBytes ||
		p.Hedge.Mode != policy.Off && p.Hedge.MaxAttempts > 1 && p.Hedge.Delay <= 0 && p.Hedge.DelayQuantile <= 0 || p.Fallback.Code != policy.OK && p.Fallback.Body != "" {
		t.Fatalf("accepted %+v", p)
	}
	if b := p.LoadBalancing; b.ZoneAware == (b.Zone == "") || b.PanicThreshold < 0 || b.PanicThreshold > 1 || b.Policy.Hashes() && b.SlowStart > 0 || b.BoundedLoad > 0 && b.BoundedLoad < 1 ||
		!b.Policy.Hashes() && p.HashOn != (policy.HashPolicy{}) {
		t.Fatalf("accepted %+v", p)
	}
	if p.Timeout < 0 || p.PerTryTimeout < 0 || p.Timeout > 0 && p.PerTryTimeout > p.Timeout || p.Breaker.Options.MaxOpenFor < p.Breaker.Options.OpenFor {
		t.Fatalf("accepted %+v", p)
	}
}

// FuzzParse: no text makes it panic, every issue lies inside the text, and
// what is accepted is valid.
func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob("testdata/broken/*.yaml")
	for _, path := range append(paths, "../../examples/reference.yaml") {
		if data, err := os.ReadFile(path); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 64<<10 {
			return
		}
		c, err := Parse("c.yaml", data)
		var broken *Error
		switch {
		case err == nil:
			for _, s := range c.Services {
				valid(t, s.Policy)
				if h := s.Health; h != nil && (h.Timeout > h.Interval || h.Timeout <= 0 || h.UnhealthyAfter < 1 || h.HealthyAfter < 1 || h.Kind == HealthTLS && s.TLS == nil) {
					t.Fatalf("accepted %+v", h)
				}
				if k := s.Connections; k.Max > 0 && k.Warm > k.Max || k.Warm < 0 || k.MaxAge < 0 || k.IdleTimeout < 0 {
					t.Fatalf("accepted %+v", k)
				}
				for _, p := range s.MethodPolicies {
					valid(t, p)
				}
				if !c.Chaos && s.Policy.Fault != (policy.FaultPolicy{}) {
					t.Fatalf("accepted %+v without chaos", s.Policy.Fault)
				}
				if s.Name == "" || len(s.Endpoints) > 0 && !s.Discovery.None() || len(s.Authorities)+len(s.Methods) == 0 {
					t.Fatalf("accepted %+v", s)
				}
			}
		case errors.As(err, &broken):
			lines := strings.Split(string(data), "\n")
			for _, issue := range broken.Issues {
				if issue.Line < 1 || issue.Line > len(lines) || issue.Column < 1 || issue.Column > utf8.RuneCountInString(lines[issue.Line-1])+1 || issue.Message == "" {
					t.Fatalf("%+v lies outside the text", issue)
				}
			}
		default:
			t.Fatalf("%T: %v", err, err)
		}
	})
}

// BenchmarkParse is a reload while the compiled rules are still there.
// budget: 1 ms for a small file; the first one takes about 10 ms more.
func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("c.yaml", []byte(oneService)); err != nil {
			b.Fatal(err)
		}
	}
}
