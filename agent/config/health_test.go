package config

import (
	"reflect"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// TestHealthChecksAreInheritedFieldByField: what the defaults and the service
// write, and how the service's endpoints are asked.
func TestHealthChecksAreInheritedFieldByField(t *testing.T) {
	reference := HealthCheck{Interval: 5 * time.Second, Timeout: time.Second, UnhealthyAfter: 3, HealthyAfter: 2}
	with := func(change func(*HealthCheck)) *HealthCheck {
		h := reference
		change(&h)
		return &h
	}
	for _, test := range []struct {
		name, defaults, service string
		want                    *HealthCheck
	}{
		{"none is written", "", "", nil},
		{"the reference figures", "", "health_check: {grpc: {}}", &reference},
		{"from the defaults", "health_check: {grpc: {service: a.B}}", "", with(func(h *HealthCheck) { h.Service = "a.B" })},
		{"a figure beside an inherited kind", "health_check: {tcp: {}}", "health_check: {interval: 2s, unhealthy_after: 1, healthy_after: 4}",
			with(func(h *HealthCheck) {
				h.Kind, h.Interval, h.UnhealthyAfter, h.HealthyAfter = HealthTCP, 2*time.Second, 1, 4
			})},
		{"another kind takes the place of the inherited one", "health_check: {tcp: {}, interval: 9s}", "health_check: {grpc: {service: a.B}}",
			with(func(h *HealthCheck) { h.Service, h.Interval = "a.B", 9*time.Second })},
		{"the same kind, field by field", "health_check: {http: {path: /a, host: h}}", "health_check: {http: {path: /b, expected_statuses: [204, 3xx], expected_text: ok}}",
			with(func(h *HealthCheck) {
				h.Kind, h.Path, h.Host, h.Text, h.Statuses = HealthHTTP, "/b", "h", "ok", []policy.StatusRange{{First: 204, Last: 204}, {First: 300, Last: 399}}
			})},
		{"an interval below the usual timeout", "", "health_check: {tcp: {}, interval: 300ms}",
			with(func(h *HealthCheck) {
				h.Kind, h.Interval, h.Timeout = HealthTCP, 300*time.Millisecond, 300*time.Millisecond
			})},
		{"observed", "health_check: {tcp: {}, mode: OBSERVE}", "", with(func(h *HealthCheck) { h.Kind, h.Observe = HealthTCP, true })},
		{"taken back", "health_check: {tcp: {}}", "health_check: {mode: OFF}", nil},
		{"off needs no kind", "", "health_check: {mode: OFF}", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := parse(t, "defaults: {"+test.defaults+"}"+oneService+"    policy: {"+test.service+"}\n")

			if got := c.Services[0].Health; !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestAHealthCheckByTLSBesideTLS(t *testing.T) {
	c := parse(t, oneService+"    tls: {}\n    policy: {health_check: {tls: {}}}\n")
	if c.Services[0].Health.Kind != HealthTLS {
		t.Errorf("got %+v", c.Services[0].Health)
	}
}

// TestDialledAuthoritiesAreLookedAfterAsTheDefaultsAsk: by their checks and
// connections too.
func TestDialledAuthoritiesAreLookedAfterAsTheDefaultsAsk(t *testing.T) {
	u := parse(t, "unmatched: {mode: DIAL}\ndefaults: {health_check: {tcp: {}, interval: 2s}, connections: {warm: 1, idle_timeout: 1m}}\n").Unmatched

	if want := (&HealthCheck{Kind: HealthTCP, Interval: 2 * time.Second, Timeout: time.Second, UnhealthyAfter: 3, HealthyAfter: 2}); !reflect.DeepEqual(u.Health, want) {
		t.Errorf("got %+v, want %+v", u.Health, want)
	}
	if want := (Connections{Warm: 1, IdleTimeout: time.Minute}); u.Connections != want {
		t.Errorf("got %+v, want %+v", u.Connections, want)
	}
	if u := parse(t, "unmatched: {mode: DIAL}\n").Unmatched; u.Health != nil || u.Connections != (Connections{}) {
		t.Errorf("nothing is written: %+v", u)
	}
	// By TLS is for services alone, and only DIAL minds.
	if u := parse(t, "defaults: {health_check: {tls: {}}}\n").Unmatched; u.Dial {
		t.Errorf("got %+v", u)
	}
	parse(t, "unmatched: {mode: DIAL}\ndefaults: {health_check: {tls: {}, mode: OFF}}\n")
}
