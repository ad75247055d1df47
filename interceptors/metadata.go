package interceptors

import (
	outgoing "github.com/grpc-ecosystem/go-grpc-middleware/v2/metadata"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/policy"
)

// What a caller says in metadata, and to the policies only: it is taken out
// before the request is sent. A deadline is the context's to say.
const (
	keyRetry       = "outrigger-retry"
	keyCriticality = "outrigger-criticality"
	keyHash        = "outrigger-hash-key" // read by the policies
	keyDefer       = "outrigger-defer"    // refused: see life.notDeferrable
)

// said reads what a gRPC call says in its metadata, and takes it out.
func (l *life) said(m *policy.Method) policy.Arrival {
	a := policy.Arrival{Metadata: l}
	retry, criticality, hash := l.Get(keyRetry), l.Get(keyCriticality), l.Get(keyHash)
	l.deferred = l.Get(keyDefer) == "true"
	if retry == "" && criticality == "" && hash == "" {
		return a
	}
	a.Hash, a.Hashed = m.Hash("", l, hash)
	a.NoRetry = retry == "off"
	a.Criticality, _ = policy.ParseCriticality(criticality)
	l.ctx = outgoing.ExtractOutgoing(l.ctx).Del(keyRetry).Del(keyCriticality).Del(keyHash).ToOutgoing(l.ctx)
	return a
}

// notDeferrable refuses what only the agent does: to keep calls for later, be it
// the caller who asks or the policy. nil: neither does.
func (l *life) notDeferrable() *policy.Refusal {
	m := l.call.Method()
	switch mode := m.Policy().Defer.Mode; {
	case l.deferred:
		return l.call.Refuse(policy.NotDeferrable, "", "outrigger-defer: only the agent keeps calls for later: send the call through its egress, or submit a task")
	case mode != policy.DeferNever:
		return l.call.Refuse(policy.NotDeferrable, "defer", "interceptors: service "+m.Service().Name()+" has defer: {mode: "+mode.String()+"}, and only the agent keeps calls for later; want OFF")
	}
	return nil
}

// Get implements policy.Metadata for gRPC calls.
func (l *life) Get(name string) string {
	if v := metadata.ValueFromOutgoingContext(l.ctx, name); len(v) > 0 {
		return v[0]
	}
	return ""
}
