package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// fields decodes what a verb printed as JSON, as a script would.
func fields(t *testing.T, got outcome) map[string]any {
	t.Helper()
	if got.code != exitOK || got.stderr != "" {
		t.Fatalf("%+v", got)
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatalf("%v in %s", err, got.stdout)
	}
	return v
}

// element returns the one at index i of the list under the name.
func element(t *testing.T, v map[string]any, name string, i int) map[string]any {
	t.Helper()
	list, _ := v[name].([]any)
	if i >= len(list) {
		t.Fatalf("%s has %d elements: %v", name, len(list), v)
	}
	return list[i].(map[string]any)
}

func wantFields(t *testing.T, got map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if v, there := got[name]; !there || v != value {
			t.Errorf("%s is %v (there: %v), want %v", name, v, there, value)
		}
	}
}

func TestBreakerList(t *testing.T) {
	// Given one endpoint that failed 5 times in a row,
	s := newStage(t)
	s.greeter.Endpoints().Find("127.0.0.1:50052").SetDraining(true)
	s.call(5, policy.Unavailable)
	s.greeter.Endpoints().Find("127.0.0.1:50052").SetDraining(false)
	s.call(1, policy.OK)
	// when the breakers are listed for a script, then the contract's fields are
	// there.
	list := fields(t, outrigger("breaker", "list", "-o", "json"))
	b := element(t, list, "breakers", 0)
	wantFields(t, b, map[string]any{
		"name": "greeter@127.0.0.1:50051", "service": "greeter", "method": "", "endpoint": "127.0.0.1:50051",
		"state": "OPEN", "mode": "ENFORCE", "reason": "5 failures in a row", "refused": "0",
	})
	if until, _ := b["open_until"].(string); !strings.HasSuffix(until, "Z") {
		t.Errorf("open_until is %v", b["open_until"])
	}
	wantFields(t, element(t, list, "breakers", 1), map[string]any{"state": "CLOSED", "reason": "", "open_until": nil})
	// And for people a table.
	got := outrigger("breaker", "list", "--service", "greeter")
	table := regexp.MustCompile(`\d+s( |$)`).ReplaceAllString(got.stdout, "#s ")
	table = regexp.MustCompile(` +`).ReplaceAllString(table, " ")
	wantText(t, table, `BREAKER STATE MODE FOR PROBE IN REFUSED REASON
greeter@127.0.0.1:50051 OPEN ENFORCE #s #s 0 5 failures in a row
greeter@127.0.0.1:50052 CLOSED ENFORCE – – 0 –
`)
}

func TestBreakerMoves(t *testing.T) {
	s := newStage(t)
	s.call(2, policy.OK)
	name := "greeter@127.0.0.1:50051"
	wantText(t, outrigger("breaker", "open", name).stdout, name+" is OPEN: opened by an operator\n")
	wantText(t, outrigger("breaker", "close", name).stdout, name+" is CLOSED: closed by an operator\n")
	wantText(t, outrigger("breaker", "reset", name).stdout, name+" is CLOSED: reset by an operator\n")
	b := fields(t, outrigger("breaker", "open", name, "-o", "json"))["breaker"].(map[string]any)
	wantFields(t, b, map[string]any{"name": name, "state": "OPEN", "forced": true, "open_until": nil})
	got := outrigger("breaker", "open", "greter")
	if got.code != exitFailed {
		t.Errorf("%+v", got)
	}
	wantText(t, got.stderr, "outrigger: there is no breaker \"greter\"; known: greeter@127.0.0.1:50051, greeter@127.0.0.1:50052\n")
}

func TestEndpointListShowsWeightsByReports(t *testing.T) {
	// Given one endpoint of two that reports its load,
	s := newStage(t)
	byReports := balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}
	s.greeter.Update(policy.Settings{Policy: policy.Policy{LoadBalancing: byReports}})
	balancer.NewPicker(byReports).Report(s.greeter.Endpoints().Find("127.0.0.1:50051"), time.Since(s.origin), balancer.LoadReport{QPS: 50, CPUUtilization: 0.125})
	// then its weight is that,
	wantText(t, outrigger("endpoint", "list").stdout, `SERVICE  ENDPOINT         STATE  ZONE  PRIORITY  WEIGHT  IN FLIGHT  CALLS  FAILURES  REASON
greeter  127.0.0.1:50051  READY  a            0   400/s          0      0         0  –
greeter  127.0.0.1:50052  READY  –            0       3          0      0         0  –
`)
	// and scripts find both.
	wantFields(t, element(t, fields(t, outrigger("endpoint", "list", "-o", "json")), "endpoints", 0), map[string]any{"weight": 1.0, "reported_weight": 400.0})
}

