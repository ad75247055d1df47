package forward

import (
	"math"
	"net/http"
	"testing"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestEndpointsReportTheirLoadInHeaders(t *testing.T) {
	byReports := balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}
	for _, c := range []struct {
		name, value string
		code        int
		options     balancer.Options
		want        float64
	}{
		{"Endpoint-Load-Metrics", "TEXT application_utilization=0.5, rps_fractional=100", 200, byReports, 200},
		{"Endpoint-Load-Metrics", `JSON {"cpu_utilization": 0.25, "rps_fractional": 100}`, 503, byReports, 400},
		{"Endpoint-Load-Metrics-Bin", "CQAAAAAAAOA/MQAAAAAAAFlA", 200, byReports, 200}, // 0.5 and 100
		{"Endpoint-Load-Metrics", "full", 200, byReports, 0},
		{"Endpoint-Load-Metrics", "TEXT application_utilization=0.5, rps_fractional=100", 200, balancer.Options{Policy: balancer.WeightedRoundRobin}, 0},
	} {
		u := startWeb(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(c.name, c.value)
			w.WriteHeader(c.code)
		})
		s := start(t, policy.Policy{LoadBalancing: c.options}, Options{}, u.address)
		if got := s.ask("GET", "").Get(c.name); got != c.value {
			t.Errorf("%s: the caller got %q", c.value, got)
		}
		s.service.Update(policy.Settings{Policy: policy.Policy{LoadBalancing: byReports}})
		if w := math.Round(s.service.ReportedWeight(s.service.Endpoints().All()[0], s.now())); w != c.want {
			t.Errorf("%s: weighs %v; want %v", c.value, w, c.want)
		}
	}
}
