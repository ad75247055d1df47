package telemetry

import (
	"testing"

	"github.com/outrigger-rpc/outrigger/interceptors"
)

// TestInterceptorsHaveTheSameNames: a library must not know the agent, so it
// has a list of its own.
func TestInterceptorsHaveTheSameNames(t *testing.T) {
	for theirs, ours := range map[string]instrument{
		interceptors.MetricCalls: calls, interceptors.MetricRefusals: refusals, interceptors.MetricRetries: retries,
		interceptors.MetricBreakerState: breakerState, interceptors.MetricEndpointAttempts: endpointAttempts,
		interceptors.MetricEndpointFailures: endpointFailures, interceptors.MetricEndpointActive: endpointActive,
	} {
		if theirs != ours.name {
			t.Errorf("interceptors have %s, the agent %s", theirs, ours.name)
		}
	}
}