func TestEndpointListAndDrain(t *testing.T) {
	// Given two endpoints, one of them failing,
	s := newStage(t)
	s.call(1, policy.OK)
	s.call(1, policy.Unavailable)
	wantText(t, outrigger("endpoint", "list").stdout, `SERVICE  ENDPOINT         STATE  ZONE  PRIORITY  WEIGHT  IN FLIGHT  CALLS  FAILURES  REASON
greeter  127.0.0.1:50051  READY  a            0       1          0      1         0  –
greeter  127.0.0.1:50052  READY  –            0       3          0      1         1  –
`)
	// when one is drained, then that is said,
	wantText(t, outrigger("endpoint", "drain", "127.0.0.1:50052").stdout, `SERVICE  ENDPOINT         STATE     ZONE  PRIORITY  WEIGHT  IN FLIGHT  CALLS  FAILURES  REASON
greeter  127.0.0.1:50052  DRAINING  –            0       3          0      1         1  drained by an operator
`)
	// and scripts find the contract's fields.
	e := element(t, fields(t, outrigger("endpoint", "list", "-o", "json")), "endpoints", 1)
	wantFields(t, e, map[string]any{
		"service": "greeter", "address": "127.0.0.1:50052", "state": "DRAINING", "reason": "drained by an operator",
		"in_flight": "0", "calls": "1", "failures": "1",
	})
	e = element(t, fields(t, outrigger("endpoint", "undrain", "127.0.0.1:50052", "-o", "json")), "endpoints", 0)
	wantFields(t, e, map[string]any{"state": "READY", "reason": ""})
	if got := outrigger("endpoint", "drain", "127.0.0.1:9"); got.code != exitFailed || !strings.Contains(got.stderr, "known: 127.0.0.1:50051, 127.0.0.1:50052") {
		t.Errorf("%+v", got)
	}
}

func TestSLAReport(t *testing.T) {
	// Given no call, then there is no data;
	s := newStage(t)
	wantText(t, outrigger("sla", "report", "--window", "1m").stdout, `greeter: 0 calls in the last 1m
  availability        –  want ≥ 99.9 %        NO_DATA
  success rate        –  want ≥ 99.5 %        NO_DATA
  p95                 –  want ≤ 200 ms        NO_DATA
  p50                 –
  p99                 –
  error budget  100.0 %  left, burn rate 0.0
`)
	// given 999 good calls and one that got no answer, then what was kept.
	s.call(999, policy.OK)
	s.call(1, policy.Unavailable)
	got := outrigger("sla", "report", "--service", "greeter")
	table := regexp.MustCompile(`(19|20)\.\d ms`).ReplaceAllString(got.stdout, "20.0 ms")
	wantText(t, table, `greeter: 1000 calls in the last 5m, 20.0 ms on average
  availability  99.900 %  want ≥ 99.9 %        MET
  success rate  99.900 %  want ≥ 99.5 %        MET
  p95            20.0 ms  want ≤ 200 ms        MET
  p50            20.0 ms
  p99            20.0 ms
  error budget     0.0 %  left, burn rate 1.0
`)
	// And scripts find the contract's fields.
	r := element(t, fields(t, outrigger("sla", "report", "-o", "json")), "reports", 0)
	wantFields(t, r, map[string]any{"service": "greeter", "window": "5m", "calls": "1000"})
	wantFields(t, r["availability"].(map[string]any), map[string]any{"value": 99.9, "target": 99.9, "verdict": "MET"})
	wantFields(t, r["success_rate"].(map[string]any), map[string]any{"value": 99.9, "target": 99.5, "verdict": "MET"})
	wantFields(t, element(t, r, "latency", 0), map[string]any{"quantile": 0.95, "target_ms": 200.0, "verdict": "MET"})
	for _, name := range []string{"mean_ms", "budget_left", "burn_rate"} {
		if _, ok := r[name].(float64); !ok {
			t.Errorf("%s is %v", name, r[name])
		}
	}
}

func TestReloadPrintsTheIssues(t *testing.T) {
	newStage(t)
	got := outrigger("reload")
	if got.code != exitFailed {
		t.Errorf("%+v", got)
	}
	wantText(t, got.stderr, "outrigger: o.yaml:3:5: services[0].name: want a name\n")
}

func TestStatusJSON(t *testing.T) {
	s := newStage(t)
	s.call(3, policy.OK)
	status := fields(t, outrigger("status", "-o", "json"))["status"].(map[string]any)
	wantFields(t, status["agent"].(map[string]any), map[string]any{"version": "v1.2.3", "config_path": "o.yaml", "config_generation": "3"})
	wantFields(t, element(t, status, "services", 0), map[string]any{"name": "greeter", "counted": "3", "availability": 100.0})
}
