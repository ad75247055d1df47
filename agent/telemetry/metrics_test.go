package telemetry

import (
	"context"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/telemetry/telemetrytest"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// scrape returns what Prometheus would read.
func scrape(t *testing.T, telemetry *Telemetry) (text string, families map[string]*dto.MetricFamily) {
	t.Helper()
	w := httptest.NewRecorder()
	telemetry.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	text = w.Body.String()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return text, families
}

// series returns the value of the one series of a family that has the labels.
func series(t *testing.T, families map[string]*dto.MetricFamily, name string, labels map[string]string) *dto.Metric {
	t.Helper()
	var found []*dto.Metric
	for _, m := range families[name].GetMetric() {
		matching := 0
		for _, l := range m.Label {
			if labels[l.GetName()] == l.GetValue() {
				matching++
			}
		}
		if matching == len(labels) {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s%v: %d series, want 1", name, labels, len(found))
	}
	return found[0]
}

func newPrometheus(t *testing.T, source Source) *Telemetry {
	t.Helper()
	telemetry, err := New(Options{Version: "v1.2.3", Source: source, Prometheus: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := telemetry.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return telemetry
}

func TestRelayTransitionsAndProcess(t *testing.T) {
	var transitions Transitions
	transitions.Count("greeter", "CLOSED", "OPEN")
	transitions.Count("greeter", "CLOSED", "OPEN")
	telemetry := newPrometheus(t, Source{
		Relay: func() RelayStats {
			return RelayStats{
				DownstreamConnections: 3, UpstreamConnections: 2, ActiveCalls: 5, Calls: 100, BytesUp: 1000, BytesDown: 2000,
				ProtocolErrors: []policy.Count{{Label: "PROTOCOL_ERROR", Total: 7}},
				CutOffs:        []policy.Count{{Label: "resets", Total: 6}}, HandshakeFailures: 5, SilentDeaths: 4,
			}
		},
		Reloads:     func() (succeeded, failed uint64) { return 4, 1 },
		Health:      func() []HealthCount { return []HealthCount{{"greeter", "passed", 8}, {"greeter", "timed_out", 2}} },
		Transitions: &transitions,
	})
	_, families := scrape(t, telemetry)
	for _, test := range []struct {
		name   string
		labels map[string]string
		want   float64
	}{
		{"outrigger_relay_connections", map[string]string{"outrigger_side": "downstream"}, 3},
		{"outrigger_relay_connections", map[string]string{"outrigger_side": "upstream"}, 2},
		{"outrigger_relay_calls_active", nil, 5},
		{"outrigger_relay_calls_total", nil, 100},
		{"outrigger_relay_bytes_total", map[string]string{"outrigger_direction": "down"}, 2000},
		{"outrigger_relay_protocol_errors_total", map[string]string{"outrigger_kind": "PROTOCOL_ERROR"}, 7},
		{"outrigger_relay_cut_offs_total", map[string]string{"outrigger_limit": "resets"}, 6},
		{"outrigger_relay_handshake_failures_total", nil, 5},
		{"outrigger_relay_silent_deaths_total", nil, 4},
		{"outrigger_breaker_transitions_total", map[string]string{"outrigger_service": "greeter", "outrigger_to": "OPEN"}, 2},
		{"outrigger_health_checks_total", map[string]string{"outrigger_service": "greeter", "outrigger_outcome": "timed_out"}, 2},
		{"outrigger_config_reloads_total", map[string]string{"outrigger_outcome": "failed"}, 1},
		{"outrigger_build_info", map[string]string{"outrigger_version": "v1.2.3"}, 1},
		{"target_info", map[string]string{"service_name": "outrigger", "service_version": "v1.2.3"}, 1},
	} {
		m := series(t, families, test.name, test.labels)
		got := m.GetCounter().GetValue() + m.GetGauge().GetValue()
		if got != test.want {
			t.Errorf("%s%v is %v, want %v", test.name, test.labels, got, test.want)
		}
	}
	for _, name := range []string{
		"outrigger_goroutines", "process_uptime_seconds", "process_cpu_time_seconds_total",
		"go_memory_used_bytes", "go_memory_gc_cycles_total", "process_memory_usage_bytes", "outrigger_open_files",
	} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestReportedWeights(t *testing.T) {
	_, families := scrape(t, newPrometheus(t, fullSource(t)))
	m := series(t, families, "outrigger_endpoint_reported_weight_per_second", map[string]string{"outrigger_service": "greeter", "outrigger_endpoint": "127.0.0.1:1"})
	if got := m.GetGauge().GetValue(); got != 200 {
		t.Errorf("%v, want 200", got)
	}
}

func TestPrometheusFindsNothingToComplainOf(t *testing.T) {
	text, _ := scrape(t, newPrometheus(t, fullSource(t)))
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestEveryInstrumentIsReported(t *testing.T) {
	// Given a source in which everything happened once.
	collector := telemetrytest.Start(t)
	telemetry, err := New(Options{Source: fullSource(t), OTLPEndpoint: collector.Endpoint, MetricInterval: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// Then OTLP carries each instrument of names.go under its own name.
	for _, i := range []instrument{
		callDuration, calls, refusals, observedRefusals, retries,
		endpoints, endpointAttempts, endpointFailures, endpointActive, endpointWeight, healthChecks,
		breakerState, breakerTransitions,
		slaAttained, slaTarget, slaLatency, slaLatencyTarget, slaVerdict, slaBudget, slaBurn,
		relayConnections, relayActive, relayCalls, relayBytes, relayErrors,
		reloads, buildInfo, goroutines, openFiles, goMemory, goGoal, goCycles, processMemory, processCPU, processUptime,
	} {
		m := collector.Metric(t, i.name)
		if m.Unit != i.unit || m.Description != i.help {
			t.Errorf("%s: unit %q, description %q", i.name, m.Unit, m.Description)
		}
	}
	if err := telemetry.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestTransitionsAreBounded(t *testing.T) {
	var transitions Transitions
	for i := range 3 * maxTransitionSeries {
		transitions.Count(string(rune(i)), "CLOSED", "OPEN")
	}
	var series, total uint64
	transitions.each(func(_, _, _ string, n uint64) { series++; total += n })
	if series > maxTransitionSeries+1 || total != 3*maxTransitionSeries {
		t.Errorf("%d series with %d in all", series, total)
	}
}

func TestNothingIsSetUpUnasked(t *testing.T) {
	telemetry, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if telemetry.MetricsHandler() != nil || telemetry.Tracer() != nil {
		t.Error("something is on")
	}
	if err := telemetry.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestEndpointsThatCantBeUnderstood(t *testing.T) {
	for _, endpoint := range []string{"collector", "ftp://c:1", "http://c:1/path", "http://u:p@c:1", "http://c", ":4317", "c:"} {
		if _, err := New(Options{OTLPEndpoint: endpoint}); err == nil || !strings.Contains(err.Error(), "telemetry.otlp.endpoint") {
			t.Errorf("%q: got %v", endpoint, err)
		}
	}
}

func TestRepeatedFailuresAreOneLine(t *testing.T) {
	var log strings.Builder
	l := &errorLog{logger: textLogger(&log)}
	for range 100 {
		l.Handle(context.DeadlineExceeded)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines", n)
	}
	l.last = l.last.Add(-2 * errorLogEvery)
	l.Handle(context.DeadlineExceeded)
	if !strings.Contains(log.String(), "left_out=99") {
		t.Errorf("got %s", log.String())
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
