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
)

// said reads what a gRPC call says in its metadata, and takes it out.
func (l *life) said(m *policy.Method) policy.Arrival {
	a := policy.Arrival{Metadata: l}
	retry, criticality, hash := l.Get(keyRetry), l.Get(keyCriticality), l.Get(keyHash)
	if retry == "" && criticality == "" && hash == "" {
		return a
	}
	a.Hash, a.Hashed = m.Hash("", l, hash)
	a.NoRetry = retry == "off"
	a.Criticality, _ = policy.ParseCriticality(criticality)
	l.ctx = outgoing.ExtractOutgoing(l.ctx).Del(keyRetry).Del(keyCriticality).Del(keyHash).ToOutgoing(l.ctx)
	return a
}

// Get implements policy.Metadata for gRPC calls.
func (l *life) Get(name string) string {
	if v := metadata.ValueFromOutgoingContext(l.ctx, name); len(v) > 0 {
		return v[0]
	}
	return ""
}
