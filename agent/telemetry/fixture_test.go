package telemetry

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// fullSource is a source in which everything happened once: calls that ended
// well and badly, a refusal, a retry, a breaker that opened while it only
// observes.
func fullSource(t *testing.T) Source {
	t.Helper()
	p := policy.Default()
	p.Breaker.Options.ConsecutiveFailures = 1
	p.LoadBalancing = balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}
	transitions := &Transitions{}
	service := policy.NewService("greeter", policy.Settings{Policy: p}, func(k breaker.Key, tr breaker.Transition) {
		transitions.Count(k.Service, tr.From.String(), tr.To.String())
	})
	service.SetEndpoints([]balancer.Spec{{Address: "127.0.0.1:1"}, {Address: "127.0.0.1:2"}})
	origin := time.Now().Add(-time.Minute)
	now := 59 * time.Second
	call := func(results ...policy.Result) {
		var c policy.Call
		var a policy.Attempt
		c.Begin(service.Method("/helloworld.Greeter/SayHello"), now, policy.Arrival{Timeout: policy.NoTimeout})
		if admission := c.Admit(now, 1); admission.Refusal != nil {
			t.Fatal(admission.Refusal)
		}
		for _, r := range results {
			if refusal := c.Pick(now, 1, &a); refusal != nil {
				t.Fatal(refusal)
			}
			c.ReportLoad(&a, now, balancer.LoadReport{QPS: 100, CPUUtilization: 0.5})
			c.Settle(&a, now+time.Millisecond, r, 1)
		}
		c.End(now+time.Millisecond, results[len(results)-1], 1)
	}
	call(policy.Result{Code: policy.OK})
	call(policy.Result{Code: policy.Unavailable, Reason: policy.ConnectFailed}, policy.Result{Code: policy.Unavailable, Reason: policy.ConnectFailed})
	call(policy.Result{Code: policy.OK}) // the open breaker would have refused it
	return Source{
		Origin:   origin,
		Services: func() []*policy.Service { return []*policy.Service{service} },
		Relay: func() RelayStats {
			return RelayStats{Calls: 3, ProtocolErrors: []policy.Count{{Label: "PROTOCOL_ERROR", Total: 1}}}
		},
		Health: func() []HealthCount { return []HealthCount{{"greeter", "passed", 1}} },
		Discovery: func() []DiscoveryStats {
			return []DiscoveryStats{{Service: "greeter", Age: 12 * time.Second, Stale: true, Endpoints: 2, Changes: 3}}
		},
		Reloads:     func() (succeeded, failed uint64) { return 1, 1 },
		Transitions: transitions,
	}
}
