package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

var update = flag.Bool("update", false, "write testdata/broken/*.want anew; read them before you commit")

// TestBrokenFiles: each file of testdata/broken is refused with exactly the
// text of the .want file beside it.
func TestBrokenFiles(t *testing.T) {
	paths, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(paths) < 25 {
		t.Fatalf("%d files, %v; want at least 25", len(paths), err)
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
	if p.Timeout != 0 || p.Breaker != policy.Default().Breaker || p.Breaker.Options.Mode != breaker.Observe ||
		p.SLA.Availability != 99.9 || p.SLA.SuccessRate != 99.5 || p.SLA.Latency[0].Target != 200*time.Millisecond || p.SLA.Window != 30*24*time.Hour {
		t.Errorf("policy %+v", p)
	}
}

func TestPoliciesAreInheritedFieldByField(t *testing.T) {
	c := parse(t, `
defaults:
  timeout: 3s
  circuit_breaker: {consecutive_failures: 7, open_for: 10s, mode: OBSERVE}
services:
  - name: greeter
    endpoints: {static: [{address: "127.0.0.1:50051"}]}
    policy:
      per_try_timeout: 1s
      circuit_breaker: {open_for: 20s}
    methods:
      - {method: /a.B/Slow, policy: {timeout: 30s, circuit_breaker: {mode: ENFORCE}}}
      - {method: /a.B/Endless, policy: {timeout: 0s, per_try_timeout: 0s}}
`)
	s := c.Services[0]
	if s.Policy.Timeout != 3*time.Second || s.Policy.PerTryTimeout != time.Second {
		t.Errorf("timeouts %v, %v", s.Policy.Timeout, s.Policy.PerTryTimeout)
	}
	if o := s.Policy.Breaker.Options; o.ConsecutiveFailures != 7 || o.OpenFor != 20*time.Second || o.Mode != breaker.Observe {
		t.Errorf("breaker %+v", o)
	}
	slow := s.MethodPolicies["/a.B/Slow"]
	if o := slow.Breaker.Options; slow.Timeout != 30*time.Second || slow.PerTryTimeout != time.Second || o.OpenFor != 20*time.Second || o.Mode != breaker.Enforce {
		t.Errorf("slow %+v", slow)
	}
	if p := s.MethodPolicies["/a.B/Endless"]; p.Timeout != 0 || p.PerTryTimeout != 0 {
		t.Errorf("a written 0s does not win: %+v", p)
	}
	if c.Unmatched.Policy.Timeout != 3*time.Second {
		t.Errorf("dialled authorities are not under the defaults")
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

func TestWhatAsksForNothingIsAccepted(t *testing.T) {
	parse(t, oneService+`    policy:
      idempotent: false
      hedge: {delay: 50ms, mode: OFF}
      rate_limit: {per_second: 0, burst: 0}
      defer: {mode: "OFF"}
      sla: {window: 7d}
state: {dir: ""}
`)
}

func TestTheReferenceConfigurationIsAccepted(t *testing.T) {
	if _, err := Load("../../examples/reference.yaml"); err != nil {
		t.Fatal(err)
	}
}

func TestAMissingFileIsNamed(t *testing.T) {
	if _, err := Load("/nowhere/c.yaml"); err == nil || !strings.Contains(err.Error(), "/nowhere/c.yaml") {
		t.Fatalf("got %v", err)
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
				if e := s.Policy.Breaker.Options.Validate(); e != nil {
					t.Fatal(e)
				}
				if e := s.Policy.SLA.Validate(); e != nil {
					t.Fatal(e)
				}
			}
		case errors.As(err, &broken):
			lines := strings.Count(string(data), "\n") + 1
			for _, issue := range broken.Issues {
				if issue.Line < 1 || issue.Line > lines || issue.Column < 1 || issue.Message == "" {
					t.Fatalf("%+v lies outside %d lines", issue, lines)
				}
			}
		default:
			t.Fatalf("%T: %v", err, err)
		}
	})
}

func BenchmarkFirstParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("c.yaml", []byte(oneService)); err != nil {
			b.Fatal(err)
		}
	}
}
